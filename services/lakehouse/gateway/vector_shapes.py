"""What answers about vectors look like in JSON.

Values stand in them as JSON, not as texts of it. A field may be added, never renamed or removed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import orjson

from lakehouse.contracts.vectors import (
    GetVectorsResult,
    Hit,
    Hits,
    IndexResult,
    ListIndexesResult,
    SearchResult,
    StoredVector,
)
from lakehouse.model.retrieval import SearchMode, StageScore
from lakehouse.model.vectors import (
    IndexVersion,
    Profile,
    Structure,
    VectorIndexInfo,
    VersionState,
)


@dataclass(frozen=True, slots=True)
class VersionShape:
    """One embedding of the documents. ``comparison``: its figures against the version that was live
    when it became ready, null for none. ``cut_over``: it is to be live as soon as it is ready."""

    number: int
    state: VersionState
    profile: Profile
    model: str
    model_digest: str
    dimensions: int
    vectors_dataset: str
    vectors_dataset_id: str
    created_at: datetime
    canary_sha256: str
    source_version: int
    documents: int
    chunks: int
    documents_done: int
    documents_total: int
    embedded_texts: int
    ready_at: datetime | None
    error: str
    structures: tuple[Structure, ...]
    cut_over: bool
    comparison: Any


@dataclass(frozen=True, slots=True)
class IndexShape:
    """An index. ``live``: number of the version that answers. ``building``: a build runs now; in a
    list: a version is not done."""

    name: str
    dataset: str
    dataset_id: str
    columns: tuple[str, ...]
    profile: str
    live: int
    previous: int
    versions: tuple[VersionShape, ...]
    created_at: datetime
    version: int
    behind: bool
    building: bool
    created: bool
    store_version: int


@dataclass(frozen=True, slots=True)
class IndexesShape:
    """By name."""

    indexes: tuple[IndexShape, ...]
    version: int
    next: str | None


@dataclass(frozen=True, slots=True)
class HitShape:
    """A chunk. ``key``: the values of the row's primary key, or the id of a given vector. ``span``:
    begin and end in the document's text, in characters. ``stages``: what brought it up, where it
    was not one alone. ``index``: where several were searched together."""

    key: Any
    score: float
    chunk: int
    span: tuple[int, int]
    text: str
    version: int
    stages: tuple[StageScore, ...] = ()
    index: str = ""


@dataclass(frozen=True, slots=True)
class HitsShape:
    """Of one query, nearest first. ``retrieval_id``: empty where it is not remembered."""

    hits: tuple[HitShape, ...]
    retrieval_id: str


@dataclass(frozen=True, slots=True)
class AnsweredShape:
    """Who answered, and of what. ``degraded``: by words alone, or not ordered anew."""

    index: str
    number: int
    model: str
    backend: str
    served_by: str
    source_version: int
    behind: bool
    version: int
    embed_ms: float
    search_ms: float
    mode: SearchMode
    degraded: bool
    degraded_reason: str


@dataclass(frozen=True, slots=True)
class OneSearchShape(AnsweredShape):
    """Of one query. ``retrieval_id``: empty where it is not remembered."""

    retrieval_id: str
    hits: tuple[HitShape, ...]


@dataclass(frozen=True, slots=True)
class ManySearchShape(AnsweredShape):
    """Of a list of queries, in their order."""

    results: tuple[HitsShape, ...]


@dataclass(frozen=True, slots=True)
class VectorShape:
    """A chunk with its vector."""

    key: Any
    chunk: int
    span: tuple[int, int]
    text: str
    version: int
    vector: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class VectorsShape:
    """``missing``: keys that are not there."""

    vectors: tuple[VectorShape, ...]
    missing: tuple[Any, ...]
    number: int
    version: int


def index_shape(result: IndexResult) -> IndexShape:
    return _index(result.index, result.version, result.building, result.created)


def indexes_shape(result: ListIndexesResult) -> IndexesShape:
    shapes = tuple(_index(one, result.version, _unfinished(one)) for one in result.indexes)
    return IndexesShape(shapes, result.version, result.cursor or None)


def _unfinished(one: VectorIndexInfo) -> bool:
    return any(version.state is VersionState.BUILDING for version in one.versions)


def _index(
    one: VectorIndexInfo, store_version: int, building: bool = False, created: bool = False
) -> IndexShape:
    return IndexShape(
        name=one.name,
        dataset=one.dataset,
        dataset_id=one.dataset_id,
        columns=one.columns,
        profile=one.profile,
        live=one.live,
        previous=one.previous,
        versions=tuple(map(_version, one.versions)),
        created_at=one.created_at,
        version=one.version,
        behind=one.behind,
        building=building,
        created=created,
        store_version=store_version,
    )


def _version(one: IndexVersion) -> VersionShape:
    same = (field.name for field in fields(VersionShape) if field.name != "comparison")
    compared = orjson.Fragment(one.comparison_json) if one.comparison_json else None
    return VersionShape(**{name: getattr(one, name) for name in same}, comparison=compared)


def search_json(result: SearchResult, many: bool) -> dict[str, Any]:
    """As ``ManySearchShape``, or as ``OneSearchShape``. Made without them: a search is asked most,
    and what it found is read once, by who writes it down."""
    answered: dict[str, Any] = {
        "index": result.index,
        "number": result.number,
        "model": result.model,
        "backend": result.backend,
        "served_by": result.served_by,
        "source_version": result.source_version,
        "behind": result.behind,
        "version": result.version,
        "embed_ms": round(result.embed_ms, 3),
        "search_ms": round(result.search_ms, 3),
        "mode": result.mode,
        "degraded": result.degraded,
        "degraded_reason": result.degraded_reason,
    }
    if many:
        answered["results"] = [
            {"hits": _hits(found), "retrieval_id": found.retrieval_id} for found in result.results
        ]
        return answered
    found = result.results[0]
    answered["retrieval_id"] = found.retrieval_id
    answered["hits"] = _hits(found)
    return answered


def _hits(found: Hits) -> list[dict[str, Any]]:
    return [
        {
            "key": key_value(one.key),
            "score": one.score,
            "chunk": one.chunk,
            "span": (one.start, one.end),
            "text": one.text,
            "version": one.version,
            "stages": one.stages,
            "index": one.index,
        }
        for one in found.hits
    ]


def hit_shape(one: Hit) -> HitShape:
    return HitShape(
        key_value(one.key),
        one.score,
        one.chunk,
        (one.start, one.end),
        one.text,
        one.version,
        one.stages,
        one.index,
    )


def vectors_shape(result: GetVectorsResult) -> VectorsShape:
    shapes = tuple(map(_stored, result.vectors))
    missing = tuple(map(key_value, result.missing))
    return VectorsShape(shapes, missing, result.number, result.version)


def _stored(one: StoredVector) -> VectorShape:
    import numpy as np

    # NumPy's numbers are written as float32 are: with as many digits as tell them apart.
    vector: Any = np.frombuffer(one.vector, "<f4")
    span = (one.start, one.end)
    return VectorShape(key_value(one.key), one.chunk, span, one.text, one.version, vector)


def key_value(key: str) -> Any:
    """The values of a primary key, that come as a JSON array; else an id, as it is."""
    if key.startswith("[") and key.endswith("]"):
        try:
            return orjson.loads(key)
        except orjson.JSONDecodeError:
            return key
    return key
