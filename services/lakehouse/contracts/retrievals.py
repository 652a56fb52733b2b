"""Retrievals: what was found, remembered, shown again and explained (``seeds/001``, 4)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from lakehouse.model.identity import Context
from lakehouse.model.retrieval import Retrieval, StageScore


@dataclass(frozen=True, slots=True)
class RetrievalRequest:
    id: str


@dataclass(frozen=True, slots=True)
class RetrievalResult:
    """``version``: of the store now. ``kept``: ``log``, or ``memory`` where it is on its way."""

    retrieval: Retrieval
    version: int
    kept: str = "log"


@dataclass(frozen=True, slots=True)
class ListRetrievalsRequest:
    """Newest first; filters are joined by and. ``limit`` in [1, 1000].

    Attributes:
        index: that was searched, alone or with others; ``mode``, ``purpose``: "" is any.
        since, until: at or after, before.
    """

    index: str = ""
    actor: str = ""
    mode: str = ""
    purpose: str = ""
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 100
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class ListRetrievalsResult:
    """``dropped``: retrievals that were not remembered, counted since the process began, because
    the log did not take them as fast as they came. ``unreadable``: batches that were left out."""

    retrievals: tuple[Retrieval, ...]
    version: int
    cursor: str = ""
    dropped: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class ReplayedHit:
    """A ref with its text as it was then.

    Attributes:
        rank: counts from 1.
        text: None where it cannot be read any more; ``text_from`` is ``gone`` then. Else
            ``vectors`` (rows of the index), ``table`` (the dataset) or ``journal``.
        row: what became of the row since: ``same`` (it has this text in this place, whatever its
            other columns have), ``changed``, ``deleted``, or ``unknown`` where the dataset is gone
            or has another key.
        row_version: of the dataset that was asked about ``row``; 0 where it is not known.
    """

    rank: int
    key: str
    chunk: int
    start: int
    end: int
    version: int
    score: float
    text: str | None
    text_sha256: str
    text_from: str
    row: str
    row_version: int = 0
    stages: tuple[StageScore, ...] = ()
    index: str = ""


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The ranked rows and scores as they were answered; no model and no index is asked.

    Attributes:
        digest: of what is shown here, by the same rule as ``retrieval.digest``; texts that could be
            read were compared with their own digests. ``same``: both agree and no text is missing.
        version: of the store now.
    """

    retrieval: Retrieval
    hits: tuple[ReplayedHit, ...]
    digest: str
    same: bool
    texts_missing: int
    version: int


@dataclass(frozen=True, slots=True)
class HitReason:
    """Why a hit is where it is. ``brought_by``: the stages and indexes that had it among their
    candidates; ``sentence``: the same in words."""

    rank: int
    key: str
    chunk: int
    score: float
    brought_by: tuple[str, ...]
    sentence: str
    text: str | None
    stages: tuple[StageScore, ...] = ()
    index: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """``steps``: what was done, in order, in words."""

    retrieval: Retrieval
    steps: tuple[str, ...]
    hits: tuple[HitReason, ...]
    version: int


@dataclass(frozen=True, slots=True)
class PinRequest:
    """Keep what a retrieval cites readable beyond the retention of time travel, by tags on the
    datasets that were read; ``remove`` lets go."""

    id: str
    remove: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class PinResult:
    """``changed``: False where it was so already."""

    id: str
    pinned: bool
    tags: tuple[str, ...]
    version: int
    changed: bool = False


class RetrievalsService(Protocol):
    """Raises ``not_found`` (no such retrieval: never remembered, dropped, or beyond the log's
    retention, which the hint tells apart as far as it is known)."""

    async def get(self, ctx: Context, request: RetrievalRequest) -> RetrievalResult:
        """Scope read."""
        ...

    async def list(self, ctx: Context, request: ListRetrievalsRequest) -> ListRetrievalsResult:
        """Scope read."""
        ...

    async def replay(self, ctx: Context, request: RetrievalRequest) -> ReplayReport:
        """Scope read. Never asks a model or an index."""
        ...

    async def explain(self, ctx: Context, request: RetrievalRequest) -> Explanation:
        """Scope read."""
        ...

    async def pin(self, ctx: Context, request: PinRequest) -> PinResult:
        """Scope write. Raises ``conflict`` where the rows are beyond retention already."""
        ...
