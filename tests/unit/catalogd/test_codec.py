"""Changes as JSON: tolerant of what is missing, clear about what is not known."""

from __future__ import annotations

import typing
from dataclasses import replace

import orjson
import pytest

from lakehouse.catalogd.codec import decode, decode_change, encode, encode_change
from lakehouse.catalogd.internal import Forget, GiveUp, ImportDataset, StoredChange
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model import changes as m
from lakehouse.model.dataset import Card, ColumnStats, DataFile, Lineage, PiiFinding, Sensitivity
from lakehouse.model.schema import Schema
from support_catalog import CARD, COLUMNS

FILE = DataFile("k", 1, 2, "00", "b", 3, "11", True, 4, (ColumnStats(1, None, "a", None),))
KEYS = DataFile("k", 1, 2, "00", rows_hash="rh1:1", content="keys")
EVENTS = DataFile("e", 1, 2, "00", content="events")
FULL_CARD = Card(
    "o",
    "d",
    Sensitivity.RESTRICTED,
    ("t",),
    Lineage("s", "i", ("x",)),
    60,
    (PiiFinding("c", "email", 0.5),),
    ("pii",),
)
SCHEMA = Schema(1, COLUMNS)
CREATE = m.CreateDataset("D", "n", "fp1:x", SCHEMA, FULL_CARD, ("id",), "b")
EVERY: tuple[StoredChange, ...] = (
    CREATE,
    m.AddFiles("D", (FILE,), True, "sha", "replace", "src"),
    m.AddFiles("D", (KEYS, EVENTS), operation="delete", workspace="ws", reason="gone"),
    m.RemoveFiles("D", ("a", "b"), "compact"),
    m.RewriteFiles("D", ("a", "b"), (replace(KEYS, seq=7),), "minor", 6),
    m.SetSchema("D", SCHEMA, "fp1:x"),
    m.SetCard("D", CARD),
    m.SetPrimaryKey("D", ("id",)),
    m.RenameDataset("D", "n2"),
    m.DropDataset("D"),
    m.RestoreDataset("D", "n3"),
    m.PurgeDataset("D"),
    m.QuarantineDataset("D", "why"),
    m.PutDocument("k", "i", "{}"),
    m.DeleteDocument("k", "i"),
    m.OpenSession("S", "w", "r"),
    m.CloseSession("S"),
    m.Condemn(3, ("a",)),
    ImportDataset(CREATE, 123, False),
    GiveUp(3, ("a",), ("b",)),
    Forget(("a",), ("S",)),
)


def test_every_kind_of_change_survives_json() -> None:
    assert {type(each) for each in EVERY} == set(typing.get_args(StoredChange))
    for change in EVERY:
        text = orjson.dumps(encode_change(change))
        assert decode_change(orjson.loads(text)) == change


def test_defaults_are_left_out_and_missing_fields_take_them() -> None:
    assert encode_change(m.RestoreDataset("D")) == {"change": "RestoreDataset", "dataset_id": "D"}
    assert decode_change({"change": "AddFiles", "dataset_id": "D", "files": []}) == m.AddFiles(
        "D", ()
    )
    assert decode(Card, encode(Card())) == Card()


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    assert decode_change({"change": "DropDataset", "dataset_id": "D", "why": [1]}) == m.DropDataset(
        "D"
    )


@pytest.mark.parametrize(
    "value",
    [
        {"change": "SplitDataset", "dataset_id": "D"},
        {"dataset_id": "D"},
        {"change": "DropDataset"},
        {"change": "DropDataset", "dataset_id": 7},
        {"change": "DropDataset", "dataset_id": None},
        {"change": "AddFiles", "dataset_id": "D", "files": [{"key": "k"}]},
        {"change": "AddFiles", "dataset_id": "D", "files": 7},
        {"change": "AddFiles", "dataset_id": "D", "files": [], "replace": 1},
        {"change": "Condemn", "horizon": True, "keys": []},
        {"change": "SetCard", "dataset_id": "D", "card": {"sensitivity": "odd"}},
    ],
)
def test_what_no_version_wrote_is_corrupt(value: dict[str, object]) -> None:
    with pytest.raises(LakehouseError) as caught:
        decode_change(value)
    assert caught.value.kind is ErrorKind.CORRUPT


def test_an_unknown_change_is_named() -> None:
    with pytest.raises(LakehouseError) as caught:
        decode_change({"change": "SplitDataset"})
    assert caught.value.fields["change"] == "SplitDataset"
    assert "upgrade" in str(caught.value.fields["hint"])
