"""Trials: eval sets, settings that were tried, and the one that is taken (ADR-018)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from lakehouse.contracts.vectors import IndexResult
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import SearchMode, Trial

EVAL_QUERIES_MAX: Final = 2_000
BUDGET_SECONDS_MAX: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class EvalQuery:
    """``text``, or ``vector`` (little-endian float32). ``relevant``: keys that should be found, the
    more relevant first where ``grades`` (as many, larger is better) do not say; none: the exact
    neighbours are what should be found."""

    text: str = ""
    vector: bytes = b""
    relevant: tuple[str, ...] = ()
    grades: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class EvalSet:
    """Queries for an index. ``version``: of the store, of its last change."""

    name: str
    index: str
    queries: tuple[EvalQuery, ...]
    created_at: datetime
    description: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class PutEvalRequest:
    """Make it, or put another in its place. ``samples``: draw so many documents of the index as
    queries, with their exact neighbours, where ``queries`` is empty; ``seed`` of the draw."""

    name: str
    index: str
    queries: tuple[EvalQuery, ...] = ()
    samples: int = 0
    seed: int = 1
    description: str = ""


@dataclass(frozen=True, slots=True)
class EvalRequest:
    name: str


@dataclass(frozen=True, slots=True)
class EvalResult:
    eval_set: EvalSet
    version: int
    created: bool = False


@dataclass(frozen=True, slots=True)
class ListEvalsRequest:
    """By name. ``limit`` in [1, 1000]. The sets come without their queries."""

    index: str = ""
    limit: int = 100
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class EvalSummary:
    name: str
    index: str
    queries: int
    relevant: int
    created_at: datetime
    description: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class ListEvalsResult:
    evals: tuple[EvalSummary, ...]
    version: int
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class DeleteEvalRequest:
    name: str


@dataclass(frozen=True, slots=True)
class DeleteEvalResult:
    name: str
    version: int


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """Search with each query of an eval set in each of ``modes`` (none: all that can be), on
    version ``number`` (0: the live one); each mode becomes a trial."""

    name: str
    modes: tuple[SearchMode, ...] = ()
    number: int = 0
    k: int = 10


@dataclass(frozen=True, slots=True)
class AutotuneRequest:
    """Try settings of the graph of an index until one is found or the time is over.

    Attributes:
        eval_set: whose queries; "" draws ``samples`` documents of the index.
        recall: of the exact ``k`` nearest that is asked for, in (0, 1]; the fastest setting that
            reaches it is chosen, or the one with the best recall where none does.
        m, ef_construction, ef: values to try; none: a grid that fits.
        rows_max: try on a sample of so many rows; 0 as many as the budget allows.
        exhaustive: every setting of the grid, however unpromising.
        wait_seconds: answer when it is done, or after so long; at most 600.
    """

    index: str
    number: int = 0
    eval_set: str = ""
    samples: int = 200
    k: int = 10
    recall: float = 0.99
    m: tuple[int, ...] = ()
    ef_construction: tuple[int, ...] = ()
    ef: tuple[int, ...] = ()
    rows_max: int = 0
    budget_seconds: float = 60.0
    exhaustive: bool = False
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TrialsReport:
    """A run. ``state``: running, done, or failed (``error`` says of what).

    Attributes:
        chosen: the setting that is best for what was asked; None while there is none.
        reached: its recall is at least what was asked for.
        planned: settings that were to be tried; fewer were where the time was over (``ended``:
            ``all``, ``enough`` or ``time``).
    """

    run: str
    index: str
    state: str
    trials: tuple[Trial, ...]
    version: int
    chosen: Trial | None = None
    reached: bool = False
    planned: int = 0
    seconds: float = 0.0
    ended: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class RunRequest:
    run: str


@dataclass(frozen=True, slots=True)
class TrialsRequest:
    """Newest first; every trial that was ever run. ``limit`` in [1, 1000]."""

    index: str = ""
    run: str = ""
    kind: str = ""
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 100
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class TrialsResult:
    trials: tuple[Trial, ...]
    version: int
    cursor: str = ""
    dropped: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class PromoteRequest:
    """Give an index version the setting of a trial, in one commit: ``ef`` holds at once, a graph of
    another shape is built beside and takes the place of the one that answers until then. ``number``
    0 is the version that was tried."""

    trial: str
    number: int = 0


class TrialsService(Protocol):
    """Raises ``not_found`` (eval set, index, version, run, trial, with the nearest name),
    ``invalid`` (a value out of range, queries that the index cannot be asked)."""

    async def put_eval(self, ctx: Context, request: PutEvalRequest) -> EvalResult:
        """Scope write."""
        ...

    async def get_eval(self, ctx: Context, request: EvalRequest) -> EvalResult:
        """Scope read."""
        ...

    async def list_evals(self, ctx: Context, request: ListEvalsRequest) -> ListEvalsResult:
        """Scope read."""
        ...

    async def delete_eval(self, ctx: Context, request: DeleteEvalRequest) -> DeleteEvalResult:
        """Scope write."""
        ...

    async def evaluate(self, ctx: Context, request: EvaluateRequest) -> TrialsReport:
        """Scope write: its trials are remembered."""
        ...

    async def autotune(self, ctx: Context, request: AutotuneRequest) -> TrialsReport:
        """Scope write. One run of an index at a time: ``conflict`` names the one that runs."""
        ...

    async def get_run(self, ctx: Context, request: RunRequest) -> TrialsReport:
        """Scope read."""
        ...

    async def trials(self, ctx: Context, request: TrialsRequest) -> TrialsResult:
        """Scope read."""
        ...

    async def promote(self, ctx: Context, request: PromoteRequest) -> IndexResult:
        """Scope write. Raises ``conflict`` for an index version that has no graph."""
        ...
