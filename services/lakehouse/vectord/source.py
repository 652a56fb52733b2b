"""The documents of an index: rows of a dataset, read through SQL at one version of the store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.catalog import AsOf, GetRequest, ListRequest
from lakehouse.contracts.rows import DiffRequest, DiffResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import Dataset, DatasetStatus
from lakehouse.model.identity import Context
from lakehouse.model.schema import Column, Schema
from lakehouse.model.vectors import VectorIndexInfo
from lakehouse.table.cells import flat
from lakehouse.table.codec import fit
from lakehouse.table.keys import entity_texts
from lakehouse.table.types import arrow_schema
from lakehouse.table.values import from_json_texts
from lakehouse.vectord.chunking import digest_of
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ranges import RangeReader, Scan, cut_by, pieces_of, quoted
from lakehouse.vectord.spool import Spool

__all__ = ["DIFFERENCES_MAX", "DOCUMENTS", "MISSED_SECONDS", "Source", "SourceReader", "quoted"]

DIFFERENCES_MAX: Final = 10_000
"""More rows than these are found by comparing all of them."""
DOCUMENTS: Final = pa.schema(
    [pa.field("entity", pa.string()), pa.field("text", pa.string()), ("document", pa.string())]
)
"""A document a row; one without text is none."""
_TEXT_BREAK: Final = "\n"
_AT_ONCE: Final = 65_536
_ASKED_AT_ONCE: Final = 500
_ASKED_TYPES: Final = frozenset({"string", "int64", "bool"})
_PAGE: Final = 1000
MISSED_SECONDS: Final = 5.0
_FOUND_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset as it was at ``version`` of the store."""

    dataset: Dataset
    version: int

    @property
    def rows_version(self) -> int:
        return self.dataset.rows_version


@dataclass(frozen=True, slots=True)
class _Found:
    """The name that a dataset was found under; "" is nowhere, which holds ``until`` (monotonic)."""

    name: str
    until: float


