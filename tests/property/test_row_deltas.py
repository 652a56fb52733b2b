"""Row changes against a dict: what can be seen, what folds keep, and every row at every version.

The model is a dict from key to the row's values. Seeds are in the tests' names.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lakehouse.model.schema import Column, Schema
from lakehouse.table.cells import conform
from lakehouse.table.changes import RowChanges, SetField, delete, difference, patch, upsert
from lakehouse.table.events import EVENT_SCHEMA, Why, events_of, walk_back
from lakehouse.table.keys import entity_texts, keys_hash
from lakehouse.table.merge import Layer, fold, tombstones, visible
from lakehouse.table.rowhash import add_hashes, rows_hash
from lakehouse.table.types import arrow_schema

SEEDS = range(12)
COMMITS = 10
KEY = ("id", "part")
NARROW = Schema(
    1,
    (
        Column(1, "note", "string"),
        Column(2, "id", "int64"),
        Column(3, "part", "string"),
        Column(4, "level", "float64"),
        Column(5, "list", "list<decimal(6,2)>"),
    ),
)
WIDE = Schema(2, (*NARROW.columns, Column(9, "more", "struct<a:float64>")))
NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000005))[0]
VALUES: dict[str, list[Any]] = {
    "note": [None, "", "a", 'q"\\\n', "é\x00"],
    "level": [None, 0.0, -0.0, 1.5, float("nan"), NAN, float("inf")],
    "list": [None, [], [None], [Decimal("1.10")], [Decimal("1.10"), Decimal("-3.00")]],
    "more": [None, {"a": None}, {"a": 2.5}, {"a": -0.0}],
}
KEYS = [(number, part) for number in (1, 2**60) for part in ("a", "b", "")]
Key = tuple[int, str]
Row = dict[str, Any]


def bits(value: Any) -> Any:
    """A value that is equal exactly where the bits are."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, dict):
        return {name: bits(item) for name, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, list) else value


def as_model(table: pa.Table) -> dict[Key, Row]:
    rows = [bits(row) for row in table.to_pylist()]
    model = {(row["id"], row["part"]): row for row in rows}
    assert len(model) == len(rows), "a key can be seen twice"
    return model


@dataclass
class Store:
    """The layers of one dataset, as a reader would have them."""

    rows: list[Layer] = field(default_factory=list)
    keys: list[Layer] = field(default_factory=list)

    def seen(self, schema: Schema) -> pa.Table:
        tables = [layer.table for layer in self.rows]
        if self.keys:
            tombs = tombstones(self.keys, KEY)
            tables = [visible(layer, tombs, KEY) for layer in self.rows]
        return pa.concat_tables(
            [arrow_schema(schema).empty_table(), *(conform(table, schema) for table in tables)]
        )

    def balance(self, schema: Schema) -> tuple[int, int]:
        """Rows less keys, and their hashes."""
        tables = [conform(layer.table, schema) for layer in self.rows]
        rows = pa.concat_tables(tables).combine_chunks()
        count, hashed = rows.num_rows, rows_hash(rows, schema)
        for layer in self.keys:
            count -= layer.table.num_rows
            hashed = add_hashes(hashed, -keys_hash(layer.table))
        return count, hashed

    def folded(self, first: int, last: int, schema: Schema) -> Store:
        """The commits from ``first`` to ``last`` as one."""
        rows = [layer for layer in self.rows if first <= layer.seq <= last]
        keys = [layer for layer in self.keys if first <= layer.seq <= last]
        result = Store(
            [layer for layer in self.rows if not first <= layer.seq <= last],
            [layer for layer in self.keys if not first <= layer.seq <= last],
        )
        if rows or keys:
            one = fold(rows, keys, KEY, schema)
            highest = max(layer.seq for layer in (*rows, *keys))
            result.rows.append(Layer(highest, one.rows))
            result.keys.append(Layer(highest, one.keys))
        return result


