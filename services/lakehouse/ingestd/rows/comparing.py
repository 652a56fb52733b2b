"""What differs between two versions of a dataset, by key.

Only keys in files that one version has and the other has not can differ. They are taken share by
share, so that memory is bounded however far the versions are apart.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.catalog import AsOf, DatasetSnapshot
from lakehouse.contracts.rows import DiffRequest, DiffResult, FieldChange, RowDifference
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.journal.cursors import decode_cursor, encode_cursor
from lakehouse.ingestd.rows.finding import place
from lakehouse.ingestd.rows.lookup import under_schema
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.rows.refusals import no_key
from lakehouse.kit import tracing
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import KEYS, ROWS, DataFile
from lakehouse.model.identity import Context, Scope
from lakehouse.model.schema import Schema
from lakehouse.table.cells import flat, same
from lakehouse.table.changes import RowChanges, difference
from lakehouse.table.keys import distinct, entity_texts, key_columns, key_hashes, parse_entity
from lakehouse.table.types import arrow_schema
from lakehouse.table.values import json_texts

__all__ = ["Comparer", "Pair", "compare", "pair_of", "with_key"]

_AT_ONCE: Final = 500_000
_KEPT_ROWS: Final = 50_000
_KEPT: Final = 4
_LIMIT_MAX: Final = 10_000
_BITS: Final = 64
_ADDED, _REMOVED, _CHANGED = "added", "removed", "changed"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions of a dataset under one key and one schema, the later of both."""

    old: DatasetSnapshot
    new: DatasetSnapshot
    schema: Schema
    key: tuple[str, ...]


def pair_of(old: DatasetSnapshot, new: DatasetSnapshot, name: str) -> Pair:
    """Raises ``invalid`` where there is no key, or not the same at both; ``not_found`` where the
    name was that of another dataset at the one version."""
    if old.dataset.id != new.dataset.id:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "the name belonged to another dataset then",
            dataset=name,
            old_version=old.dataset.version,
            new_version=new.dataset.version,
        )
    key = new.dataset.primary_key or old.dataset.primary_key
    if not key:
        raise no_key(name)
    if old.dataset.primary_key not in ((), key):
        # What is hidden is told by the key of then: by another one it cannot be read.
        raise LakehouseError(
            ErrorKind.INVALID,
            "the versions have different primary keys",
            dataset=name,
            old_primary_key=list(old.dataset.primary_key),
            new_primary_key=list(key),
            hint="read each of them as_of its version, or ingest the one as another dataset",
        )
    schema = max(old.dataset.schema, new.dataset.schema, key=lambda one: one.id)
    return Pair(with_key(old, key), with_key(new, key), schema, key)


def with_key(snapshot: DatasetSnapshot, key: tuple[str, ...]) -> DatasetSnapshot:
    """A version from before the key was declared is read by it all the same."""
    if snapshot.dataset.primary_key == key:
        return snapshot
    return replace(snapshot, dataset=replace(snapshot.dataset, primary_key=key))


