"""``vector_search`` and its like carried out: each search of a statement as a relation of its own,
asked of the vectors contract on the caller's behalf, and gone with the query."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from lakehouse.contracts.as_of import AsOf
from lakehouse.contracts.catalog import CatalogService, GetRequest
from lakehouse.contracts.vectors import (
    Hit,
    IndexRequest,
    SearchRequest,
    VectorQuery,
    VectorsService,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.ids import Ids
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context
from lakehouse.model.refs import name_key
from lakehouse.model.retrieval import Rerank, SearchMode, Stage
from lakehouse.model.schema import Column, Schema
from lakehouse.queryd.calls import Call
from lakehouse.queryd.parse import invalid
from lakehouse.queryd.points import Mention
from lakehouse.queryd.system import SystemRelation, made_relation
from lakehouse.table.keys import key_columns, parse_entities
from lakehouse.table.types import arrow_schema, to_arrow

__all__ = ["Searches", "check_places"]

_COLUMNS: Final = (
    ("rank", "int64"),
    ("score", "float64"),
    ("key", "string"),
    ("chunk", "int64"),
    ("start", "int64"),
    ("end", "int64"),
    ("text", "string"),
    ("version", "int64"),
)
_LEGS: Final = (Stage.VECTOR, Stage.TEXT)
_LOOKS: Final = 2
_GIVEN_ID: Final = Column(1, "id", "string")


def check_places(calls: Sequence[Call], mentions: Sequence[Mention]) -> None:
    """Raise ``invalid`` unless each of ``calls`` stands where a relation may, as of now."""
    known = {one.key for one in mentions}
    pointed = {name_key(one.name) for one in mentions if one.point}
    for call in calls:
        if _mention_key(call) in pointed:
            raise invalid(
                "a search has no version of its own",
                function=call.function,
                hint="ask the whole statement as of a version: as_of of the request",
            )
        if _mention_key(call) not in known:
            raise invalid(
                "a search is a table: it stands in FROM",
                function=call.function,
                hint=f"write select .. from {call.function}(..) v join t on t.id = v.id",
            )


def _mention_key(call: Call) -> str:
    """The key of the mention that stands for ``call`` in what is left of a statement."""
    return name_key(f"{call.slot}.{call.function}")


@dataclass(frozen=True, slots=True)
class _Keys:
    """Of an index: the dataset's schema and key; of given vectors the id is all there is."""

    schema: Schema
    key: tuple[str, ...]
    given: bool


class Searches:
    """Asks ``vectors``, if there is one, and ``catalog`` for the types of keys."""

    def __init__(
        self, vectors: VectorsService | None, catalog: CatalogService, folder: Path, ids: Ids
    ) -> None:
        self._vectors = vectors
        self._catalog = catalog
        self._folder = folder
        self._ids = ids

    async def open(
        self, ctx: Context, calls: Sequence[Call], passing: list[str], as_of: AsOf
    ) -> dict[str, SystemRelation]:
        """The relation of each of ``calls``, by the key of its mention; its file is put into
        ``passing`` before it is there. Raises as ``VectorsService.search``."""
        if not calls:
            return {}
        if self._vectors is None:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE,
                "nobody whom this process knows searches vectors",
                function=calls[0].function,
                hint='set node.peers.vectord = "host:port", or run vectord in this process',
            )
        vectors = self._vectors
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    _mention_key(call): group.create_task(
                        self._one(ctx, vectors, call, passing, as_of)
                    )
                    for call in calls
                }
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {key: task.result() for key, task in tasks.items()}

    async def _one(
        self,
        ctx: Context,
        vectors: VectorsService,
        call: Call,
        passing: list[str],
        as_of: AsOf,
    ) -> SystemRelation:
        request = SearchRequest(
            call.index,
            (_query(call),),
            call.k,
            **_options(call),
            mode=call.mode,
            as_of=as_of,
            purpose="sql",
        )
        result, keys = await asyncio.gather(
            vectors.search(ctx, request), self._keys(ctx, vectors, call)
        )
        table, schema = _table(result.results[0].hits, keys, call.mode)
        name = f"{call.function}-{self._ids.ulid()}.parquet"
        path = self._folder / name
        passing.append(str(path))
        await _written(path, table)
        one = made_relation(
            f"{call.slot}.{call.function}", schema, result.version, table.num_rows, name
        )
        one.passing = True
        return SystemRelation(one, str(path))

    async def _keys(self, ctx: Context, vectors: VectorsService, call: Call) -> _Keys:
        for _ in range(_LOOKS):
            index = (await vectors.get_index(ctx, IndexRequest(call.index))).index
            if not index.dataset_id:
                return _Keys(Schema(1, (_GIVEN_ID,)), ("id",), given=True)
            dataset = await self._dataset(ctx, index.dataset)
            # Another one may have its name by now; one renamed meanwhile is told by its new name.
            if dataset is not None and dataset.id == index.dataset_id:
                return _Keys(dataset.schema, dataset.primary_key, given=False)
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "the dataset of the index was dropped, and with it what its keys are",
            index=index.name,
            dataset=index.dataset,
            hint="restore the dataset; until then search the index without SQL",
        )

    async def _dataset(self, ctx: Context, name: str) -> Dataset | None:
        """Also a dropped one: what was embedded of it can be searched for all that."""
        try:
            return (await self._catalog.get(ctx, GetRequest(name, include_dropped=True))).dataset
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return None


