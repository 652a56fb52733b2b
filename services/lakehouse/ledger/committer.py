"""The one task that appends: takes what is queued, makes a record of it, settles it, answers.

One record at a time: the next group is decided only when the one before it is settled, so that head
plus queue is always head plus this group. A caller that goes away cancels nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar, cast

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit import tracing
from lakehouse.kit.blocking import run_blocking
from lakehouse.ledger.access import Access
from lakehouse.ledger.chain import Append, Latencies, Outcome, record_claim
from lakehouse.ledger.errors import fenced, unavailable, unknown
from lakehouse.ledger.figures import CommitFigures
from lakehouse.ledger.group import Group, Waiting, form_group
from lakehouse.ledger.head import Head, remember_keys
from lakehouse.ledger.history import History
from lakehouse.ledger.keys import Keys
from lakehouse.ledger.machine import Committed, Machine, Proposal
from lakehouse.ledger.record import CheckpointRef, Encoded, Kind, Record, WriterInfo, encode

log = logging.getLogger(__name__)

S = TypeVar("S")


class Committer(Generic[S]):
    """Owns the head. ``before_record`` is awaited before each record (room to fold),
    ``after_record`` is called after each new head."""

    def __init__(
        self,
        access: Access,
        machine: Machine[S],
        writer: WriterInfo,
        head: Head[S],
        keys: Keys,
        history: History,
    ) -> None:
        self.head = head
        self.keys = keys
        self.error: LakehouseError | None = None
        self.figures = CommitFigures()
        self.before_record: Callable[[], Awaitable[None]] | None = None
        self.after_record: Callable[[], None] | None = None
        self._access = access
        self._machine = machine
        self._writer = writer
        self._history = history
        self._latencies = Latencies()
        self._queue: deque[Waiting[S]] = deque()
        self._taken: list[Waiting[S]] = []
        self._inflight: dict[str, Waiting[S]] = {}
        self._checkpoint = head.checkpoint
        self._bare: list[tuple[Kind, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._settling = False
        self._closing = False
        self._task = asyncio.create_task(self._run(), name="ledger committer")
        self._task.add_done_callback(self._died)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def settling(self) -> bool:
        """True while the outcome of a record is not known."""
        return self._settling

    @property
    def checkpoint(self) -> CheckpointRef | None:
        """The newest complete checkpoint; the next record names it."""
        return self._checkpoint

    def use_checkpoint(self, checkpoint: CheckpointRef) -> None:
        """Name ``checkpoint`` in the records from now on."""
        self._checkpoint = checkpoint

    def fence(self, error: LakehouseError) -> None:
        """Never acknowledge again. What is under way gets its own answer."""
        if self.error is None:
            self.error = error
        self._wake.set()

    async def commit(self, proposal: Proposal[S]) -> Committed[S]:
        """See ``LedgerHandle.commit``."""
        clock = self._access.clock
        began, outcome = clock.monotonic(), "given_up"
        try:
            with tracing.span("commit"):
                answer = await self._queued_commit(proposal)
            outcome = "committed"
            if answer.replayed or answer.no_op:
                outcome = "replayed" if answer.replayed else "no_op"
            return answer
        except LakehouseError as error:
            outcome = error.kind.value
            raise
        finally:
            self.figures.answered(outcome, clock.monotonic() - began)

    async def _queued_commit(self, proposal: Proposal[S]) -> Committed[S]:
        self._check_open()
        replayed = await self.recall(proposal.key_hash, proposal.body_sha256)
        if replayed is not None:
            return replayed
        waiting = self._inflight.get(proposal.key_hash) if proposal.key_hash else None
        if waiting is not None:
            _check_body(waiting.proposal.body_sha256, proposal.body_sha256)
            return replace(await asyncio.shield(waiting.future), replayed=True)
        self._check_open()
        if self._settling:
            raise unavailable("the ledger is settling a commit whose outcome is not known")
        if len(self._queue) >= self._access.settings.queue_max:
            raise unavailable("too many commits are queued")
        future: asyncio.Future[Committed[S]] = asyncio.get_running_loop().create_future()
        waiting = Waiting(proposal, future, tracing.header())
        self._queue.append(waiting)
        if proposal.key_hash:
            self._inflight[proposal.key_hash] = waiting
        self._wake.set()
        return await asyncio.shield(waiting.future)

    async def append_bare(self, kind: Kind) -> None:
        """Append a record without commits: to seal, or to name a checkpoint. Raises ``fenced`` or
        ``unknown``."""
        self._check_fenced()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._bare.append((kind, future))
        self._wake.set()
        await asyncio.shield(future)

    async def drain(self) -> None:
        """Refuse new commits and wait until those queued are answered."""
        self._closing = True
        futures = [waiting.future for waiting in (*self._queue, *self._taken)]
        if futures:
            await asyncio.wait(futures)

    async def stop(self) -> None:
        """End the task. Whoever still waits is told that the ledger closed."""
        self._closing = True
        self._task.cancel()
        await asyncio.wait([self._task])
        self._refuse_queued(lambda: unavailable("the ledger is closed"))
        for waiting in self._taken:
            waiting.answer(unknown())

    def _died(self, task: asyncio.Task[None]) -> None:
        """A defect ended the task: nothing is acknowledged any more, nobody waits in vain."""
        if task.cancelled() or task.exception() is None:
            return
        error = LakehouseError(ErrorKind.INTERNAL, "the ledger stopped after a defect")
        error.__cause__ = task.exception()
        self.fence(error)
        self._refuse_queued(lambda: error)
        for waiting in self._taken:
            waiting.answer(unknown())

    def _check_fenced(self) -> None:
        if self.error is not None:
            raise self._stopped()

    def _stopped(self) -> LakehouseError:
        error = self.error or unavailable("the ledger is closed")
        return LakehouseError(error.kind, error.message, **error.fields)

    def _check_open(self) -> None:
        self._check_fenced()
        if self._closing:
            raise unavailable("the ledger is closing")

    async def recall(self, key_hash: str, body_sha256: str) -> Committed[S] | None:
        """See ``Ledger.recall``."""
        key = self.keys.find(key_hash, self._access.clock.now_us()) if key_hash else None
        if key is None:
            return None
        _check_body(key.body_sha256, body_sha256)
        answer = await self._history.answer(key)
        return Committed(key.seq, answer, self.head.state, replayed=True)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            if self.error is not None:
                self._refuse_queued(self._stopped)
                self._wake.clear()
                continue
            if not self._queue and not self._bare:
                self._wake.clear()
                continue
            if self.before_record is not None:
                try:
                    await self.before_record()
                except Exception as error:  # noqa: BLE001 - a defect of a fold must not end commits
                    log.warning("the ledger cannot fold", extra={"error": repr(error)})
                    self._refuse_queued(lambda: unavailable("the ledger cannot fold"))
                    continue
            if self._queue:
                await self._commit_group(self._take())
            elif self._bare:
                await self._commit_bare(*self._bare.pop(0))

    def _take(self) -> list[Waiting[S]]:
        """The next group: in order, of one kind, no longer than the limit."""
        taken: list[Waiting[S]] = []
        while self._queue and len(taken) < self._access.settings.group_commits_max:
            kinds = (self._queue[0].proposal.kind, taken[0].proposal.kind if taken else None)
            if taken and (kinds[0] != kinds[1] or kinds[0] != "commit"):
                break
            taken.append(self._queue.popleft())
        return taken

    async def _commit_group(self, taken: list[Waiting[S]]) -> None:
        self._taken = taken
        try:
            now_us = self._access.clock.now_us()
            group = await form_group(self.head, taken, self._machine, now_us)
            if group.accepted:
                # The record is written by this task, on behalf of whoever came first.
                parent = group.accepted[0][0].parent
                about = {"lakehouse.commits": len(group.accepted)}
                with tracing.span("record", attributes=about, parent=parent):
                    await self._append(cast(Kind, group.kind), group)
            self._taken = []
        finally:
            for waiting in taken:
                key_hash = waiting.proposal.key_hash
                if key_hash and self._inflight.get(key_hash) is waiting:
                    del self._inflight[key_hash]

    async def _commit_bare(self, kind: Kind, future: asyncio.Future[None]) -> None:
        head = self.head
        group: Group[S] = Group(state=head.state, seq=head.seq, ts_us=head.ts_us, kind=kind)
        error = await self._append(kind, group)
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
            future.exception()

    async def _append(self, kind: Kind, group: Group[S]) -> LakehouseError | None:
        """Put the group into the next slot and answer everybody in it; ``None`` if committed."""
        head = self.head
        record = Record(
            n=head.n + 1,
            prev=head.sha256,
            epoch=head.epoch,
            writer=self._writer,
            put_id=self._access.ids.ulid(),
            ts_us=max(group.ts_us, head.ts_us),
            first_seq=head.seq + 1,
            kind=kind,
            commits=group.commits,
            checkpoint=self._checkpoint,
        )
        settings = self._access.settings
        began = self._access.clock.monotonic()
        try:
            make = partial(encode, record, self._access.layout, settings.inline_bytes_max)
            encoded = make() if group.is_small else await run_blocking(make)
            await self._put_body(encoded)
            append = Append(self._access, record_claim(self._access, encoded), self._latencies)
            outcome = await append.run(settings.append_budget_seconds)
        except LakehouseError as error:
            refusal = error
            group.fail(lambda: refusal, lambda: unavailable("the commit before this one failed"))
            return refusal
        if outcome is Outcome.UNSETTLED:
            self.figures.unsettled()
            group.fail(unknown, lambda: unavailable("the commit before this one is not settled"))
            outcome = await self._settle(append)
        if outcome is Outcome.COMMITTED:
            seconds = self._access.clock.monotonic() - began
            self.figures.recorded(len(group.accepted), seconds)
            self._advance(head.after(encoded.record, encoded.sha256, group.state), encoded.record)
            await group.succeed()
            return None
        taken = fenced(append.other)
        group.fail(unknown if outcome is Outcome.LOST else lambda: taken, fenced)
        self.fence(taken)
        return taken

    async def _put_body(self, encoded: Encoded) -> None:
        """Write what the record names before the record."""
        reference = encoded.record.body
        if encoded.body is None or reference is None:
            return
        try:
            await self._access.put_named(reference.key, encoded.body)
        except LakehouseError as error:
            if error.retryable:
                raise unavailable("the body of a large commit could not be written") from error
            raise

    async def _settle(self, append: Append[Record]) -> Outcome:
        """Nothing else is done until the slot is somebody's. New commits are refused meanwhile."""
        self._settling = True
        self._refuse_queued(lambda: unavailable("the ledger is settling another commit"))
        try:
            return await append.settle()
        finally:
            self._settling = False

    def _advance(self, head: Head[S], record: Record) -> None:
        """Only here does memory change: the record is in the bucket, above the floor."""
        self.head = head
        remember_keys(self.keys, record)
        self._history.add(record)
        if self.after_record is not None:
            self.after_record()

    def _refuse_queued(self, error: Callable[[], LakehouseError]) -> None:
        while self._queue:
            waiting = self._queue.popleft()
            key_hash = waiting.proposal.key_hash
            if key_hash and self._inflight.get(key_hash) is waiting:
                del self._inflight[key_hash]
            waiting.answer(error())
        while self._bare:
            _, future = self._bare.pop()
            if not future.done():
                future.set_exception(error())
                future.exception()


def _check_body(known_sha256: str, body_sha256: str) -> None:
    if known_sha256 != body_sha256:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the idempotency key was used with another body",
            http_status=422,
            hint="use a new key for a new request",
        )