async def compare(parts: RowParts, pair: Pair) -> AsyncIterator[RowChanges]:
    """What makes ``pair.new`` of ``pair.old``, in shares without a common key."""
    if pair.old.dataset.rows_version == pair.new.dataset.rows_version:
        return
    old = {place(file): file for file in pair.old.files if file.content in (ROWS, KEYS)}
    new = {place(file): file for file in pair.new.files if file.content in (ROWS, KEYS)}
    gone = [file for at, file in old.items() if at not in new]
    come = [file for at, file in new.items() if at not in old]
    bits = (max(1, -(-sum(file.rows for file in gone + come) // _AT_ONCE)) - 1).bit_length()
    for share in range(1 << bits):
        keys = await _keys(parts, pair, (gone, come), (share, bits))
        if keys.num_rows == 0:
            continue
        before = await parts.reader.find(pair.old, keys)
        after = await parts.reader.find(pair.new, keys)
        changes = await run_in(parts.jobs, _difference, pair, before, after)
        if not changes.empty:
            yield changes


def _difference(pair: Pair, before: pa.Table, after: pa.Table) -> RowChanges:
    old = under_schema(before, pair.old.dataset.schema, pair.schema)
    new = under_schema(after, pair.new.dataset.schema, pair.schema)
    return difference(old, new, pair.schema, pair.key)


async def _keys(
    parts: RowParts,
    pair: Pair,
    files: tuple[Sequence[DataFile], Sequence[DataFile]],
    part: tuple[int, int],
) -> pa.Table:
    """The keys in ``files``, each once, whose hash begins with ``part``: (value, bits)."""
    keyed = Schema(pair.schema.id, key_columns(pair.schema, pair.key))
    found = [arrow_schema(keyed).empty_table()]
    share, bits = part
    for snapshot, some in zip((pair.old, pair.new), files, strict=True):
        async for table in parts.reader.keys(snapshot, some):

            def take(table: pa.Table = table) -> pa.Table:
                if not bits:
                    return table
                hashes = key_hashes(table, keyed, pair.key)
                head = pc.shift_right(hashes, pa.scalar(_BITS - bits, pa.uint64()))
                return table.filter(pc.equal(head, pa.scalar(share, pa.uint64())))

            found.append(await run_in(parts.jobs, take))

    def unique() -> pa.Table:
        whole = pa.concat_tables(found)
        return whole.filter(distinct(whole, pair.key))

    return await run_in(parts.jobs, unique)


@dataclass(slots=True)
class _Rows:
    """Rows that differ, in the order of their keys: ``old`` and ``new`` side by side, all null
    where a row is added or removed; ``kinds`` says which."""

    keys: pa.Table
    old: pa.Table
    new: pa.Table
    kinds: pa.Array

    def take(self, at: pa.Array) -> _Rows:
        return _Rows(self.keys.take(at), self.old.take(at), self.new.take(at), self.kinds.take(at))

    def slice(self, count: int) -> _Rows:
        return _Rows(
            self.keys.slice(0, count),
            self.old.slice(0, count),
            self.new.slice(0, count),
            self.kinds.slice(0, count),
        )


@dataclass(slots=True)
class _Counted:
    """Of all rows that differ; ``rows``: the next of them, ``whole`` if all."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    rows: _Rows | None = None
    whole: bool = True


_Name = tuple[str, int, int]


@dataclass(slots=True)
class Comparer:
    """The use case behind ``contracts.rows.RowsService.diff``. Small differences are kept for the
    pages that follow; of large ones each page is worked out anew."""

    parts: RowParts
    _kept: OrderedDict[_Name, _Counted] = field(default_factory=OrderedDict)

    async def diff(self, ctx: Context, request: DiffRequest) -> DiffResult:
        """See the contract."""
        ctx.require(Scope.READ)
        if not 1 <= request.limit <= _LIMIT_MAX:
            raise LakehouseError(
                ErrorKind.INVALID,
                "limit is out of range",
                limit=request.limit,
                minimum=1,
                maximum=_LIMIT_MAX,
            )
        with tracing.span("diff"):
            return await self._diff(ctx, request)

    async def _diff(self, ctx: Context, request: DiffRequest) -> DiffResult:
        old_at, new_at, after = request.old, request.new, ""
        if request.cursor:
            old_version, new_version, after = decode_cursor(request.cursor, (int, int, str))
            old_at, new_at = AsOf(version=old_version), AsOf(version=new_version)
        reader = self.parts.reader
        old, old_version = await reader.snapshot(ctx, request.dataset, old_at)
        new, new_version = await reader.snapshot(ctx, request.dataset, new_at)
        pair = pair_of(old, new, request.dataset)
        name = (new.dataset.id, old_version, new_version)
        cursor = parse_entity(after, pair.schema, pair.key) if after else None
        found = self._kept.get(name) or await self._count(pair, cursor, request.limit)
        if found.whole and name not in self._kept:
            self._kept[name] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        result = DiffResult(
            new.dataset.name,
            old_version,
            new_version,
            found.added,
            found.removed,
            found.changed,
            (),
        )
        if found.rows is None:
            return result
        told, more = await run_in(self.parts.jobs, _page, found.rows, pair, cursor, request.limit)
        last = encode_cursor(old_version, new_version, told[-1].key_json) if more else ""
        return replace(result, rows=told, cursor=last)

    async def _count(self, pair: Pair, cursor: pa.Table | None, limit: int) -> _Counted:
        """All rows that differ if they are few, else those of the page that begins at ``cursor``
        and one more."""
        counted = _Counted()
        async for changes in compare(self.parts, pair):
            counted.added += changes.inserted
            counted.removed += changes.deleted
            counted.changed += changes.updated
            await run_in(self.parts.jobs, _gather, counted, changes, (pair, cursor, limit))
        return counted


def _gather(
    counted: _Counted, changes: RowChanges, page: tuple[Pair, pa.Table | None, int]
) -> None:
    pair, cursor, limit = page
    more = _rows_of(changes, pair)
    rows = more if counted.rows is None else _joined(counted.rows, more)
    if counted.whole and rows.keys.num_rows > _KEPT_ROWS:
        counted.whole = False
    if counted.whole:
        counted.rows = _sorted(rows)
        return
    if cursor is not None:
        rows = rows.take(pc.indices_nonzero(_after(rows.keys, cursor, pair.key)))
    counted.rows = _sorted(rows).slice(limit + 1)


def _rows_of(changes: RowChanges, pair: Pair) -> _Rows:
    names = list(pair.key)
    gone = flat(pc.is_null(changes.new.column(names[0])))
    kinds = pc.if_else(gone, _REMOVED, _CHANGED)
    added = changes.added
    nothing = [pa.nulls(added.num_rows, one.type) for one in added.schema]
    none = pa.Table.from_arrays(nothing, schema=added.schema)
    return _Rows(
        pa.concat_tables([changes.old.select(names), added.select(names)]),
        pa.concat_tables([changes.old, none]),
        pa.concat_tables([changes.new, added]),
        pa.concat_arrays([kinds, pa.repeat(pa.scalar(_ADDED), added.num_rows)]),
    )


def _joined(some: _Rows, more: _Rows) -> _Rows:
    return _Rows(
        pa.concat_tables([some.keys, more.keys]),
        pa.concat_tables([some.old, more.old]),
        pa.concat_tables([some.new, more.new]),
        pa.concat_arrays([some.kinds, more.kinds]),
    )


def _sorted(rows: _Rows) -> _Rows:
    order = pc.sort_indices(
        rows.keys, sort_keys=[(name, "ascending") for name in rows.keys.column_names]
    )
    return rows.take(order)


def _after(keys: pa.Table, cursor: pa.Table, key: Sequence[str]) -> pa.Array:
    """Which keys come after the one of ``cursor``, column by column."""
    later = pa.repeat(pa.scalar(False), keys.num_rows)
    level = pa.repeat(pa.scalar(True), keys.num_rows)
    for name in key:
        column, value = flat(keys.column(name)), cursor.column(name)[0]
        later = pc.or_(later, pc.and_(level, pc.greater(column, value)))
        level = pc.and_(level, pc.equal(column, value))
    return later


def _page(
    rows: _Rows, pair: Pair, cursor: pa.Table | None, limit: int
) -> tuple[tuple[RowDifference, ...], bool]:
    """Up to ``limit`` rows after ``cursor``, and whether there are more."""
    if cursor is not None:
        rows = rows.take(pc.indices_nonzero(_after(rows.keys, cursor, pair.key)))
    more = rows.keys.num_rows > limit
    rows = rows.slice(limit)
    texts = entity_texts(rows.keys, pair.schema, pair.key).to_pylist()
    kinds = rows.kinds.to_pylist()
    fields: list[list[FieldChange]] = [[] for _ in texts]
    for column in pair.schema.columns:
        old, new = flat(rows.old.column(column.name)), flat(rows.new.column(column.name))
        differs = pc.indices_nonzero(pc.invert(same(old, new)))
        olds = json_texts(old.take(differs), column.type).to_pylist()
        news = json_texts(new.take(differs), column.type).to_pylist()
        for at, before, after in zip(differs.to_pylist(), olds, news, strict=True):
            changed = kinds[at] == _CHANGED
            fields[at].append(
                FieldChange(
                    column.name,
                    "null" if changed and before is None else before,
                    "null" if changed and after is None else after,
                )
            )
    told = tuple(
        RowDifference(text, kind, tuple(some))
        for text, kind, some in zip(texts, kinds, fields, strict=True)
    )
    return told, more
