"""Texts of hits as they were, and what became of their rows since: read, never computed.

A text is taken for the one that was found only where its SHA-256 is the one that was noted. It is
looked for among the rows of the index as of then, or now; in the dataset, as of now and of then;
and in what the journal makes of the row at its version. No model and no index is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import pyarrow as pa

from lakehouse.contracts.catalog import AsOf, GetRequest
from lakehouse.contracts.rows import DiffResult, FieldChange, RowDifference, RowRequest
from lakehouse.contracts.tags import Tag
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import Retrieval, RetrievedRef, SearchedIndex
from lakehouse.model.vectors import VectorIndexInfo
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.records.values import digest_of_text
from lakehouse.vectord.source import MISSED_SECONDS, Source, SourceReader, changed_documents, quoted

__all__ = ["Past", "PastReader", "Point", "points"]

VECTORS: Final = "vectors"
TABLE: Final = "table"
GONE: Final = "gone"

_ENTITIES_AT_ONCE: Final = 500
_ROWS_AT_ONCE: Final = 8
_NOTHING: Final = digest_of_text("")
# It is not there, or not any more, or cannot be read: another place is looked at.
_NOT_HERE: Final = frozenset(
    {ErrorKind.NOT_FOUND, ErrorKind.INVALID, ErrorKind.CONFLICT, ErrorKind.CORRUPT}
)

_Row = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Past:
    """Of one hit; fields as in ``contracts.retrievals.ReplayedHit``."""

    text: str | None
    text_from: str
    row: str
    row_version: int


@dataclass(frozen=True, slots=True)
class Point:
    """A dataset by its name of then, and the version of the store at which it is read."""

    dataset: str
    dataset_id: str
    version: int


def points(retrieval: Retrieval, searched: SearchedIndex) -> tuple[Point, ...]:
    """Where what was found of an index lay: its rows, and the dataset of its documents if it has
    one; that once more, later, where hits are of rows that were not embedded yet."""
    then = retrieval.as_of_version or retrieval.version
    # What was in memory may be of a later commit than the one that the search began with.
    head = max(then, searched.rows_version)
    rows = Point(searched.vectors_dataset, searched.vectors_dataset_id, head)
    if not searched.dataset_id:
        return (rows,)
    told = (min(then, searched.source_version) if searched.behind else then) or then
    newest = max((hit.version for hit in hits_of(retrieval, searched)), default=0)
    versions = (told,) if newest <= told else (told, newest)
    documents = [Point(searched.dataset, searched.dataset_id, version) for version in versions]
    return rows, *documents


def hits_of(retrieval: Retrieval, searched: SearchedIndex) -> list[RetrievedRef]:
    """Hits that came of an index, in order."""
    first = retrieval.indexes[0].index
    return [hit for hit in retrieval.hits if (hit.index or first) == searched.index]


class PastReader:
    """Reads through SQL and the contract ``rows``, with the rights of who asks."""

    def __init__(self, parts: VectorParts) -> None:
        self._parts = parts
        self._sources = SourceReader(parts, MISSED_SECONDS)
        self._side_by_side = asyncio.Semaphore(_ROWS_AT_ONCE)

    async def read(
        self, ctx: Context, retrieval: Retrieval, now: int, kept: Mapping[str, Sequence[Tag]]
    ) -> list[Past]:
        """Of each hit, in their order.

        Args:
            now: version of the store.
            kept: by id of dataset, tags that keep versions of it.
        """
        named = {one.index: one for one in retrieval.indexes}
        groups: dict[str, list[int]] = {}
        for at, hit in enumerate(retrieval.hits):
            name = hit.index if hit.index in named else retrieval.indexes[0].index
            groups.setdefault(name, []).append(at)
        found: dict[int, Past] = {}
        for name, places in groups.items():
            hits = [retrieval.hits[at] for at in places]
            group = _Group(retrieval, named[name], hits, now, kept)
            found.update(zip(places, await self._group(ctx, group), strict=True))
        return [found[at] for at in range(len(retrieval.hits))]

    async def missing(
        self, ctx: Context, retrieval: Retrieval, searched: SearchedIndex, tags: Sequence[Tag]
    ) -> int:
        """How many texts that came of an index cannot be read at any of ``tags``."""
        now = max((tag.version for tag in tags), default=0)
        group = _Group(retrieval, searched, hits_of(retrieval, searched), now, {})
        for tag in tags:
            left = group.left()
            if left and tag.dataset_id == searched.vectors_dataset_id:
                group.choose(await self._rows(ctx, group, tag.version) or {})
            elif left and tag.dataset_id == searched.dataset_id:
                names = (searched.dataset, tag.dataset)
                source = await self._then(ctx, tag.dataset_id, names, tag.version)
                if source is not None:
                    hits = [group.hits[at] for at in left]
                    group.take(left, await self._texts(ctx, source, group, hits) or {}, TABLE)
        return len(group.left())

    async def name_then(
        self, ctx: Context, retrieval: Retrieval, searched: SearchedIndex, point: Point
    ) -> str:
        """What the dataset of ``point`` was called at its version; "" where it cannot be read then,
        or is not found under its name of the search or of now."""
        names = [point.dataset]
        found = await self._then(ctx, point.dataset_id, names, point.version)
        if found is None and point.dataset_id == searched.dataset_id:
            now = await self._now(ctx, searched, retrieval)
            names = [] if now is None else [now.dataset.name]
            found = await self._then(ctx, point.dataset_id, names, point.version)
        return "" if found is None else found.dataset.name

    async def _group(self, ctx: Context, group: _Group) -> list[Past]:
        await self._from_vectors(ctx, group)
        if not group.searched.dataset_id:
            rows = group.rows
            states = [_given(hit, rows) for hit in group.hits]
            version = 0 if rows is None else group.now
            return [group.past(at, state, version) for at, state in enumerate(states)]
        source = await self._now(ctx, group.searched, group.retrieval)
        texts = None if source is None else await self._texts(ctx, source, group, group.hits)
        # These were read anyway, and mostly they are what they were.
        group.take(group.left(), texts or {}, TABLE)
        await self._from_source(ctx, group, source)
        if source is None or texts is None:
            return [group.past(at, "unknown", 0) for at in range(len(group.hits))]
        there = await self._there(ctx, source, group, texts)
        version = source.rows_version
        return [
            group.past(at, _state(hit, texts, there), version) for at, hit in enumerate(group.hits)
        ]

    # -- rows of the index

    async def _from_vectors(self, ctx: Context, group: _Group) -> None:
        """Also notes the rows of now of an index of given vectors, for they are its dataset."""
        searched = group.searched
        rows_id = searched.vectors_dataset_id
        for version in group.versions(rows_id, searched.rows_version, group.now):
            if not group.left():
                break
            rows = await self._rows(ctx, group, version)
            if rows is not None:
                group.choose(rows)
        if not searched.dataset_id:
            group.rows = await self._rows(ctx, group, group.now)

    async def _rows(
        self, ctx: Context, group: _Group, version: int
    ) -> dict[str, dict[str, str]] | None:
        """Of the documents of all hits: by entity the texts of their chunks, by digest; None where
        that version cannot be read."""
        entities = list(dict.fromkeys(hit.key for hit in group.hits))
        found: dict[str, dict[str, str]] = {}
        for at in range(0, len(entities), _ENTITIES_AT_ONCE):
            some = entities[at : at + _ENTITIES_AT_ONCE]
            places = ", ".join(f"${number}" for number in range(1, len(some) + 1))
            columns = f"{quoted('entity')}, {quoted('text')}"
            dataset = quoted(group.searched.vectors_dataset)
            sql = f"SELECT {columns} FROM {dataset} WHERE {quoted('entity')} IN ({places})"
            try:
                table = await self._sources.rows(ctx, sql, version, some)
            except LakehouseError as error:
                if error.kind not in _NOT_HERE:
                    raise
                return None
            await run_in(self._parts.jobs, _enter, found, table)
        return found

    # -- the dataset of the documents

    async def _now(
        self, ctx: Context, searched: SearchedIndex, retrieval: Retrieval
    ) -> Source | None:
        try:
            return await self._sources.source(ctx, _info(searched, retrieval))
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return None

    async def _from_source(self, ctx: Context, group: _Group, now: Source | None) -> None:
        known = group.searched.dataset_id
        names = [group.searched.dataset, *([] if now is None else [now.dataset.name])]
        names += group.names(known)
        shape = now
        for version in group.versions(known, group.searched.source_version):
            left = group.left()
            if not left:
                return
            source = await self._then(ctx, known, names, version)
            if source is not None:
                shape = shape or source
                hits = [group.hits[at] for at in left]
                group.take(left, await self._texts(ctx, source, group, hits) or {}, TABLE)
        if shape is not None:
            await self._from_rows(ctx, group, names, shape.dataset)

    async def _from_rows(
        self, ctx: Context, group: _Group, names: Sequence[str], dataset: Dataset
    ) -> None:
        """Each row at the version that it was embedded at; beyond retention the journal has it."""
        columns, left = group.searched.columns, group.left()
        if not set(columns) <= set(dataset.schema.names()):
            return
        asked = sorted({(group.hits[at].key, group.hits[at].version) for at in left})
        rows = await asyncio.gather(*(self._row(ctx, names, *each) for each in asked))
        found = [(key, row) for (key, _), row in zip(asked, rows, strict=True) if row is not None]
        texts = await run_in(self._parts.jobs, _documents, found, dataset, columns)
        known = [each for each, row in zip(asked, rows, strict=True) if row is not None]
        told = dict(zip(known, texts, strict=True))
        for at in left:
            hit = group.hits[at]
            text, served_from = told.get((hit.key, hit.version), ("", GONE))
            group.take([at], {hit.key: text}, served_from)

    async def _then(
        self, ctx: Context, dataset_id: str, names: Sequence[str], version: int
    ) -> Source | None:
        """The dataset of that id as it was, if it was called by one of ``names`` then."""
        for name in dict.fromkeys(names):
            try:
                found = await self._parts.catalog.get(ctx, GetRequest(name, AsOf(version=version)))
            except LakehouseError as error:
                if error.kind not in _NOT_HERE:
                    raise
                continue
            if found.dataset.id == dataset_id:
                return Source(found.dataset, version)
        return None

    async def _texts(
        self, ctx: Context, source: Source, group: _Group, hits: Sequence[RetrievedRef]
    ) -> dict[str, str] | None:
        """The documents of ``hits`` by entity; None where they cannot be read by their keys."""
        columns = group.searched.columns
        return await self._asked(ctx, source, columns, hits)

    async def _asked(
        self, ctx: Context, source: Source, columns: Sequence[str], hits: Sequence[RetrievedRef]
    ) -> dict[str, str] | None:
        dataset = source.dataset
        entities = list(dict.fromkeys(hit.key for hit in hits))
        known = set(dataset.schema.names())
        keyed = all(_parts_of(entity) == len(dataset.primary_key) for entity in entities)
        if not keyed or not known.issuperset(columns):
            return None
        if not self._sources.can_ask(dataset):
            return await self._one_by_one(ctx, source, columns, entities)
        try:
            table = await self._sources.some(ctx, source, columns, entities)
        except LakehouseError as error:
            if error.kind not in _NOT_HERE:
                raise
            return None
        names, texts = (table.column(name).to_pylist() for name in ("entity", "text"))
        return dict(zip(names, texts, strict=True))

    async def _one_by_one(
        self, ctx: Context, source: Source, columns: Sequence[str], entities: Sequence[str]
    ) -> dict[str, str]:
        """Where SQL cannot be asked for rows by their keys."""
        names = [source.dataset.name]
        rows = await asyncio.gather(
            *(self._row(ctx, names, key, source.version) for key in entities)
        )
        found = [(key, row) for key, row in zip(entities, rows, strict=True) if row is not None]
        texts = await run_in(self._parts.jobs, _documents, found, source.dataset, columns)
        return {key: text for (key, _), (text, _) in zip(found, texts, strict=True) if text}

    async def _there(
        self, ctx: Context, source: Source, group: _Group, texts: Mapping[str, str]
    ) -> set[str]:
        """Entities that have a row now, also those whose texts are blank."""
        without = [hit for hit in group.hits if hit.key not in texts]
        if not without:
            return set(texts)
        # A key is text enough; one that is blank itself is asked for by itself.
        keyed = await self._asked(ctx, source, source.dataset.primary_key[:1], without) or {}
        left = sorted({hit.key for hit in without if hit.key not in keyed})
        names = [source.dataset.name]
        blank = [key for key in left if not "".join(map(str, orjson.loads(key))).strip()]
        rows = await asyncio.gather(*(self._row(ctx, names, key, 0) for key in blank))
        found = {key for key, row in zip(blank, rows, strict=True) if row is not None}
        return {*texts, *keyed, *found}

    async def _row(self, ctx: Context, names: Sequence[str], key: str, version: int) -> _Row | None:
        """A row as JSON at ``version`` (0: now), and what it was served from."""
        as_of = AsOf(version=version) if version else AsOf()
        async with self._side_by_side:
            for name in dict.fromkeys(reversed(names)):
                try:
                    found = await self._parts.rows.get(ctx, RowRequest(name, key, as_of))
                except LakehouseError as error:
                    if error.kind not in _NOT_HERE:
                        raise
                    continue
                return found.row_json, found.served_from
        return None


class _Group:
    """Hits of one index, and what was found of them so far.

    ``rows``: of an index of given vectors, as they are now; None where it has none any more.
    """

    def __init__(
        self,
        retrieval: Retrieval,
        searched: SearchedIndex,
        hits: Sequence[RetrievedRef],
        now: int,
        kept: Mapping[str, Sequence[Tag]],
    ) -> None:
        self.retrieval = retrieval
        self.searched = searched
        self.hits = hits
        self.now = now
        self._kept = kept
        self.rows: dict[str, dict[str, str]] | None = None
        self._texts: dict[int, tuple[str, str]] = {
            at: ("", VECTORS) for at, hit in enumerate(hits) if hit.text_sha256 == _NOTHING
        }

    def versions(self, dataset_id: str, *more: int) -> list[int]:
        """At which a dataset of ``points()`` is looked at, in order."""
        here = points(self.retrieval, self.searched)
        told = [point.version for point in here if point.dataset_id == dataset_id]
        every = (*[tag.version for tag in self._kept.get(dataset_id, ())], *told, *more)
        return [each for each in dict.fromkeys(every) if 0 < each <= self.now]

    def names(self, dataset_id: str) -> list[str]:
        """What tags call a dataset."""
        return [tag.dataset for tag in self._kept.get(dataset_id, ()) if tag.dataset]

    def left(self) -> list[int]:
        """Places of hits whose texts were not found yet."""
        return [at for at in range(len(self.hits)) if at not in self._texts]

    def choose(self, rows: Mapping[str, Mapping[str, str]]) -> None:
        """Take texts of chunks whose digests are those of hits."""
        for at in self.left():
            hit = self.hits[at]
            text = rows.get(hit.key, {}).get(hit.text_sha256)
            if text is not None:
                self._texts[at] = (text, VECTORS)

    def take(self, places: Iterable[int], texts: Mapping[str, str], served_from: str) -> None:
        """Take what is cut from documents, where its digest is the hit's."""
        for at in places:
            hit = self.hits[at]
            text = _cut(texts.get(hit.key), hit)
            if text is not None:
                self._texts[at] = (text, served_from)

    def past(self, at: int, row: str, row_version: int) -> Past:
        text, text_from = self._texts.get(at, (None, GONE))
        return Past(text, text_from, row, row_version)


