"""What a build has to do: documents of a dataset against what is there of them as vectors.

Either everything is weighed by digest, or only what the dataset's own history says has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.catalog import GetRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context
from lakehouse.model.vectors import IndexVersion, VectorIndexInfo, VersionState
from lakehouse.table.cells import flat
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ranges import Scan, pieces_of, quoted
from lakehouse.vectord.source import DOCUMENTS, Source, SourceReader, changed_documents, made
from lakehouse.vectord.spool import Spool

__all__ = ["Target", "Weigher", "Work"]

_FEW: Final = 500
_KNOWN: Final = pa.schema(
    [
        ("entity", pa.string()),
        ("last", pa.int64()),
        ("seen", pa.int64()),
        ("document", pa.string()),
    ]
)
_TODO: Final = DOCUMENTS.append(pa.field("last", pa.int64()))


@dataclass(frozen=True, slots=True)
class Target:
    """The dataset of vectors as it was at ``version`` of the store."""

    dataset: Dataset
    version: int

    @property
    def rows_version(self) -> int:
        return self.dataset.rows_version


@dataclass(slots=True)
class Work:
    """What is to be done to bring vectors up to ``source``.

    Attributes:
        todo: documents to embed, with ``last``: the number of the last chunk that is there of an
            earlier text of theirs, -1 for none.
        gone: ``entity`` and ``last`` of documents that are no more.
        documents: how many there are when it is done; -1 where they have to be counted, for an
            earlier build did a part of this.
        full: all rows were weighed.
    """

    source: Source
    target: Target
    todo: Spool
    gone: pa.Table
    documents: int = 0
    full: bool = False

    def close(self) -> None:
        self.todo.close()


class Weigher:
    """Finds out what there is to do."""

    def __init__(self, parts: VectorParts, reader: SourceReader) -> None:
        self._parts = parts
        self._reader = reader

    async def target(self, ctx: Context, version: IndexVersion) -> Target:
        """The dataset of ``version`` now. Raises ``not_found`` where it is gone."""
        try:
            found = await self._parts.catalog.get(ctx, GetRequest(version.vectors_dataset))
            if found.dataset.id == version.vectors_dataset_id:
                return Target(found.dataset, found.version)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "the dataset with the vectors of the index version is gone",
            dataset=version.vectors_dataset,
            dataset_id=version.vectors_dataset_id,
            number=version.number,
            hint="restore it, or build a new version of the index",
        )

    async def weigh(
        self, ctx: Context, info: VectorIndexInfo, version: IndexVersion, target: Target
    ) -> Work | None:
        """None if nothing changed since ``version.source_version``. The target is looked at before
        the source, so that who writes on it writes nothing older than what is there.

        Raises ``not_found`` (dataset, column), and what queries raise.
        """
        source = await self._reader.source(ctx, info)
        ready = version.state is VersionState.READY
        if ready and version.source_version == source.rows_version:
            return None
        _check_columns(source.dataset, info)
        found = await self._reader.differences(ctx, source, version.source_version)
        if found is None:
            return await self._all(ctx, info, source, target)
        jobs, columns = self._parts.jobs, info.columns
        changed = await run_in(jobs, changed_documents, found, source.dataset, columns)
        documents, gone = changed.documents, [*changed.gone]
        if changed.unclear:
            read = await self._reader.some(ctx, source, columns, changed.unclear)
            gone += await run_in(jobs, _missing, changed.unclear, read)
            documents = pa.concat_tables([documents, read])
        entities = await run_in(jobs, _entities, documents)
        known = await self._known(ctx, target, [*entities, *gone])
        since = (version.documents, version.source_version)
        work = await self._work(source, target)
        try:
            await run_in(jobs, _weigh_some, work, documents, known, gone, since)
        except BaseException:
            work.close()
            raise
        return work

    async def _all(
        self, ctx: Context, info: VectorIndexInfo, source: Source, target: Target
    ) -> Work:
        known = await self._known(ctx, target, None)
        seen = np.zeros(known.num_rows, np.bool_)
        work = await self._work(source, target)
        work.full = True
        try:
            async with aclosing(self._reader.documents(ctx, source, info.columns)) as parts:
                async for rows in parts:
                    documents = made(rows, source.dataset, info.columns)
                    await run_in(self._parts.jobs, _weigh_part, work, documents, known, seen)
        except BaseException:
            work.close()
            raise
        work.gone = known.filter(pa.array(~seen)).select(["entity", "last"])
        return work

    async def _work(self, source: Source, target: Target) -> Work:
        spool = await run_in(self._parts.jobs, Spool, self._parts.settings.cache_dir)
        return Work(source, target, spool, _KNOWN.empty_table().select(["entity", "last"]))

    async def _known(
        self, ctx: Context, target: Target, entities: Sequence[str] | None
    ) -> pa.Table:
        """What is there of the documents. ``document`` is null where it is not whole: chunks of
        two texts, or without the first one."""
        if not target.dataset.row_count or (entities is not None and not entities):
            return _KNOWN.empty_table()
        columns = (
            "entity, max(chunk) AS last, max(version) AS seen, "
            "CASE WHEN min(document) = max(document) AND min(chunk) = 0 THEN min(document) END "
            "AS document"
        )
        name, by_entity = target.dataset.name, " GROUP BY entity"
        if entities is None or len(entities) > _FEW:
            scan = Scan(name, columns, ("entity",), rest=by_entity)
            pieces = pieces_of(target.dataset.row_count or 0, 0)
            table = await self._reader.whole(ctx, scan, target.version, pieces)
            return await run_in(self._parts.jobs, _as_known, table, entities)
        names = ", ".join(f"${n}" for n in range(1, len(entities) + 1))
        sql = f"SELECT {columns} FROM {quoted(name)} WHERE entity IN ({names}){by_entity}"
        return _as_known(await self._reader.rows(ctx, sql, target.version, entities), None)

    async def documents(self, ctx: Context, target: Target) -> int:
        """How many documents can be found, counted."""
        sql = f"SELECT count(*) AS n FROM {quoted(target.dataset.name)} WHERE chunk = 0"
        table = await self._reader.rows(ctx, sql, target.version)
        count: int = table.column(0)[0].as_py()
        return count


def _check_columns(dataset: Dataset, info: VectorIndexInfo) -> None:
    names = dataset.schema.names()
    missing = [name for name in info.columns if name not in names]
    if missing:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "a column of the index is gone",
            index=info.name,
            dataset=dataset.name,
            column=missing[0],
            columns=[*names[:100]],
        )
    if not dataset.primary_key:
        raise LakehouseError(
            ErrorKind.INVALID, "the dataset has no primary key", dataset=dataset.name
        )


def _entities(documents: pa.Table) -> list[str]:
    names: list[str] = documents.column("entity").to_pylist()
    return names


def _missing(entities: Sequence[str], documents: pa.Table) -> list[str]:
    """Those of ``entities`` that are no documents any longer."""
    there = {*_entities(documents)}
    return [entity for entity in entities if entity not in there]


def _as_known(table: pa.Table, entities: Sequence[str] | None) -> pa.Table:
    """Rows of the query in our types, in one piece; only those of ``entities`` where given."""
    if entities is not None:
        table = table.filter(_among(table, pa.array(entities, pa.string())))
    found = [_KNOWN.empty_table(), table.select(_KNOWN.names).cast(_KNOWN)]
    return pa.concat_tables(found).combine_chunks()


def _among(table: pa.Table, entities: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """A mask of the rows whose entity is one of ``entities``; never empty of chunks."""
    column = flat(table.column("entity"))
    return pa.chunked_array([pc.is_in(column, value_set=entities)], pa.bool_())


def _count(mask: pa.ChunkedArray) -> int:
    return pc.sum(mask).as_py() or 0


def _weigh_some(
    work: Work,
    documents: pa.Table,
    known: pa.Table,
    gone: Sequence[str],
    since: tuple[int, int],
) -> None:
    """``since``: how many documents there were, and of which version of the source."""
    _weigh(work, documents, known)
    new = documents.num_rows - _count(_among(documents, known.column("entity")))
    less = _count(_among(known, pa.array(gone, pa.string())))
    touched = pc.any(pc.greater(known.column("seen"), since[1])).as_py()
    work.documents = -1 if touched or less < len(gone) else since[0] + new - less
    if gone:
        there = _among(known, pa.array(gone, pa.string()))
        work.gone = known.filter(there).select(["entity", "last"])


def _weigh_part(
    work: Work, parts: Iterable[pa.Table], known: pa.Table, seen: npt.NDArray[np.bool_]
) -> None:
    """``seen``: which of ``known`` there are."""
    for documents in parts:
        work.documents += documents.num_rows
        at = _weigh(work, documents, known)
        seen[pc.drop_null(at).to_numpy(zero_copy_only=False)] = True


def _weigh(work: Work, documents: pa.Table, known: pa.Table) -> pa.Array:
    """Put those that differ into ``work.todo``; where each is in ``known``, or null."""
    entities = documents.column("entity").combine_chunks()
    at = pc.index_in(entities, value_set=known.column("entity").combine_chunks())
    before = known.column("document").take(at)
    differs = pc.invert(pc.fill_null(pc.equal(documents.column("document"), before), False))
    last = pc.fill_null(known.column("last").take(at), -1)
    todo = documents.append_column("last", last).cast(_TODO).filter(differs)
    if todo.num_rows:
        work.todo.append(todo)
    return at if isinstance(at, pa.Array) else at.combine_chunks()