class SourceReader:
    """Reads documents. ``full_reads``: how often all rows of a dataset were read.

    ``missed_seconds``: for so long it is believed that a dataset was under no name at all; who
    looks at every request gives some, who must not miss it where it comes back gives none.
    """

    def __init__(self, parts: VectorParts, missed_seconds: float = 0.0) -> None:
        self._parts = parts
        self._ranges = RangeReader(parts)
        self._missed_seconds = missed_seconds
        self.full_reads = 0
        self._found: dict[str, _Found] = {}

    async def source(self, ctx: Context, info: VectorIndexInfo) -> Source:
        """The dataset of ``info`` now, whatever it is called by now. Raises ``not_found`` where it
        was dropped."""
        source = await self._by_name(ctx, info.dataset, info.dataset_id)
        if source is None:
            source = await self._elsewhere(ctx, info.dataset_id)
        if source is None or source.dataset.status is DatasetStatus.DROPPED:
            raise LakehouseError(
                ErrorKind.NOT_FOUND,
                "the dataset of the index was dropped",
                index=info.name,
                dataset=info.dataset,
                dataset_id=info.dataset_id,
                hint="restore the dataset, or delete the index; until then it can be searched",
            )
        return source

    async def _by_name(self, ctx: Context, name: str, dataset_id: str) -> Source | None:
        """One that was dropped is found too: then it need not be looked for elsewhere."""
        try:
            found = await self._parts.catalog.get(ctx, GetRequest(name, include_dropped=True))
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return None
        return Source(found.dataset, found.version) if found.dataset.id == dataset_id else None

    async def _elsewhere(self, ctx: Context, dataset_id: str) -> Source | None:
        """Under another name, which is remembered, as is for a while that there is none: who asks
        at every search does not list all datasets at every search."""
        now = self._parts.clock.monotonic()
        known = self._found.pop(dataset_id, None)
        if known is not None and known.name:
            source = await self._by_name(ctx, known.name, dataset_id)
        elif known is not None and now < known.until:
            self._found[dataset_id] = known
            return None
        else:
            source = None
        if source is None:
            source = await self._by_id(ctx, dataset_id)
        name = "" if source is None else source.dataset.name
        self._found[dataset_id] = _Found(name, now + self._missed_seconds)
        while len(self._found) > _FOUND_MAX:
            del self._found[next(iter(self._found))]
        return source

    async def _by_id(self, ctx: Context, dataset_id: str) -> Source | None:
        cursor = ""
        while True:
            page = await self._parts.catalog.list(ctx, ListRequest(limit=_PAGE, cursor=cursor))
            for dataset in page.datasets:
                if dataset.id == dataset_id:
                    return Source(dataset, page.version)
            cursor = page.cursor
            if not cursor:
                return None

    async def rows(
        self, ctx: Context, sql: str, version: int, params: Sequence[str] = ()
    ) -> pa.Table:
        """The answer to ``sql``, whole."""
        return await self._ranges.rows(ctx, sql, version, params)

    async def whole(self, ctx: Context, scan: Scan, version: int, pieces: int = 1) -> pa.Table:
        """All of ``scan``, by as many queries as it takes, about ``pieces``."""
        return await self._ranges.whole(ctx, scan, version, pieces)

    def documents(
        self, ctx: Context, source: Source, columns: Sequence[str]
    ) -> AsyncGenerator[Spool, None]:
        """All rows of ``source``, part by part: its key and ``columns``, to be made documents by
        ``made``."""
        self.full_reads += 1
        dataset = source.dataset
        scan = Scan(dataset.name, _selected(dataset, columns), cut_by(dataset))
        pieces = pieces_of(dataset.row_count or 0, dataset.size_bytes)
        return self._ranges.spools(ctx, scan, source.version, pieces)

    async def some(
        self, ctx: Context, source: Source, columns: Sequence[str], entities: Sequence[str]
    ) -> pa.Table:
        """The documents of ``entities``, of those that are there; see ``can_ask``."""
        key = source.dataset.primary_key
        kinds = {column.name: column.type for column in source.dataset.schema.columns}
        asked = [at for at, name in enumerate(key) if kinds[name] in _ASKED_TYPES]
        found = [DOCUMENTS.empty_table()]
        for at in range(0, len(entities), _ASKED_AT_ONCE):
            some = entities[at : at + _ASKED_AT_ONCE]
            values = [orjson.loads(entity) for entity in some]
            conditions: list[str] = []
            params: list[str | int | bool] = []
            for place in asked:
                # Where a key has parts that are not asked for, more is read than wanted.
                wanted = list(dict.fromkeys(value[place] for value in values))
                names = [f"${len(params) + n}" for n in range(1, len(wanted) + 1)]
                conditions.append(f"{quoted(key[place])} IN ({', '.join(names)})")
                whole = kinds[key[place]] == "int64"
                params += [int(each) for each in wanted] if whole else wanted
            selected = _selected(source.dataset, columns)
            where = " AND ".join(conditions)
            sql = f"SELECT {selected} FROM {quoted(source.dataset.name)} WHERE {where}"
            spool = await self._ranges.read(ctx, sql, source.version, params)
            made = await run_in(self._parts.jobs, _of, spool, source.dataset, columns, some)
            found.append(made)
        return pa.concat_tables(found)

    def can_ask(self, dataset: Dataset) -> bool:
        """Whether rows can be asked for by key: a part of it is of a simple type."""
        kinds = {column.name: column.type for column in dataset.schema.columns}
        return any(kinds[name] in _ASKED_TYPES for name in dataset.primary_key)

    async def differences(self, ctx: Context, source: Source, since: int) -> DiffResult | None:
        """What changed after version ``since``; None where that cannot be told, or is too much."""
        if since <= 0 or not self.can_ask(source.dataset):
            return None
        request = DiffRequest(
            source.dataset.name,
            AsOf(version=since),
            AsOf(version=source.version),
            limit=DIFFERENCES_MAX,
        )
        try:
            found = await self._parts.rows.diff(ctx, request)
        except LakehouseError as error:
            # Below the horizon, under another key, or before the name was this dataset's.
            if error.kind in (ErrorKind.NOT_FOUND, ErrorKind.INVALID, ErrorKind.CONFLICT):
                return None
            raise
        return None if found.cursor else found


def _names(dataset: Dataset, columns: Sequence[str]) -> list[str]:
    return list(dict.fromkeys((*dataset.primary_key, *columns)))


def _selected(dataset: Dataset, columns: Sequence[str]) -> str:
    return ", ".join(quoted(name) for name in _names(dataset, columns))


