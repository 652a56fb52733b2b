"""Group formation: proposals in order against head plus what is queued, into one record.

Pure but for the machine's and proposals' own functions: nothing here waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Generic, TypeVar

import orjson

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.ledger.head import Head
from lakehouse.ledger.machine import Committed, Entry, Machine, Proposal
from lakehouse.ledger.record import Commit

S = TypeVar("S")

_BYTES_INLINE: Final = 64 << 10  # of changes; what is more is applied beside the loop
_YIELD_EVERY: Final = 4
_ANSWERS_AT_ONCE: Final = 16


@dataclass(slots=True, eq=False)
class Waiting(Generic[S]):
    """A proposal in the queue and the future its callers wait on."""

    proposal: Proposal[S]
    future: asyncio.Future[Committed[S]]
    parent: str = ""
    """``traceparent`` of whoever proposed it; "" where nobody traces."""

    def answer(self, outcome: Committed[S] | Exception) -> None:
        """Resolve the future, once."""
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
            self.future.exception()  # a caller that went away need not fetch it
        else:
            self.future.set_result(outcome)


@dataclass(slots=True)
class Group(Generic[S]):
    """What one record will hold. ``deferred`` are refusals and no-ops that rest on a commit before
    them in this group: they are answered once that one is durable. ``size_bytes``: of the changes
    and the answers, as JSON."""

    state: S
    seq: int
    ts_us: int
    kind: str = "commit"
    accepted: list[tuple[Waiting[S], Commit, S]] = field(default_factory=list)
    deferred: list[tuple[Waiting[S], Committed[S] | Exception]] = field(default_factory=list)
    size_bytes: int = 0

    @property
    def is_small(self) -> bool:
        """Whether its record is made in less time than another thread takes to begin."""
        return self.size_bytes <= _BYTES_INLINE

    @property
    def commits(self) -> tuple[Commit, ...]:
        return tuple(commit for _, commit, _ in self.accepted)

    def fail(self, accepted: Callable[[], Exception], deferred: Callable[[], Exception]) -> None:
        """Answer everybody with an error of their own."""
        for waiting, _, _ in self.accepted:
            waiting.answer(accepted())
        for waiting, _ in self.deferred:
            waiting.answer(deferred())

    async def succeed(self) -> None:
        """Answer everybody: the record is in the chain. Not all at once, for each of them goes on
        with work of its own before the loop sees anything else."""
        for count, (waiting, commit, state) in enumerate(self.accepted, start=1):
            waiting.answer(Committed(commit.entry.seq, commit.entry.answer, state))
            if count % _ANSWERS_AT_ONCE == 0:
                await asyncio.sleep(0)
        for waiting, outcome in self.deferred:
            waiting.answer(outcome)


async def form_group(
    head: Head[S], waiting: list[Waiting[S]], machine: Machine[S], now_us: int
) -> Group[S]:
    """Decide ``waiting`` in order. Answers at once what rests on nothing but the head."""
    kind = waiting[0].proposal.kind if waiting else "commit"
    group = Group(state=head.state, seq=head.seq, ts_us=head.ts_us, kind=kind)
    for count, item in enumerate(waiting, start=1):
        outcome = await _decide(group, item, machine, now_us)
        if outcome is not None and group.accepted:
            group.deferred.append((item, outcome))
        elif outcome is not None:
            item.answer(outcome)
        if count % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
    return group


async def _decide(
    group: Group[S], item: Waiting[S], machine: Machine[S], now_us: int
) -> Committed[S] | Exception | None:
    """``None`` if the proposal joined the group, else its answer."""
    proposal = item.proposal
    try:
        verdict = proposal.decide(group.state, group.seq + 1)
        answer = _canonical(verdict.answer)
        if not verdict.changes:
            return Committed(group.seq, answer, group.state, no_op=True)
        blank = Entry(
            seq=group.seq + 1,
            ts_us=max(now_us, group.ts_us + 1),
            changes=(),
            answer=answer,
            actor=proposal.actor,
            request_id=proposal.request_id,
        )
        data = _dumped(verdict.changes)
        # Values that nobody changes: what reads the head meanwhile is not disturbed.
        apply = partial(_applied, machine, group.state, blank, data)
        entry, state = await run_blocking(apply) if len(data) > _BYTES_INLINE else apply()
    except LakehouseError as error:
        return error
    except Exception as error:  # noqa: BLE001 - one proposal's defect must not stop the others'
        internal = LakehouseError(ErrorKind.INTERNAL, "a proposal could not be decided")
        internal.__cause__ = error
        return internal
    group.state, group.seq, group.ts_us = state, entry.seq, entry.ts_us
    group.size_bytes += len(data) + len(_dumped(answer))
    commit = Commit(entry, proposal.key_hash, proposal.body_sha256)
    group.accepted.append((item, commit, state))
    return None


def _applied(machine: Machine[S], state: S, blank: Entry, data: bytes) -> tuple[Entry, S]:
    entry = replace(blank, changes=tuple(orjson.loads(data)))
    return entry, machine.apply(state, entry)


def _canonical(value: Any) -> Any:
    """``value`` as a replay will read it, so that memory and chain cannot differ."""
    return orjson.loads(_dumped(value))


def _dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise LakehouseError(ErrorKind.INVALID, "a change is not a JSON value") from error