def _cut(text: str | None, hit: RetrievedRef) -> str | None:
    part = None if text is None else text[hit.start : hit.end]
    return part if part is not None and digest_of_text(part) == hit.text_sha256 else None


def _state(hit: RetrievedRef, texts: Mapping[str, str], there: set[str]) -> str:
    if _cut(texts.get(hit.key), hit) is not None:
        return "same"
    return "changed" if hit.key in there else "deleted"


def _given(hit: RetrievedRef, rows: Mapping[str, Mapping[str, str]] | None) -> str:
    if rows is None:
        return "unknown"
    if hit.key not in rows:
        return "deleted"
    return "same" if hit.text_sha256 in rows[hit.key] else "changed"


def _enter(found: dict[str, dict[str, str]], table: pa.Table) -> None:
    entities, texts = (table.column(name).to_pylist() for name in ("entity", "text"))
    for entity, text in zip(entities, texts, strict=True):
        whole = text or ""
        found.setdefault(entity, {})[digest_of_text(whole)] = whole


def _parts_of(entity: str) -> int:
    """How many columns a key has; -1 for what is none."""
    try:
        value = orjson.loads(entity)
    except ValueError:
        return -1
    return len(value) if isinstance(value, list) else -1


def _info(searched: SearchedIndex, retrieval: Retrieval) -> VectorIndexInfo:
    """As much of the index as says which dataset it is of."""
    return VectorIndexInfo(
        searched.index,
        searched.dataset,
        searched.dataset_id,
        searched.columns,
        searched.profile,
        searched.number,
        0,
        (),
        retrieval.at,
    )


def _documents(
    rows: Sequence[tuple[str, _Row]], dataset: Dataset, columns: Sequence[str]
) -> list[_Row]:
    """Texts of rows as documents have them ("" where one has none), and what each was served
    from."""
    found = []
    for key, (row_json, served_from) in rows:
        row = orjson.loads(row_json)
        fields = tuple(
            FieldChange(name, None, orjson.dumps(row.get(name)).decode()) for name in columns
        )
        told = DiffResult("", 0, 0, 1, 0, 0, (RowDifference(key, "added", fields),))
        texts = changed_documents(told, dataset, columns).documents.column("text").to_pylist()
        found.append((texts[0] if texts else "", served_from))
    return found
