"""Retrieval: how something was searched for, what came of it, and what tuning was tried.

Records of retrievals and trials are JSON made of these in append logs, for as long as the logs are
kept: a field may be added with a default, never renamed or removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class SearchMode(StrEnum):
    """VECTOR: by meaning. TEXT: by words (BM25). HYBRID: both, fused by reciprocal ranks."""

    VECTOR = "vector"
    TEXT = "text"
    HYBRID = "hybrid"


class Rerank(StrEnum):
    """Another order for the best candidates. VECTORS: by the similarity of each one's vector to
    the query's. SENTENCES: by that of its most similar sentence, embedded for the purpose."""

    NONE = "none"
    VECTORS = "vectors"
    SENTENCES = "sentences"


class RecordClass(StrEnum):
    """How a retrieval is remembered. BEST_EFFORT: within a second, off the reply path, losses
    counted. DURABLE: before it is answered."""

    NONE = "none"
    BEST_EFFORT = "best_effort"
    DURABLE = "durable"


class Stage(StrEnum):
    """What gave a hit a rank and a score. VECTOR: similarity. TEXT: BM25. FUSION: the sum of
    ``1 / (60 + rank)`` over the stages and indexes before it. RERANK: the reranker's similarity."""

    VECTOR = "vector"
    TEXT = "text"
    FUSION = "fusion"
    RERANK = "rerank"


@dataclass(frozen=True, slots=True)
class StageScore:
    """``rank`` counts from 1 among the candidates of the stage; larger scores are better."""

    stage: Stage
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class RetrievedRef:
    """A hit as it is remembered: what it was, not its text.

    Attributes:
        index: where several were searched together; else "".
        key, chunk, start, end, version: as in ``vectors.Hit``.
        text_sha256: of the text's UTF-8 bytes, hex.
    """

    key: str
    chunk: int
    start: int
    end: int
    version: int
    score: float
    text_sha256: str
    stages: tuple[StageScore, ...] = ()
    index: str = ""


@dataclass(frozen=True, slots=True)
class SearchedIndex:
    """An index version as it was searched.

    Attributes:
        rows_version: of the dataset of vectors; its rows as of this version of the store, or of
            ``Retrieval.version``, were the candidates.
        served_by: hnsw, lance, exact, bm25, joined by ``+``.
        structures: sha256 of the search structures that were asked.
    """

    index: str
    number: int
    profile: str
    model: str
    model_digest: str
    backend: str
    served_by: str
    dataset: str
    dataset_id: str
    columns: tuple[str, ...]
    vectors_dataset: str
    vectors_dataset_id: str
    source_version: int
    rows_version: int
    behind: bool = False
    structures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was asked, of what, and what was answered.

    Attributes:
        id: a ULID; its time is that of the answer.
        purpose: ``search``, ``sql``, ``rag`` or ``recall``.
        text, vector: the query; ``vector`` is what was searched with (little-endian float32, as
            the model gave it or the caller, normalised where the distance is cosine), empty where
            no vector was.
        version: of the store that was read.
        digest: sha256, hex, of the ranked refs with their scores: what a replay is held against.
        pinned: the rows stay readable; ``tags`` are the tags that keep them.
        hits_total: how many hits there were; a list shows the first of each retrieval alone.
    """

    id: str
    at: datetime
    actor: str
    purpose: str
    mode: SearchMode
    text: str
    vector: bytes
    k: int
    version: int
    indexes: tuple[SearchedIndex, ...]
    hits: tuple[RetrievedRef, ...]
    digest: str
    filter: str = ""
    exact: bool = False
    ef: int = 0
    candidates: int = 0
    rerank: Rerank = Rerank.NONE
    as_of_version: int = 0
    degraded: bool = False
    degraded_reason: str = ""
    record: RecordClass = RecordClass.BEST_EFFORT
    workspace: str = ""
    source: str = ""
    request_id: str = ""
    embed_ms: float = 0.0
    search_ms: float = 0.0
    pinned: bool = False
    tags: tuple[str, ...] = ()
    hits_total: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting of a search, measured.

    Attributes:
        id: a ULID; ``run``: of the call that tried it.
        kind: ``hnsw`` (a graph of ``m``, ``ef_construction``, searched with ``ef``) or ``mode`` (a
            mode of search on an eval set).
        rows: in the graph; fewer than the index has where a sample was tried (``sampled``).
        recall: the part of the exact ``k`` nearest that was found, in [0, 1]; None for a mode.
        ndcg, mrr, relevant_recall: against the relevant keys of the eval set, each in [0, 1], at
            ``k``; None without any.
        p50_ms, p99_ms: of one search, embedding apart.
        cpu_ms: processor time of one search, as steady as a busy machine lets it be: of two
            settings the one with less is the faster one; 0 for a mode.
        build_seconds, size_bytes: of the graph.
        chosen: it was the run's choice.
    """

    id: str
    run: str
    at: datetime
    actor: str
    index: str
    number: int
    kind: str
    k: int
    queries: int
    rows: int
    m: int = 0
    ef_construction: int = 0
    ef: int = 0
    mode: SearchMode = SearchMode.VECTOR
    eval_set: str = ""
    sampled: bool = False
    recall: float | None = None
    ndcg: float | None = None
    mrr: float | None = None
    relevant_recall: float | None = None
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    build_seconds: float = 0.0
    size_bytes: int = 0
    chosen: bool = False
    note: str = ""
    cpu_ms: float = 0.0
