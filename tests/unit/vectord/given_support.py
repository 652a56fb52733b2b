"""Indexes of given vectors with a graph over them: made, written, and asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from lakehouse.contracts import vectors as c
from lakehouse.contracts.profiles import PutProfileRequest
from lakehouse.model.vectors import Profile
from lakehouse.vectord.service import Vectors
from support_vectors import ADA, READER, Shelf

DIMENSIONS = 12
QUICK = {"tail_rows": 40, "fresh_seconds": 0.0}


def vectors_of(count: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32)


def body(ids: list[str], vectors: Any) -> bytes:
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    table = pa.table({"id": ids, "vector": pa.FixedSizeListArray.from_arrays(flat, DIMENSIONS)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@asynccontextmanager
async def service(store: Shelf, **settings: Any) -> AsyncIterator[Vectors]:
    async with store.vectors(**{**QUICK, **settings}) as (vectors, profiles, _):
        profile = Profile("small", exact_rows_max=50, hnsw_m=8, ef_construction=40)
        await profiles.put(ADA, PutProfileRequest(profile))
        yield vectors


async def make(vectors: Vectors, name: str, count: int = 300, seed: int = 1) -> Any:
    """An index of given vectors with a graph over it."""
    await vectors.create_index(
        ADA, c.CreateIndexRequest(name, profile="small", dimensions=DIMENSIONS)
    )
    made = vectors_of(count, seed)
    await put(vectors, name, range(count), made)
    await search(vectors, name, made[0])
    await vectors.images.settled()
    return made


async def put(vectors: Vectors, name: str, ids: Any, made: Any) -> None:
    await vectors.put_vectors(ADA, c.PutVectorsRequest(name, body([str(i) for i in ids], made)))


async def search(vectors: Vectors, name: str, query: Any, k: int = 10, **fields: Any) -> Any:
    request = c.SearchRequest(name, (c.VectorQuery(vector=query.tobytes()),), k, **fields)
    return await vectors.search(READER, request)


def keys(found: Any) -> list[str]:
    return [hit.key for hit in found.results[0].hits]


async def answers(vectors: Vectors, name: str) -> list[Any]:
    found = [await search(vectors, name, query, k=7, exact=True) for query in vectors_of(5, 99)]
    return [tuple(replace(hits, retrieval_id="") for hits in one.results) for one in found]


async def structures(vectors: Vectors, name: str) -> Any:
    info = (await vectors.get_index(READER, c.IndexRequest(name))).index
    return info.versions[0].structures
