"""Memory: conversations as datasets of turns, searched like any other text (``seeds/000``)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from lakehouse.contracts.vectors import Hit
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import RecordClass, SearchMode

TURNS_MAX: Final = 10_000
TURN_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Turn:
    """Something that somebody said.

    Attributes:
        at: when; None where it is not known, until it is remembered.
        id: sha256 of session, who, time and text: the same turn twice is one. "" before it is
            remembered.
        remembered_at: when it came in; None before.
    """

    text: str
    who: str = ""
    session: str = ""
    at: datetime | None = None
    tags: tuple[str, ...] = ()
    id: str = ""
    remembered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RememberRequest:
    """In one commit. ``memory``: a dataset of turns, made by the first call, with an index of the
    same name over ``text``. At most ``TURNS_MAX`` turns. ``profile`` of an index that is made."""

    memory: str
    turns: tuple[Turn, ...]
    profile: str = "conversation"


@dataclass(frozen=True, slots=True)
class RememberReport:
    """``duplicates``: turns that were there already, or came twice; they are one. ``ids``: of the
    turns, in their order."""

    memory: str
    version: int
    remembered: int
    duplicates: int
    ids: tuple[str, ...] = ()
    created: bool = False


@dataclass(frozen=True, slots=True)
class RecallRequest:
    """Turns that have to do with ``text``; "" and None are no filter.

    Attributes:
        tags: a turn has all of them.
        since, until: of ``Turn.at``: at or after, before.
        also: indexes over tables that are searched together with the turns.
    """

    memory: str
    text: str
    k: int = 10
    mode: SearchMode = SearchMode.HYBRID
    session: str = ""
    who: str = ""
    tags: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    also: tuple[str, ...] = ()
    record: RecordClass = RecordClass.BEST_EFFORT


@dataclass(frozen=True, slots=True)
class Recalled:
    """``turn``: None for a row of a table."""

    hit: Hit
    turn: Turn | None = None


@dataclass(frozen=True, slots=True)
class RecallResult:
    """Best first."""

    memory: str
    recalled: tuple[Recalled, ...]
    retrieval_id: str
    version: int
    degraded: bool = False
    behind: bool = False


@dataclass(frozen=True, slots=True)
class CatchUpRequest:
    """What came in since: turns in the order in which they were remembered.

    Attributes:
        since: remembered at or after it; None is from the beginning, or from ``cursor`` on, which
            goes on behind the last turn that was told, also where nothing more was there.
        limit: in [1, 1000].
    """

    memory: str
    since: datetime | None = None
    session: str = ""
    who: str = ""
    tags: tuple[str, ...] = ()
    limit: int = 100
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class CatchUpResult:
    """``cursor`` is always there, for the next time; ``more``: there are more turns now."""

    memory: str
    turns: tuple[Turn, ...]
    version: int
    cursor: str
    more: bool = False


@dataclass(frozen=True, slots=True)
class MemoriesRequest:
    """By name. ``limit`` in [1, 1000]."""

    limit: int = 100
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """``turns``: rows of the dataset."""

    name: str
    turns: int
    index: str
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class MemoriesResult:
    memories: tuple[MemoryInfo, ...]
    version: int
    cursor: str = ""


class MemoryService(Protocol):
    """Raises ``not_found`` (no such memory), ``invalid`` (an empty text, a value out of range),
    ``conflict`` (a dataset of that name that is no memory)."""

    async def remember(self, ctx: Context, request: RememberRequest) -> RememberReport:
        """Scope write."""
        ...

    async def recall(self, ctx: Context, request: RecallRequest) -> RecallResult:
        """Scope read."""
        ...

    async def catch_up(self, ctx: Context, request: CatchUpRequest) -> CatchUpResult:
        """Scope read."""
        ...

    async def memories(self, ctx: Context, request: MemoriesRequest) -> MemoriesResult:
        """Scope read."""
        ...
