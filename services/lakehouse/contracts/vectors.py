"""Vectors: indexes over texts of datasets, or over given vectors; search by meaning (ADR-008, 014,
019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from lakehouse.contracts.as_of import AsOf
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import RecordClass, Rerank, SearchMode, StageScore
from lakehouse.model.vectors import VectorIndexInfo

K_MAX: Final = 10_000
QUERIES_MAX: Final = 1_000
TEXT_BYTES_MAX: Final = 1024 * 1024
VECTORS_BYTES_MAX: Final = 32 * 1024 * 1024
WAIT_SECONDS_MAX: Final = 600.0
ALSO_MAX: Final = 8
CANDIDATES_MAX: Final = 10_000
RERANKED_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class CreateIndexRequest:
    """Idempotent by name: the same definition again changes nothing, another is a ``conflict``.

    Attributes:
        dataset, columns: whose texts; both empty for an index of given vectors.
        dimensions: of given vectors; else 0, and the model says.
        build: begin to embed at once; else with the first ``build``.
    """

    name: str
    dataset: str = ""
    columns: tuple[str, ...] = ()
    profile: str = "default"
    dimensions: int = 0
    build: bool = True


@dataclass(frozen=True, slots=True)
class IndexRequest:
    name: str


@dataclass(frozen=True, slots=True)
class IndexResult:
    """``version``: of the store that was read, or of the commit. ``building``: a build runs now."""

    index: VectorIndexInfo
    version: int
    created: bool = False
    building: bool = False


@dataclass(frozen=True, slots=True)
class ListIndexesRequest:
    """``dataset`` "" is all. ``limit`` in [1, 1000]; by name."""

    dataset: str = ""
    limit: int = 100
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class ListIndexesResult:
    indexes: tuple[VectorIndexInfo, ...]
    version: int
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """Catch up with the dataset, go on with a build that ended early, or build anew beside.

    Attributes:
        new_version: a version of its own, with the profile as it is now.
        profile: another profile from now on (then it is a new version).
        cut_over: a new version is live as soon as it is ready, compared with the one before.
        wait_seconds: answer when it is done, or after so long; 0 answers at once. At most
            ``WAIT_SECONDS_MAX``.
    """

    name: str
    new_version: bool = False
    profile: str = ""
    cut_over: bool = True
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CutOverRequest:
    """Make version ``number`` the live one; 0 is the one that was live before (roll-back)."""

    name: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class DeleteIndexRequest:
    """The index with all its versions, or version ``number`` of it, which must not be live."""

    name: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class DeleteIndexResult:
    name: str
    version: int
    versions_deleted: int


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """``text``, or ``vector``: its little-endian float32 bytes."""

    text: str = ""
    vector: bytes = b""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """Up to ``QUERIES_MAX`` queries, each answered with min(k, matches) hits.

    Attributes:
        k: in [1, ``K_MAX``].
        filter: SQL predicate over the dataset's columns; what it does not match is no candidate.
        number: of the index's version; 0 is the live one.
        model: refuse with ``conflict`` unless the version was embedded by this one; "" is any. For
            given vectors: who knows which model made them says so.
        ef: candidates looked at in the graph; 0 as the profile says.
        exact: compare with every vector.
        mode: TEXT and HYBRID need texts to search for. HYBRID without an embedding server answers
            by words alone, and says ``degraded``.
        also: other indexes that are searched together with ``index``, each by its own model, fused
            by rank; at most ``ALSO_MAX``. ``filter`` holds for ``index`` alone.
        candidates: that each stage gives to fusion; 0 takes what fits ``k``.
        rerank: the best ``rerank_max`` candidates are ordered anew; 0 takes what fits ``k``, at
            most ``RERANKED_MAX``.
        as_of: rows, and what the filter reads, as they were then; every one of them is compared.
        record: how the retrieval is remembered.
        purpose: what for; one word, for who reads the record.
    """

    index: str
    queries: tuple[VectorQuery, ...]
    k: int = 10
    filter: str = ""
    number: int = 0
    model: str = ""
    ef: int = 0
    exact: bool = False
    mode: SearchMode = SearchMode.VECTOR
    also: tuple[str, ...] = ()
    candidates: int = 0
    rerank: Rerank = Rerank.NONE
    rerank_max: int = 0
    as_of: AsOf = AsOf()
    record: RecordClass = RecordClass.BEST_EFFORT
    purpose: str = "search"


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk. ``key``: of its row, a JSON array as in ``RowRequest``, or the id of a given vector.

    ``start`` and ``end``: the chunk's place in the document's text, in characters. ``version``: of
    the dataset's rows when it was embedded. ``stages``: what brought it up, where it was not one
    stage alone. ``index``: where several were searched together; else "".
    """

    key: str
    score: float
    chunk: int
    start: int
    end: int
    text: str
    version: int
    stages: tuple[StageScore, ...] = ()
    index: str = ""


