"""The way back through events that random batches do not make: folded, retyped, encrypted, odd."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.schema import Column, Schema
from lakehouse.table.events import EVENT_SCHEMA, unknown_fields, walk_back
from lakehouse.table.types import FIELD_ID, arrow_schema

SCHEMA = Schema(4, (Column(1, "id", "int64"), Column(2, "now", "string"), Column(6, "n", "int64")))
KEY = ("id",)
FIELDS = {"id": 1, "now": 2, "n": 6}


def row(now: str | None = "z", n: int | None = 5, number: int = 7) -> pa.Table:
    values = [{"id": number, "now": now, "n": n}]
    return pa.Table.from_pylist(values, schema=arrow_schema(SCHEMA))


def event(version: int, kind: str, field: str = "", old: str | None = None, **more: Any) -> dict:
    told: dict[str, Any] = {"version": version, "ordinal": 0, "kind": kind, "entity": "[7]"}
    told |= {"field": field, "column_id": FIELDS.get(field), "old": old}
    if kind == "insert":
        told |= {"entity": None, "entities": ["[1]", "[7]"]}
    return told | more


def back(now: pa.Table | None, version: int, *events: dict[str, Any]) -> pa.Table | None:
    told = pa.Table.from_pylist(list(reversed(events)), schema=EVENT_SCHEMA)
    return walk_back(now, told, SCHEMA, KEY, version)


def values(found: pa.Table | None) -> list[Any] | None:
    return None if found is None else [column[0].as_py() for column in found.columns]


def test_events_of_one_version_count_by_ordinal() -> None:
    told = (
        event(3, "update", "now", '"a"', ordinal=1),
        event(3, "update", "now", '"b"', ordinal=2),
        event(3, "update", "now", '"c"', ordinal=10),
    )
    assert values(back(row(), 2, *told)) == [7, "a", 5]
    assert values(back(row(), 3, *told)) == [7, "z", 5]


def test_a_row_deleted_and_born_again_in_one_version() -> None:
    told = (
        event(3, "delete", "id", "7", ordinal=1),
        event(3, "delete", "now", '"a"', ordinal=2),
        event(3, "insert", ordinal=3),
        event(3, "update", "n", "1", ordinal=4),
    )
    assert values(back(row(), 2, *told)) == [7, "a", None]


def test_lives_of_a_row() -> None:
    told = (
        event(3, "update", "n", "1"),
        event(5, "delete", "id", "7"),
        event(5, "delete", "n", "2", ordinal=1),
        event(7, "insert"),
        event(9, "update", "now", "null"),
    )
    wanted = {2: [7, None, 1], 4: [7, None, 2], 5: None, 6: None, 7: [7, None, 5], 9: [7, "z", 5]}
    for version, state in wanted.items():
        assert values(back(row(), version, *told)) == state, version


def test_inserts_of_others_and_of_nobody_do_not_matter() -> None:
    others = (event(3, "insert", entities=["[77]"]), event(4, "insert", entities=None))
    assert values(back(row(), 1, *others)) == [7, "z", 5]
    assert back(None, 1, *others) is None
    assert values(back(row(), 1, *others, event(2, "update", "n", "9", entity="[8]"))) == [
        7,
        "z",
        5,
    ]
    assert back(None, 1) is None


def test_a_column_is_known_by_its_id() -> None:
    renamed = event(3, "update", "now", '"a"') | {"field": "before"}
    gone = event(3, "update", "gone", '"x"', column_id=4)
    assert values(back(row(), 2, renamed, gone)) == [7, "a", 5]


def test_an_old_text_is_read_as_the_type_of_now_or_stays_as_it_is() -> None:
    told = (event(3, "update", "now", "12"), event(3, "update", "n", '"twelve"', ordinal=1))
    found = back(row(), 2, *told)
    assert found is not None
    assert values(found) == [7, "12", '"twelve"']
    assert found.schema.field("n").type == pa.string()
    assert found.schema.field("n").metadata == {FIELD_ID: b"6"}


def test_what_is_encrypted_is_unknown_and_said() -> None:
    secret = event(3, "update", "now", None, value_enc=b"\x01", key_id="k")
    found = back(row(), 2, secret)
    assert found is not None
    assert (values(found), unknown_fields(found)) == ([7, None, 5], ("now",))
    known = back(row(), 2, event(3, "update", "now", '"a"'), secret | {"version": 5})
    assert known is not None
    assert (values(known), unknown_fields(known)) == ([7, "a", 5], ())


def test_batches_are_passed_over() -> None:
    batch = event(4, "batch", entity=None)
    assert values(back(row(), 2, batch, event(3, "update", "n", "1"))) == [7, "z", 1]


@pytest.mark.parametrize("now", [None, row()])
def test_a_journal_that_leads_elsewhere_is_corrupt(now: pa.Table | None) -> None:
    last = event(4, "update", "n", "1") if now is None else event(4, "delete", "id", "7")
    with pytest.raises(LakehouseError) as caught:
        back(now, 3, last)
    assert caught.value.kind is ErrorKind.CORRUPT


def test_events_without_a_version_are_refused() -> None:
    with pytest.raises(LakehouseError) as caught:
        back(row(), 3, event(4, "update", "n", "1") | {"version": None})
    assert caught.value.kind is ErrorKind.INTERNAL
