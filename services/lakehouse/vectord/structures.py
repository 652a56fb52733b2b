"""Search structures in the store: built of rows, written, and read back, verified.

A structure is two objects: its bytes, and the rows that its labels stand for. Both are told by
their SHA-256 in the index's document; what does not match is never handed to a library.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from mmap import mmap
from typing import IO, TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.vectors import (
    VECTORS_FOLDER,
    IndexVersion,
    Profile,
    Structure,
    VectorBackend,
)
from lakehouse.objectstore.port import ObjectStore, StreamingReads, StreamingWrites
from lakehouse.objectstore.scoped import ScopedStore
from lakehouse.table.cells import flat
from lakehouse.vectord.book import KEY
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ports import SearchIndex, Vectors
from lakehouse.vectord.tables import LANCE, Tables

if TYPE_CHECKING:
    from lakehouse.vectord.adapters.hnsw import HnswIndex

__all__ = ["HNSW", "LABELS", "LANCE", "Built", "Structures"]

log = logging.getLogger(__name__)

HNSW: Final = "hnsw"
LABELS: Final = ("entity", "chunk", "digest", "version")
"""What a row must still be for its label to stand for it."""
_CHUNK: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Built:
    """A structure over ``labels`` (a table of ``LABELS``), of one label a row in their order."""

    index: SearchIndex
    labels: pa.Table
    size_bytes: int

    @property
    def every(self) -> Vectors:
        """The vectors of all labels of a graph, where they lie."""
        from lakehouse.vectord.adapters.hnsw import HnswIndex

        assert isinstance(self.index, HnswIndex)
        return self.index.every


class Structures:
    """Builds, writes and reads structures.

    Args:
        builders: threads of its own, so that no search waits for a build.
    """

    def __init__(self, parts: VectorParts, builders: Executor) -> None:
        self._parts = parts
        self._builders = builders
        self._tables = Tables(parts, builders)
        self.stopping = False

    async def build(
        self,
        profile: Profile,
        vectors: Vectors,
        labels: pa.Table,
        stop: Callable[[], bool] = lambda: False,
    ) -> Built:
        """A graph or a table over ``vectors`` in their order, as the profile says.

        Args:
            stop: asked now and then, in another thread. Where it says so, and when the node stops,
                ``unavailable`` is raised.
        """
        if profile.vector_backend is VectorBackend.LANCE:
            table = await self._tables.build(
                vectors, labels, profile.distance, lambda: self.stopping or stop()
            )
            return Built(table, labels, table.memory_bytes)
        from lakehouse.vectord.adapters.hnsw import build_graph

        shape = (profile.hnsw_m, profile.ef_construction)
        index = await run_in(
            self._builders,
            build_graph,
            vectors,
            profile.distance,
            shape,
            self._parts.settings.cache_dir,
            lambda: self.stopping or stop(),
        )
        return Built(index, labels, len(index.content))

    async def grow(
        self,
        built: Built,
        vectors: Vectors,
        labels: pa.Table,
        stop: Callable[[], bool] = lambda: False,
    ) -> Built:
        """Another graph, of ``built`` and ``vectors`` behind it. Raises as ``build`` does."""
        from lakehouse.vectord.adapters.hnsw import HnswIndex, grow_graph

        assert isinstance(built.index, HnswIndex)
        index = await run_in(
            self._builders,
            grow_graph,
            built.index,
            vectors,
            self._parts.settings.cache_dir,
            lambda: self.stopping or stop(),
        )
        table = pa.concat_tables([built.labels, labels]).combine_chunks()
        await run_in(self._builders, _told_apart, index, table)
        return Built(index, table, len(index.content))

    async def save(self, folder: str, bucket: str, built: Built) -> Structure:
        """Write ``built`` below ``folder``, which ends in a slash; nothing names it yet."""
        from lakehouse.vectord.adapters.hnsw import HnswIndex
        from lakehouse.vectord.adapters.lance import LanceIndex

        name = f"{folder}{self._parts.ids.ulid()}"
        seq = int(pc.max(built.labels.column("version")).as_py() or 0)
        if isinstance(built.index, LanceIndex):
            return await self._tables.save(name, bucket, built.index, seq)
        assert isinstance(built.index, HnswIndex)
        content = built.index.content
        store = ScopedStore(self._parts.buckets.get(bucket), (VECTORS_FOLDER,))
        digest = await run_in(self._builders, _sha256, content)
        labels = await run_in(self._builders, _parquet, built.labels)
        m, ef_construction = built.index.shape
        await _put(store, f"{name}.labels.parquet", labels)
        await _put(store, f"{name}.hnsw", content)
        built.index.release_pages()
        return Structure(
            HNSW,
            f"{name}.hnsw",
            built.labels.num_rows,
            len(content),
            digest,
            f"{name}.labels.parquet",
            await run_in(self._builders, _sha256, labels),
            bucket=bucket,
            seq=seq,
            m=m,
            ef_construction=ef_construction,
        )

    async def load(self, version: IndexVersion, structure: Structure) -> Built:
        """What ``save`` wrote. Raises ``corrupt`` where it is damaged, and as the store does."""
        from lakehouse.vectord.adapters.hnsw import HnswIndex, nameless_file

        if structure.kind == LANCE:
            table, rows = await self._tables.load(version, structure, LABELS)
            return Built(table, rows, table.memory_bytes)
        if structure.kind != HNSW:
            raise LakehouseError(
                ErrorKind.CORRUPT, "a structure is of a kind unknown here", of=structure.kind[:40]
            )
        store = self._parts.buckets.get(structure.bucket)
        labels = await self._labels(store, structure)
        with nameless_file(self._parts.settings.cache_dir) as file:
            await self._fetch(store, structure, file)
            shape = (version.dimensions, version.profile.distance)
            index = await run_in(self._parts.jobs, HnswIndex.load, file, *shape)
        if index.rows != labels.num_rows:
            raise _damaged(structure, "it has another number of rows than its labels")
        await run_in(self._parts.jobs, _told_apart, index, labels)
        return Built(index, labels, structure.size_bytes)

    async def _labels(self, store: ObjectStore, structure: Structure) -> pa.Table:
        data = await store.get(structure.labels_key)
        return await run_in(self._parts.jobs, _labels_in, data, structure)

    async def _fetch(self, store: ObjectStore, structure: Structure, file: IO[bytes]) -> None:
        """The structure's bytes into ``file``, verified."""
        digest, size = hashlib.sha256(), 0

        def take(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(chunk)

        async for chunk in _chunks(store, structure.key):
            size += len(chunk)
            if size > structure.size_bytes:
                break
            await run_in(self._parts.jobs, _guarded(take), chunk)
        file.flush()
        if size != structure.size_bytes or digest.hexdigest() != structure.sha256:
            raise _damaged(structure, "its bytes are not those that were written")


def _told_apart(index: HnswIndex, labels: pa.Table) -> None:
    """Rows that are as near as each other go by key, also where ``labels`` do not."""
    entity, chunk = (flat(labels.column(name)) for name in KEY)
    lower = pc.less(entity[1:], entity[:-1])
    same = pc.and_(pc.equal(entity[1:], entity[:-1]), pc.less(chunk[1:], chunk[:-1]))
    if pc.any(pc.or_(lower, same)).as_py():
        order = pc.sort_indices(labels, sort_keys=[(name, "ascending") for name in KEY])
        rank = np.empty(len(order), np.int64)
        rank[order.to_numpy()] = np.arange(len(order))
        index.told_apart_by(rank)


def _guarded(take: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def write(chunk: bytes) -> None:
        try:
            take(chunk)
        except OSError as error:
            raise LakehouseError(
                ErrorKind.EXHAUSTED, "a structure cannot be kept here", reason=str(error)[:200]
            ) from error

    return write


async def _chunks(store: ObjectStore, key: str) -> AsyncIterator[bytes]:
    if isinstance(store, StreamingReads):
        async for chunk in store.stream(key):
            yield chunk
    else:
        yield await store.get(key)


async def _put(store: ObjectStore, key: str, data: bytes | mmap) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), _CHUNK):
            yield bytes(data[start : start + _CHUNK])
            await asyncio.sleep(0)

    if len(data) > _CHUNK and isinstance(store, StreamingWrites):
        await store.put_stream(key, pieces())
    else:
        await store.put(key, bytes(data[:]))


def _sha256(data: bytes | mmap) -> str:
    return hashlib.sha256(data).hexdigest()


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table.select(LABELS), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _labels_in(data: bytes, structure: Structure) -> pa.Table:
    """What ``_parquet`` made, verified."""
    if _sha256(data) != structure.labels_sha256:
        raise _damaged(structure, "its labels are not those that were written")
    try:
        return pq.read_table(pa.BufferReader(data)).select(LABELS)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise _damaged(structure, str(error)[:200]) from error


def _damaged(structure: Structure, reason: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CORRUPT,
        "a search structure is damaged",
        bucket=structure.bucket,
        key=structure.key,
        reason=reason,
        hint="it is built anew from the rows",
    )
