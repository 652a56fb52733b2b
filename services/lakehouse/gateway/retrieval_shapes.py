"""What answers about retrievals, eval sets and trials look like in JSON.

Values stand in them as JSON, not as texts of it; vectors as base64 of little-endian float32, which
a search takes. A field may be added, never renamed or removed.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from lakehouse.contracts.retrievals import (
    Explanation,
    HitReason,
    ListRetrievalsResult,
    ReplayedHit,
    ReplayReport,
    RetrievalResult,
)
from lakehouse.contracts.trials import (
    EvalQuery,
    EvalResult,
    EvalSummary,
    ListEvalsResult,
    TrialsResult,
)
from lakehouse.gateway.vector_shapes import key_value
from lakehouse.model.retrieval import (
    RecordClass,
    Rerank,
    Retrieval,
    RetrievedRef,
    SearchedIndex,
    SearchMode,
    StageScore,
    Trial,
)

_LISTED_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class RefShape:
    """A hit as it is remembered. ``text_sha256``: of the text it had, in UTF-8."""

    rank: int
    key: Any
    chunk: int
    span: tuple[int, int]
    version: int
    score: float
    text_sha256: str
    stages: tuple[StageScore, ...]
    index: str


@dataclass(frozen=True, slots=True)
class AskedShape:
    """What was asked, of what, by whom. ``vector``: null where none was. ``version``: of the store
    that was read then."""

    id: str
    at: datetime
    actor: str
    purpose: str
    mode: SearchMode
    text: str
    vector: str | None
    k: int
    version: int
    indexes: tuple[SearchedIndex, ...]
    digest: str
    filter: str
    exact: bool
    ef: int
    candidates: int
    rerank: Rerank
    as_of_version: int
    degraded: bool
    degraded_reason: str
    record: RecordClass
    workspace: str
    source: str
    request_id: str
    embed_ms: float
    search_ms: float
    pinned: bool
    tags: tuple[str, ...]
    hits_total: int


@dataclass(frozen=True, slots=True)
class RetrievalShape(AskedShape):
    """A retrieval with its ranked rows. ``kept``: ``log``, or ``memory`` where it is on its way.
    ``store_version``: of the store now."""

    hits: tuple[RefShape, ...]
    kept: str
    store_version: int


@dataclass(frozen=True, slots=True)
class ListedShape:
    """A retrieval in a list. ``text``: the first 500 characters. ``top``: the best hit."""

    id: str
    at: datetime
    actor: str
    purpose: str
    mode: SearchMode
    indexes: tuple[str, ...]
    text: str
    k: int
    filter: str
    hits_total: int
    top: RefShape | None
    degraded: bool
    version: int
    digest: str
    pinned: bool
    embed_ms: float
    search_ms: float
    request_id: str


@dataclass(frozen=True, slots=True)
class RetrievalsShape:
    """Newest first. ``dropped``: that were not remembered since the process began."""

    retrievals: tuple[ListedShape, ...]
    version: int
    next: str | None
    dropped: int
    unreadable: int


@dataclass(frozen=True, slots=True)
class ReplayedShape:
    """A hit with the text it had; null where it cannot be read any more (``text_from``: ``gone``).
    ``row``: what became of the row since: same, changed, deleted, unknown."""

    rank: int
    key: Any
    chunk: int
    span: tuple[int, int]
    version: int
    score: float
    text: str | None
    text_sha256: str
    text_from: str
    row: str
    row_version: int
    stages: tuple[StageScore, ...]
    index: str


@dataclass(frozen=True, slots=True)
class ReplayShape:
    """``digest``: of what is shown here; ``same``: it is the one that was recorded, and every text
    is there. ``version``: of the store now."""

    id: str
    digest: str
    same: bool
    texts_missing: int
    hits: tuple[ReplayedShape, ...]
    retrieval: AskedShape
    version: int


@dataclass(frozen=True, slots=True)
class ReasonShape:
    """Why a hit is where it is."""

    rank: int
    key: Any
    chunk: int
    score: float
    brought_by: tuple[str, ...]
    sentence: str
    text: str | None
    stages: tuple[StageScore, ...]
    index: str


@dataclass(frozen=True, slots=True)
class ExplanationShape:
    """``steps``: what was done, in order, in words. ``version``: of the store now."""

    id: str
    steps: tuple[str, ...]
    hits: tuple[ReasonShape, ...]
    retrieval: AskedShape
    version: int


@dataclass(frozen=True, slots=True)
class EvalQueryShape:
    """``vector`` and ``text``: one of them; ``relevant``: keys that should be found."""

    text: str
    vector: str | None
    relevant: tuple[Any, ...]
    grades: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class EvalShape:
    """``version``: of its last change."""

    name: str
    index: str
    queries: tuple[EvalQueryShape, ...]
    created_at: datetime
    description: str
    version: int
    store_version: int
    created: bool


@dataclass(frozen=True, slots=True)
class EvalsShape:
    """By name, without their queries."""

    evals: tuple[EvalSummary, ...]
    version: int
    next: str | None


@dataclass(frozen=True, slots=True)
class TrialsShape:
    """Newest first."""

    trials: tuple[Trial, ...]
    version: int
    next: str | None
    dropped: int
    unreadable: int


def packed(vector: bytes) -> str | None:
    """Base64; None for no vector."""
    return binascii.b2a_base64(vector, newline=False).decode() if vector else None


def ref_shape(rank: int, one: RetrievedRef) -> RefShape:
    return RefShape(
        rank,
        key_value(one.key),
        one.chunk,
        (one.start, one.end),
        one.version,
        one.score,
        one.text_sha256,
        one.stages,
        one.index,
    )


def _asked(one: Retrieval) -> dict[str, Any]:
    values = {field.name: getattr(one, field.name) for field in fields(AskedShape)}
    total = one.hits_total or len(one.hits)
    return {**values, "vector": packed(one.vector), "hits_total": total}


def retrieval_shape(result: RetrievalResult) -> RetrievalShape:
    one = result.retrieval
    hits = tuple(ref_shape(rank, ref) for rank, ref in enumerate(one.hits, 1))
    return RetrievalShape(**_asked(one), hits=hits, kept=result.kept, store_version=result.version)


def _listed(one: Retrieval) -> ListedShape:
    own: dict[str, Any] = {
        "indexes": tuple(searched.index for searched in one.indexes),
        "text": one.text[:_LISTED_CHARS],
        "hits_total": one.hits_total or len(one.hits),
        "top": ref_shape(1, one.hits[0]) if one.hits else None,
    }
    same = {f.name: getattr(one, f.name) for f in fields(ListedShape) if f.name not in own}
    return ListedShape(**same, **own)


def retrievals_shape(result: ListRetrievalsResult) -> RetrievalsShape:
    return RetrievalsShape(
        tuple(map(_listed, result.retrievals)),
        result.version,
        result.cursor or None,
        result.dropped,
        result.unreadable,
    )


def _replayed(one: ReplayedHit) -> ReplayedShape:
    own = {"key": key_value(one.key), "span": (one.start, one.end)}
    same = {f.name: getattr(one, f.name) for f in fields(ReplayedShape) if f.name not in own}
    return ReplayedShape(**same, **own)


def replay_shape(report: ReplayReport) -> ReplayShape:
    return ReplayShape(
        report.retrieval.id,
        report.digest,
        report.same,
        report.texts_missing,
        tuple(map(_replayed, report.hits)),
        AskedShape(**_asked(report.retrieval)),
        report.version,
    )


def _reason(one: HitReason) -> ReasonShape:
    same = {f.name: getattr(one, f.name) for f in fields(ReasonShape) if f.name != "key"}
    return ReasonShape(**same, key=key_value(one.key))


def explanation_shape(result: Explanation) -> ExplanationShape:
    return ExplanationShape(
        result.retrieval.id,
        result.steps,
        tuple(map(_reason, result.hits)),
        AskedShape(**_asked(result.retrieval)),
        result.version,
    )


def _eval_query(one: EvalQuery) -> EvalQueryShape:
    relevant = tuple(map(key_value, one.relevant))
    return EvalQueryShape(one.text, packed(one.vector), relevant, one.grades)


def eval_shape(result: EvalResult) -> EvalShape:
    one = result.eval_set
    return EvalShape(
        one.name,
        one.index,
        tuple(map(_eval_query, one.queries)),
        one.created_at,
        one.description,
        one.version,
        result.version,
        result.created,
    )


def evals_shape(result: ListEvalsResult) -> EvalsShape:
    return EvalsShape(result.evals, result.version, result.cursor or None)


def trials_shape(result: TrialsResult) -> TrialsShape:
    return TrialsShape(
        result.trials, result.version, result.cursor or None, result.dropped, result.unreadable
    )
