"""Operations and their attempts: which failed, of what, and what came of each.

An operation is what a caller asked for once; the attempts at it are told apart by their numbers.
Whoever has a loop opens an operation around it (``operation``), the stores inside find it by
themselves. A failed attempt is held until its fate is known: another attempt followed, the
operation ended, another bucket answered. Then it goes to its sink, once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

from lakehouse.errors import LakehouseError
from lakehouse.kit.ids import Ids
from lakehouse.model.failures import AttemptOutcome, FailedAttempt
from lakehouse.objectstore.failures import FailureSink

T = TypeVar("T")

PATIENCE_SECONDS: Final = 1.0


class Answered(Protocol):
    """An attempt that got an answer, which may yet turn out to be wrong."""

    def refuse(self, error: LakehouseError) -> None: ...


@dataclass(frozen=True, slots=True)
class _Held:
    """A failed attempt whose fate is open; ``failed.outcome`` is what it is if others follow."""

    sink: FailureSink
    failed: FailedAttempt

    def settle(self, outcome: AttemptOutcome | None = None) -> None:
        failed = self.failed
        if outcome is not None:
            failed = replace(failed, outcome=outcome, final=True)
        self.sink.failed(failed)


class Operation:
    """One operation; ``with`` makes it the current one of this task and of those made inside.

    Attempts follow one another. Two at once (a slow write and its hedge) are told apart, but
    different requests side by side belong into operations of their own.

    Args:
        patience_seconds: an attempt that its caller gives up counts as failed if it had no answer
            for so long.
    """

    __slots__ = (
        "_held",
        "_id",
        "_ids",
        "_rescued",
        "_token",
        "attempts",
        "closed",
        "last",
        "patience_seconds",
    )

    def __init__(self, ids: Ids, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._ids = ids
        self._id = ""
        self._held: list[_Held] = []
        self._rescued = False
        self._token: Token[Operation | None] | None = None
        self.attempts = 0
        self.closed = False
        self.last: Answered | None = None
        self.patience_seconds = patience_seconds

    @property
    def id(self) -> str:
        """A ULID, made when it is first asked for: what goes well needs none."""
        if not self._id:
            self._id = self._ids.ulid()
        return self._id

    def begin(self, bucket: str) -> bool:
        """Count another attempt, at ``bucket``; whether failed ones there precede it, whose fate
        is thereby known."""
        self.attempts += 1
        if not self._held:
            return False
        before = [one for one in self._held if one.failed.bucket == bucket]
        self._held = [one for one in self._held if one.failed.bucket != bucket]
        for one in before:
            one.settle()
        return bool(before)

    def hold(self, sink: FailureSink, failed: FailedAttempt) -> None:
        """Take over a failed attempt until its fate is known, which may be now."""
        held = _Held(sink, failed)
        if self.closed:
            held.settle()
        else:
            self._held.append(held)

    def refuse(self, error: LakehouseError) -> None:
        """The last answer was no answer: its bytes are not those that they must be.

        For whoever checks content. The attempt becomes a failed one of ``error``'s kind; nothing
        happens where the last attempt is known to have failed.
        """
        answered, self.last = self.last, None
        if answered is not None:
            answered.refuse(error)

    def rescued(self) -> None:
        """The caller gets its bytes from another bucket than the one that failed."""
        self._rescued = True

    def close(self, outcome: AttemptOutcome | None) -> None:
        """Settle what is held; ``outcome`` of what the operation came to, None for success."""
        self.closed = True
        if not self._held:
            return
        if outcome is None and self._rescued:
            outcome = AttemptOutcome.RESCUED
        held, self._held = self._held, []
        last = {one.failed.bucket: one.failed.attempt for one in held}
        for one in held:
            last[one.failed.bucket] = max(last[one.failed.bucket], one.failed.attempt)
        for one in held:
            decides = one.failed.attempt == last[one.failed.bucket]
            one.settle(outcome if decides else None)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Be the current operation for a step of a generator, which shares its caller's context."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _leave(token)

    def __enter__(self) -> Self:
        self._token = _CURRENT.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._token is not None:
            _leave(self._token)
            self._token = None
        self.closed = True
        if self._held:
            self.close(outcome_of(error))


_CURRENT: Final[ContextVar[Operation | None]] = ContextVar("lakehouse_operation", default=None)


def _leave(token: Token[Operation | None]) -> None:
    try:
        _CURRENT.reset(token)
    except ValueError:
        # A coroutine that is thrown away, not finished, ends in the context of who collects it.
        return


def current_operation() -> Operation | None:
    """The operation that this task works on, if one is open."""
    found = _CURRENT.get()
    return None if found is None or found.closed else found


def operation(
    ids: Ids, patience_seconds: float = PATIENCE_SECONDS
) -> AbstractContextManager[Operation]:
    """The operation of the ``with`` block: the current one if there is one, which then goes on
    after the block, or one of its own, which ends with the block.

    ``async with`` is not needed, and a generator must not yield inside: it takes ``running``.
    """
    found = _CURRENT.get()
    if found is not None and not found.closed:
        return nullcontext(found)
    return Operation(ids, patience_seconds)


@contextmanager
def spread(ids: Ids) -> Iterator[Operation]:
    """As ``operation``, for a generator: it is current only where ``running`` or ``stepwise``."""
    found = current_operation()
    if found is not None:
        yield found
        return
    made = Operation(ids)
    try:
        yield made
    except BaseException as error:
        made.close(outcome_of(error))
        raise
    made.close(None)


def outcome_of(error: BaseException | None) -> AttemptOutcome | None:
    """What an operation came to that ended in ``error``; None if it went well."""
    if error is None:
        return None
    return AttemptOutcome.FAILED if isinstance(error, Exception) else AttemptOutcome.GIVEN_UP


async def stepwise(within: Operation, source: AsyncIterator[T]) -> AsyncIterator[T]:
    """The items of ``source``, each fetched with ``within`` as the current operation."""
    while True:
        with within.running():
            try:
                item = await anext(source)
            except StopAsyncIteration:
                return
        yield item