def made(spool: Spool, dataset: Dataset, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Rows that were read as ``DOCUMENTS``, many at a time; blocking."""
    for table in spool.tables(_AT_ONCE):
        yield documents_of(table, dataset, columns)


def _of(
    spool: Spool, dataset: Dataset, columns: Sequence[str], entities: Sequence[str]
) -> pa.Table:
    wanted = pa.array(entities, pa.string())
    try:
        found = [DOCUMENTS.empty_table(), *made(spool, dataset, columns)]
    finally:
        spool.close()
    whole = pa.concat_tables(found)
    return whole.filter(pc.is_in(whole.column("entity"), value_set=wanted))


def documents_of(table: pa.Table, dataset: Dataset, columns: Sequence[str]) -> pa.Table:
    """Rows (the key, then the columns, by name) as documents; those without text are left out."""
    by_name = {column.name: column for column in dataset.schema.columns}
    names = _names(dataset, columns)
    typed = {name: _fitted(flat(table.column(at)), by_name[name]) for at, name in enumerate(names)}
    key = tuple(by_name[name] for name in dataset.primary_key)
    keyed = Schema(dataset.schema.id, key)
    keys = pa.Table.from_arrays([typed[one.name] for one in key], schema=arrow_schema(keyed))
    entities = entity_texts(keys, dataset.schema, dataset.primary_key)
    return _documents(flat(entities), [_text(typed[name], name) for name in columns])


def _documents(entities: pa.Array, columns: Sequence[pa.Array]) -> pa.Table:
    texts = _joined(columns)
    there = pc.not_equal(texts, "")
    texts, entities = texts.filter(there), entities.filter(there)
    digests = pa.array([digest_of(text) for text in texts.to_pylist()], pa.string())
    return pa.Table.from_arrays([entities, texts, digests], schema=DOCUMENTS)


def _fitted(values: pa.Array, column: Column) -> pa.Array:
    fitted = fit(values, column.type)
    if fitted is None:
        raise LakehouseError(
            ErrorKind.INTERNAL,
            "a query gave a column of another type than the dataset's",
            column=column.name,
            column_type=column.type,
            given=str(values.type),
        )
    return fitted


def _text(values: pa.Array, name: str) -> pa.Array:
    """Texts of a column; null where there is none or it is blank."""
    texts = fit(values, "string")
    if texts is None:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the column cannot be read as text",
            column=name,
            column_type=str(values.type),
        )
    blank = pc.equal(pc.utf8_trim_whitespace(texts), "")
    return pc.if_else(blank, pa.scalar(None, pa.string()), texts)


def _joined(texts: Sequence[pa.Array]) -> pa.Array:
    joined = texts[0]
    # Not one call for all of them: a row of nulls alone would be left out of its answer.
    for more in texts[1:]:
        both = pc.binary_join_element_wise(joined, more, _TEXT_BREAK)
        joined = pc.coalesce(both, joined, more)
    return pc.fill_null(joined, "")


@dataclass(frozen=True, slots=True)
class Changed:
    """What a difference says of documents.

    Attributes:
        documents: whose texts it tells.
        unclear: entities whose texts it tells in part, to be read.
        gone: entities that are no documents any more; some may never have been.
    """

    documents: pa.Table
    unclear: tuple[str, ...]
    gone: tuple[str, ...]


def changed_documents(found: DiffResult, dataset: Dataset, columns: Sequence[str]) -> Changed:
    """Of rows that changed, those count whose ``columns`` did."""
    told: list[str] = []
    texts: list[list[str | None]] = [[] for _ in columns]
    unclear: list[str] = []
    gone: list[str] = []
    for row in found.rows:
        values = {one.field: one.new_json for one in row.fields}
        if row.change == "removed":
            gone.append(row.key_json)
        elif row.change == "added" or all(name in values for name in columns):
            told.append(row.key_json)
            for at, name in enumerate(columns):
                text = values.get(name)
                texts[at].append(None if text == "null" else text)
        elif any(name in values for name in columns):
            unclear.append(row.key_json)
    types = {column.name: column.type for column in dataset.schema.columns}
    arrays = [
        _text(from_json_texts(pa.array(some, pa.string()), types[name]), name)
        for some, name in zip(texts, columns, strict=True)
    ]
    documents = _documents(pa.array(told, pa.string()), arrays)
    there = set(documents.column("entity").to_pylist())
    gone += [entity for entity in told if entity not in there]
    return Changed(documents, tuple(unclear), tuple(gone))
