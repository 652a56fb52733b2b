"""Events of a batch, of version entries, and as readers get them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from lakehouse.model.dataset import VersionEntry
from lakehouse.model.events import EventKind, JournalEvent
from lakehouse.model.schema import Column, Schema
from lakehouse.table.changes import RowChanges, delete, difference, upsert
from lakehouse.table.events import (
    EVENT_COLUMNS,
    EVENT_SCHEMA,
    Why,
    batch_events,
    events_of,
    to_journal_events,
)
from lakehouse.table.types import FIELD_ID, arrow_schema

SCHEMA = Schema(
    1,
    (
        Column(3, "name", "string"),
        Column(1, "id", "int64"),
        Column(5, "level", "float64"),
    ),
)
KEY = ("id",)
WHY = Why("d1", 40, "upsert", "ann", 1_000_001, "api", "ws", "typo", "r-1")
OLD = [
    {"name": "a", "id": 1, "level": 1.5},
    {"name": None, "id": 2, "level": None},
    {"name": "c", "id": 3, "level": None},
]


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=arrow_schema(SCHEMA))


def events(changes: RowChanges) -> pa.Table:
    told = events_of(changes, WHY, SCHEMA, KEY, "datasets/o", "5ha")
    assert told.schema.equals(EVENT_SCHEMA, check_metadata=True)
    told.validate(full=True)
    return told


def test_the_columns_keep_their_order_and_ids() -> None:
    assert " ".join(EVENT_SCHEMA.names) == (
        "dataset_id base_version version ordinal kind operation entity column_id field old new "
        "value_enc key_id actor at source workspace reason request_id rows object_key sha256 "
        "entities"
    )
    assert [column.id for column in EVENT_COLUMNS.columns] == list(range(1, 24))
    assert EVENT_SCHEMA.field("sha256").metadata == {FIELD_ID: b"22"}


def test_one_event_a_changed_field_by_row_then_by_column() -> None:
    batch = [{"name": "b", "id": 2, "level": 2.0}, {"name": "a", "id": 1, "level": None}]
    told = events(upsert(table(batch), table(OLD), SCHEMA, KEY))
    names = ["ordinal", "kind", "entity", "column_id", "field", "old", "new", "rows"]
    rows = [tuple(row.values()) for row in told.select(names).to_pylist()]
    assert rows == [
        (0, "update", "[2]", 3, "name", None, '"b"', 1),
        (1, "update", "[2]", 5, "level", None, "2.0", 1),
        (2, "update", "[1]", 5, "level", "1.5", None, 1),
    ]
    first = told.slice(0, 1).to_pylist()[0]
    assert first["at"] == datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC)
    told_why = ("dataset_id", "base_version", "operation", "actor", "source", "workspace")
    assert [first[name] for name in told_why] == ["d1", 40, "upsert", "ann", "api", "ws"]
    assert (first["reason"], first["request_id"], first["version"]) == ("typo", "r-1", None)
    assert (first["object_key"], first["sha256"], first["entities"]) == (None, None, None)


def test_inserts_are_one_event_before_the_others() -> None:
    batch = [{"id": 9}, {"name": "A", "id": 1, "level": 1.5}, {"id": 8}]
    told = events(upsert(table(batch), table(OLD), SCHEMA, KEY)).to_pylist()
    assert [(row["ordinal"], row["kind"]) for row in told] == [(0, "insert"), (1, "update")]
    assert (told[0]["entities"], told[0]["rows"], told[0]["entity"]) == (["[9]", "[8]"], 2, None)
    assert (told[0]["object_key"], told[0]["sha256"]) == ("datasets/o", "5ha")


def test_a_delete_tells_every_field_that_had_a_value() -> None:
    keys = table([{"id": 2}, {"id": 1}])
    told = events(delete(keys, table(OLD), SCHEMA, KEY)).to_pylist()
    assert [(row["kind"], row["entity"], row["field"], row["old"], row["new"]) for row in told] == [
        ("delete", "[2]", "id", "2", None),
        ("delete", "[1]", "name", '"a"', None),
        ("delete", "[1]", "id", "1", None),
        ("delete", "[1]", "level", "1.5", None),
    ]


def test_a_difference_tells_all_three() -> None:
    new = table([{"id": 7}, {**OLD[0], "name": "A"}])
    told = events(difference(table(OLD), new, SCHEMA, KEY))
    assert told.column("kind").to_pylist() == ["insert", "update", "delete", "delete", "delete"]
    assert told.column("ordinal").to_pylist() == [0, 1, 2, 3, 4]
    assert events(difference(new, new, SCHEMA, KEY)).num_rows == 0


def test_version_entries_are_batches() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    entries = [
        VersionEntry(8, at, "create", "bob", "r", 10, 0, 1, 0, 10, 1, "d19"),
        VersionEntry(9, at, "remove", "bob", "r", 0, 4, 0, 1, 6, 1, "", "cli", "w", "why"),
    ]
    told = batch_events(entries, "d1")
    assert told.schema.equals(EVENT_SCHEMA, check_metadata=True)
    one, two = to_journal_events(told, "sales")
    assert one == JournalEvent(
        version=8,
        ordinal=0,
        at=at,
        dataset_id="d1",
        dataset="sales",
        kind=EventKind.BATCH,
        operation="create",
        actor="bob",
        base_version=7,
        request_id="r",
        rows=10,
        sha256="d19",
    )
    assert (two.rows, two.source, two.workspace, two.reason) == (4, "cli", "w", "why")
    assert to_journal_events(batch_events([], "d1"), "sales") == ()


def test_readers_see_what_is_encrypted_and_what_has_no_version() -> None:
    told = events(upsert(table([{**OLD[0], "name": "A"}]), table(OLD), SCHEMA, KEY))
    (plain,) = to_journal_events(told, "sales")
    assert (plain.old_json, plain.new_json, plain.encrypted) == ('"a"', '"A"', False)
    assert (plain.version, plain.entity, plain.field, plain.at.microsecond) == (0, "[1]", "name", 1)
    at = told.schema.get_field_index("value_enc")
    secret = told.set_column(at, told.schema.field(at), pa.array([b"\x01"]))
    assert to_journal_events(secret, "sales")[0].encrypted