class Machine:
    """Random commits on a store, on one that is compacted all the time, and on the model."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.schema = NARROW
        self.version = 1
        self.model = {key: self.fresh(key) for key in self.random.sample(KEYS, 2)}
        born = Layer(1, self.table(list(self.model.values())))
        self.store, self.compacted = Store([born]), Store([born])
        self.events = EVENT_SCHEMA.empty_table()
        self.history = {1: dict(self.model)}

    def fresh(self, key: Key) -> Row:
        names = [name for name in self.schema.names() if name not in KEY]
        values = {name: self.random.choice(VALUES[name]) for name in names}
        return {"id": key[0], "part": key[1], **values}

    def table(self, rows: list[Row]) -> pa.Table:
        return pa.Table.from_pylist(rows, schema=arrow_schema(self.schema))

    def key_table(self, keys: list[Key]) -> pa.Table:
        rows = [{"id": number, "part": part} for number, part in keys]
        return pa.Table.from_pylist(rows, schema=arrow_schema(self.schema).remove(0)).select(KEY)

    def keys(self) -> list[Key]:
        return self.random.sample(KEYS, self.random.randint(1, len(KEYS)))

    def step(self) -> None:
        self.version += self.random.randint(1, 3)
        if self.schema is NARROW and self.random.random() < 0.15:
            self.schema = WIDE
            self.model = {key: {**row, "more": None} for key, row in self.model.items()}
        how = self.random.choice(["upsert", "upsert", "patch", "patch", "delete", "replace"])
        was = dict(self.model)
        changes = getattr(self, how)()
        self.check_counts(changes, was)
        self.commit(changes, how)

    def given(self) -> tuple[pa.Table, Schema, tuple[str, ...]]:
        """The rows that can be seen, in no order."""
        seen = self.store.seen(self.schema)
        order = self.random.sample(range(seen.num_rows), seen.num_rows)
        return seen.take(pa.array(order, pa.int64())), self.schema, KEY

    def incoming(self) -> list[Row]:
        """Rows of which some are as they are already."""
        return [
            self.model[key] if key in self.model and self.random.random() < 0.4 else self.fresh(key)
            for key in self.keys()
        ]

    def upsert(self) -> RowChanges:
        rows = self.incoming()
        self.model |= {(row["id"], row["part"]): row for row in rows}
        return upsert(self.table(rows), *self.given())

    def patch(self) -> RowChanges:
        keys = self.keys()
        notes = [self.random.choice(VALUES["note"]) for _ in keys]
        levels = [self.random.choice(VALUES["level"]) for _ in keys]
        mask = [self.random.random() < 0.5 for _ in keys]
        for key, note, level, told in zip(keys, notes, levels, mask, strict=True):
            if key in self.model:
                change = {"note": note, **({"level": level} if told else {})}
                self.model[key] = {**self.model[key], **change}
        fields = {
            "note": pa.array(notes, pa.string()),
            "level": SetField(pa.array(levels, pa.float64()), pa.array(mask)),
        }
        changes = patch(self.key_table(keys), fields, *self.given())
        missing = [at for at, key in enumerate(keys) if key not in self.model]
        assert list(changes.missing_at) == missing
        return changes

    def delete(self) -> RowChanges:
        keys = self.keys()
        missing = [at for at, key in enumerate(keys) if key not in self.model]
        for key in keys:
            self.model.pop(key, None)
        changes = delete(self.key_table(keys), *self.given())
        assert list(changes.missing_at) == missing
        return changes

    def replace(self) -> RowChanges:
        """The base is another, and the deltas are the difference, as after a restore."""
        rows = self.incoming()
        self.model = {(row["id"], row["part"]): row for row in rows}
        current, schema, key = self.given()
        return difference(current, self.table(rows), schema, key)

    def check_counts(self, changes: RowChanges, was: dict[Key, Row]) -> None:
        both = was.keys() & self.model.keys()
        updated = sum(bits(was[key]) != bits(self.model[key]) for key in both)
        assert changes.inserted == len(self.model.keys() - was.keys())
        assert changes.updated == updated
        assert changes.deleted == len(was.keys() - self.model.keys())
        assert changes.keys.num_rows == updated + changes.deleted
        assert changes.rows.num_rows == updated + changes.inserted

    def commit(self, changes: RowChanges, operation: str) -> None:
        why = Why("d", self.version - 1, operation, "me", self.version)
        events = events_of(changes, why, self.schema, KEY, "o", "s")
        assert (events.num_rows == 0) == changes.empty
        assert events.column("ordinal").to_pylist() == list(range(events.num_rows))
        told = events.set_column(2, "version", pa.repeat(self.version, events.num_rows))
        self.events = pa.concat_tables([self.events, told.cast(EVENT_SCHEMA)])
        for store in (self.store, self.compacted):
            store.rows.append(Layer(self.version, changes.rows))
            store.keys.append(Layer(self.version, changes.keys))
        self.history[self.version] = dict(self.model)

    def check(self) -> None:
        """What can be seen, whole, and with any run of commits as one."""
        first, last = sorted(self.random.sample(range(1, self.version + 2), 2))
        folded = self.store.folded(first, last, self.schema)
        if self.random.random() < 0.5:
            self.compacted = self.compacted.folded(first, last, self.schema)
        wanted = {key: bits(row) for key, row in self.model.items()}
        hashed = rows_hash(self.table(list(self.model.values())), self.schema)
        for store in (self.store, folded, self.compacted):
            assert as_model(store.seen(self.schema)) == wanted
            assert store.balance(self.schema) == (len(wanted), hashed)
            for layer in store.keys:
                keys = entity_texts(layer.table, self.schema, KEY).to_pylist()
                assert len(set(keys)) == len(keys)

    def check_history(self) -> None:
        """Every row at every version, by the journal alone, which comes in any order; then by one
        in which pairs of commits were one, so that ordinals alone order them."""
        self.walk(self.events, list(self.history))
        commits = sorted(self.history)[1:]
        later = dict(zip(commits[::2], commits[1::2], strict=False))
        rows = self.events.to_pylist()
        for row in rows:
            row["ordinal"] += 1000 * (row["version"] in later.values())
            row["version"] = later.get(row["version"], row["version"])
        joined = pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)
        self.walk(joined, [version for version in self.history if version not in later])

    def walk(self, events: pa.Table, versions: list[int]) -> None:
        order = self.random.sample(range(events.num_rows), events.num_rows)
        events = events.take(pa.array(order, pa.int64()))
        current = self.store.seen(self.schema)
        entities = entity_texts(current, self.schema, KEY)
        everyone = entity_texts(self.key_table(KEYS), self.schema, KEY)
        for key, entity in zip(KEYS, everyone, strict=True):
            row = current.filter(pc.equal(entities, entity))
            inserts = pc.equal(events.column("kind"), "insert")
            mine = events.filter(pc.or_kleene(inserts, pc.equal(events.column("entity"), entity)))
            for version in versions:
                got = walk_back(row if row.num_rows else None, mine, self.schema, KEY, version)
                want = self.history[version].get(key)
                padded = want and dict.fromkeys(self.schema.names()) | want
                assert (got and bits(got.to_pylist()[0])) == bits(padded), (key, version)


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_folds_and_history_equal_the_model(seed: int) -> None:
    machine = Machine(seed)
    for _ in range(COMMITS):
        machine.step()
        machine.check()
    machine.check_history()