@dataclass(frozen=True, slots=True)
class Hits:
    """Nearest first; those as near as each other by key, then by chunk. ``retrieval_id``: under
    which the answer is remembered; "" where it is not."""

    hits: tuple[Hit, ...]
    retrieval_id: str = ""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """In the order of the queries.

    Attributes:
        number, model, backend: of the version that answered; ``served_by``: hnsw, lance or exact,
            joined by ``+`` (rows that a structure does not have yet are compared one by one).
        source_version: rows of the dataset up to it were searched; ``behind``: there are later
            ones, that are being embedded.
        version: of the store that was read.
        degraded: by words alone, or without a rerank that was asked for, because the embedding
            server did not answer; ``degraded_reason`` says what it said.
    """

    results: tuple[Hits, ...]
    index: str
    number: int
    model: str
    backend: str
    served_by: str
    source_version: int
    behind: bool
    version: int
    embed_ms: float = 0.0
    search_ms: float = 0.0
    mode: SearchMode = SearchMode.VECTOR
    degraded: bool = False
    degraded_reason: str = ""


@dataclass(frozen=True, slots=True)
class PutVectorsRequest:
    """Insert or replace vectors by id, of an index of given vectors: one commit.

    ``body``: an Arrow IPC stream with ``id`` (string), ``vector`` (list of float32) and, if wanted,
    ``text`` (string); at most ``VECTORS_BYTES_MAX``.
    """

    index: str
    body: bytes


@dataclass(frozen=True, slots=True)
class DeleteVectorsRequest:
    index: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PutVectorsReport:
    index: str
    version: int
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    missing: int = 0
    no_op: bool = False


@dataclass(frozen=True, slots=True)
class GetVectorsRequest:
    """All chunks of documents by key (as in ``Hit``), or given vectors by id; at most 1,000."""

    index: str
    keys: tuple[str, ...]
    number: int = 0


@dataclass(frozen=True, slots=True)
class StoredVector:
    """``vector``: little-endian float32 bytes."""

    key: str
    chunk: int
    start: int
    end: int
    text: str
    version: int
    vector: bytes


@dataclass(frozen=True, slots=True)
class GetVectorsResult:
    """``missing``: keys that are not there."""

    vectors: tuple[StoredVector, ...]
    missing: tuple[str, ...]
    number: int
    version: int


@dataclass(frozen=True, slots=True)
class Relevant:
    """Keys that a query should find."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """Two versions of an index on the same queries.

    Attributes:
        first, second: version numbers; 0 is the live one, and the newest other one.
        queries: texts to ask; none: documents drawn from the index.
        relevant: for each query what it should find, or none at all.
        samples: how many documents are drawn, in [1, 1000].
    """

    name: str
    first: int = 0
    second: int = 0
    queries: tuple[str, ...] = ()
    relevant: tuple[Relevant, ...] = ()
    k: int = 10
    samples: int = 50


@dataclass(frozen=True, slots=True)
class VersionFigures:
    """``recall``: of its own exact neighbours, in [0, 1]. ``relevant_found``: the part of the keys
    that should be found, None without any. Latencies without the embedding."""

    number: int
    backend: str
    model: str
    chunks: int
    recall: float
    p50_ms: float
    p99_ms: float
    relevant_found: float | None = None


@dataclass(frozen=True, slots=True)
class CompareReport:
    """``overlap``: the part of hits that both have, on average."""

    name: str
    k: int
    queries: int
    first: VersionFigures
    second: VersionFigures
    overlap: float
    version: int


class VectorsService(Protocol):
    """Raises ``not_found`` (index, version, dataset, column, profile, with the nearest name),
    ``invalid`` (a value out of range, a wrong dimension, NaN, an empty text), ``unavailable``
    (the embedding server does not answer), ``exhausted`` (its queue is full)."""

    async def create_index(self, ctx: Context, request: CreateIndexRequest) -> IndexResult:
        """Scope write."""
        ...

    async def get_index(self, ctx: Context, request: IndexRequest) -> IndexResult:
        """Scope read."""
        ...

    async def list_indexes(self, ctx: Context, request: ListIndexesRequest) -> ListIndexesResult:
        """Scope read."""
        ...

    async def build(self, ctx: Context, request: BuildRequest) -> IndexResult:
        """Scope write. One build of an index at a time: a second call joins it."""
        ...

    async def cut_over(self, ctx: Context, request: CutOverRequest) -> IndexResult:
        """Scope write. Raises ``conflict`` for a version that is not ready."""
        ...

    async def delete_index(self, ctx: Context, request: DeleteIndexRequest) -> DeleteIndexResult:
        """Scope write. Raises ``conflict`` for the live version."""
        ...

    async def search(self, ctx: Context, request: SearchRequest) -> SearchResult:
        """Scope read. Raises ``conflict`` (another model)."""
        ...

    async def put_vectors(self, ctx: Context, request: PutVectorsRequest) -> PutVectorsReport:
        """Scope write. Raises ``conflict`` for an index over a dataset."""
        ...

    async def delete_vectors(self, ctx: Context, request: DeleteVectorsRequest) -> PutVectorsReport:
        """Scope write. Raises ``conflict`` for an index over a dataset."""
        ...

    async def get_vectors(self, ctx: Context, request: GetVectorsRequest) -> GetVectorsResult:
        """Scope read."""
        ...

    async def compare(self, ctx: Context, request: CompareRequest) -> CompareReport:
        """Scope read."""
        ...
