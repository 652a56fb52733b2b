"""Indexes as documents: read by any release, changed by compare-and-swap, none hides others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from lakehouse.contracts.catalog import CatalogService, CommitRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.changes import PutDocument
from lakehouse.model.vectors import (
    INDEX_DOCUMENTS,
    IndexVersion,
    Profile,
    Structure,
    VectorIndexInfo,
    VersionState,
)
from lakehouse.testing.catalogs import open_memory_catalog
from lakehouse.vectord.codec import from_json, to_json
from lakehouse.vectord.documents import Documents, version_of, with_version
from support_vectors import ADA

NOW = datetime(2026, 11, 1, 12, 30, 15, 123456, UTC)


def index(name: str) -> VectorIndexInfo:
    structure = Structure("hnsw", "_vectors/s/d/1.hnsw", 7, seq=9)
    version = IndexVersion(
        1,
        VersionState.READY,
        Profile("default"),
        "model",
        "digest",
        8,
        f"vectors.{name}.v1",
        "id",
        NOW,
        ready_at=NOW,
        structures=(structure,),
    )
    return VectorIndexInfo(name, "docs", "id-docs", ("a", "b"), "default", 1, 0, (version,), NOW)


def unsearched(name: str) -> VectorIndexInfo:
    """Without a structure: those of the catalog's documents are written in sessions."""
    info = index(name)
    return replace(info, versions=(replace(info.versions[0], structures=()),))


class Parts:
    """What ``Documents`` needs of ``VectorParts``."""

    def __init__(self, catalog: CatalogService) -> None:
        self.catalog = catalog


@pytest.fixture
async def documents() -> AsyncIterator[Documents]:
    catalog, buckets = await open_memory_catalog()
    parts: Any = Parts(catalog)
    yield Documents(parts)
    await catalog.close()
    await buckets.close()


async def put(documents: Documents, id_: str, body: str) -> None:
    change = PutDocument(INDEX_DOCUMENTS, id_, body)
    await documents._catalog.commit(ADA, CommitRequest((change,)))


def test_a_document_says_what_the_index_is() -> None:
    info = index("docs")
    assert from_json(VectorIndexInfo, to_json(info)) == info
    body = orjson.loads(to_json(info))
    assert body["versions"][0]["structures"][0]["key"] == "_vectors/s/d/1.hnsw"
    assert body["created_at"] == "2026-11-01T12:30:15.123456+00:00"


def test_releases_read_each_others_documents() -> None:
    body = orjson.loads(to_json(index("docs")))
    body["of_a_later_release"] = {"any": ["thing"]}
    body["versions"][0]["profile"]["new"] = 1
    del body["versions"][0]["structures"], body["behind"], body["versions"][0]["cut_over"]
    read = from_json(VectorIndexInfo, orjson.dumps(body).decode())
    assert read == unsearched("docs")


@pytest.mark.parametrize(
    "body",
    ["", "[]", "7", "{}", '{"name": 7}', to_json(index("x")).replace('"ready"', '"odd"'), "null"],
    ids=range(7),
)
def test_what_is_no_document_is_corrupt(body: str) -> None:
    with pytest.raises(LakehouseError) as refused:
        from_json(VectorIndexInfo, body)
    assert refused.value.kind is ErrorKind.CORRUPT


async def test_changes_at_once_are_all_kept(documents: Documents) -> None:
    await documents.create(ADA, unsearched("Docs"))

    def note(at: int) -> Any:
        return lambda info: replace(info, columns=(*info.columns, f"c{at}"))

    await asyncio.gather(*(documents.change(ADA, "docs", note(at)) for at in range(8)))
    info = await documents.get(ADA, "DOCS")
    assert (info.name, sorted(info.columns)) == ("Docs", ["a", "b", *(f"c{n}" for n in range(8))])
    same = await documents.change(ADA, "docs", lambda info: info)
    assert same.version == info.version
    with pytest.raises(LakehouseError) as refused:
        await documents.create(ADA, unsearched("docs"))
    assert refused.value.kind is ErrorKind.CONFLICT


async def test_one_that_cannot_be_read_hides_no_other(documents: Documents) -> None:
    await documents.create(ADA, unsearched("docs"))
    await put(documents, "damaged", '{"name": "damaged", "versions": []}')
    infos, _ = await documents.list(ADA)
    assert [info.name for info in infos] == ["docs"]
    with pytest.raises(LakehouseError) as refused:
        await documents.get(ADA, "damaged")
    assert refused.value.kind is ErrorKind.CORRUPT
    with pytest.raises(LakehouseError) as refused:
        await documents.get(ADA, "doks")
    assert (refused.value.kind, refused.value.fields["nearest"]) == (ErrorKind.NOT_FOUND, "docs")


def test_a_version_by_number() -> None:
    info = index("docs")
    second = replace(info.versions[0], number=2)
    both = with_version(info, second)
    assert [version_of(both, n).number for n in (0, 1, 2)] == [1, 1, 2]
    assert version_of(replace(both, live=0), 0).number == 2
    assert with_version(both, replace(second, chunks=5)).versions[1].chunks == 5
    with pytest.raises(LakehouseError) as refused:
        version_of(both, 3)
    assert refused.value.fields["numbers"] == [1, 2]
