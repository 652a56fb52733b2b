"""An index of some rows, built, and what is there of it."""

from __future__ import annotations

from typing import Any

import pytest

from lakehouse.contracts import vectors as c
from lakehouse.model.vectors import IndexVersion, VersionState
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.profiles import Profiles
from lakehouse.vectord.service import Vectors
from support_vectors import ADA, Shelf

Service = tuple[Vectors, Profiles, HashingEmbedder]


async def built(vectors: Vectors, name: str, **fields: Any) -> IndexVersion:
    request = c.BuildRequest(name, wait_seconds=30, **fields)
    return (await vectors.build(ADA, request)).index.versions[-1]


async def made(service: Service, store: Shelf, name: str, *rows: dict[str, Any]) -> IndexVersion:
    """An index of ``rows``, built; what the embedder counted is forgotten."""
    await store.put(name, list(rows))
    await service[0].create_index(ADA, c.CreateIndexRequest(name, name, ("text",)))
    version = await built(service[0], name)
    assert (version.state, version.error) == (VersionState.READY, "")
    service[2].seen.clear()
    return version


async def found(store: Shelf, version: IndexVersion) -> dict[str, list[str]]:
    """Texts of the chunks by entity; every row must be sound."""
    rows = await store.sql(f'select * from "{version.vectors_dataset}" order by entity, chunk')
    texts: dict[str, list[str]] = {}
    for row in rows:
        assert row["chunk"] == len(texts.setdefault(row["entity"], []))
        texts[row["entity"]].append(row["text"])
        assert len(row["vector"]) == version.dimensions
        assert sum(each * each for each in row["vector"]) == pytest.approx(1, abs=1e-5)
    return texts


def docs(*texts: str) -> list[dict[str, Any]]:
    return [{"id": at, "text": text} for at, text in enumerate(texts, 1)]