def _query(call: Call) -> VectorQuery:
    if isinstance(call.query, str):
        return VectorQuery(text=call.query)
    return VectorQuery(vector=struct.pack(f"<{len(call.query)}f", *call.query))


def _options(call: Call) -> dict[str, Any]:
    options = dict(call.options)
    if "rerank" in options:
        try:
            options["rerank"] = Rerank(options["rerank"])
        except ValueError:
            raise invalid(
                "there is no such rerank",
                function=call.function,
                rerank=options["rerank"][:80],
                known=" ".join(one.value for one in Rerank),
            ) from None
    return options


def _table(hits: Sequence[Hit], keys: _Keys, mode: SearchMode) -> tuple[pa.Table, Schema]:
    """The hits as rows, nearest first, with the columns of their keys behind."""
    texts = [hit.key for hit in hits]
    arrays: list[pa.Array | pa.ChunkedArray] = [
        pa.array(range(1, len(hits) + 1), pa.int64()),
        *(
            pa.array([getattr(hit, name) for hit in hits], to_arrow(kind))
            for name, kind in _COLUMNS[1:]
        ),
    ]
    shown = list(_COLUMNS)
    if mode is SearchMode.HYBRID:
        shown += [(f"{stage.value}_rank", "int64") for stage in _LEGS]
        arrays += [pa.array([_rank(hit, stage) for hit in hits], pa.int64()) for stage in _LEGS]
    own = key_columns(keys.schema, keys.key)
    if keys.given:
        arrays.append(pa.array(texts, pa.string()))
    else:
        arrays += parse_entities(texts, keys.schema, keys.key).columns
    taken = {name for name, _ in shown}
    pairs = [
        *shown,
        *(
            (f"key_{one.name}" if name_key(one.name) in taken else one.name, one.type)
            for one in own
        ),
    ]
    columns = tuple(Column(at, name, kind) for at, (name, kind) in enumerate(pairs, start=1))
    schema = Schema(1, columns)
    return pa.Table.from_arrays(arrays, schema=arrow_schema(schema)), schema


def _rank(hit: Hit, stage: Stage) -> int | None:
    """Null where the stage did not bring the hit up."""
    return next((one.rank for one in hit.stages if one.stage is stage), None)


async def _written(path: Path, table: pa.Table) -> None:
    """Done when this returns, also where it is cancelled: who then clears away finds all of it."""
    writing = asyncio.ensure_future(run_blocking(_write, path, table))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait({writing})
        raise


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq  # late: queries on datasets alone do not need it here

    pq.write_table(table, path)
