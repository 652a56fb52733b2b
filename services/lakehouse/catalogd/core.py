"""What every use case of the catalog shares: the ledger, and how a commit is asked for."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import orjson

from lakehouse.catalogd.codec import encode_changes
from lakehouse.catalogd.internal import ImportDataset, StoredChange
from lakehouse.catalogd.residing import added_residency
from lakehouse.catalogd.rules import drafted
from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.catalogd.state import CatalogState, DatasetState
from lakehouse.catalogd.views import no_such_dataset
from lakehouse.contracts.catalog import DatasetResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock, to_micros
from lakehouse.kit.ids import Ids
from lakehouse.ledger.ledger import Ledger
from lakehouse.ledger.machine import Committed, JsonObject, Proposal, Verdict
from lakehouse.model.changes import CreateDataset
from lakehouse.model.identity import Context, Scope
from lakehouse.objectstore.buckets import Buckets

__all__ = ["Core", "Decide", "decode_cursor", "encode_cursor", "request_sha256"]

Planned = tuple[Sequence[StoredChange], JsonObject]
Decide = Callable[[CatalogState], Planned]
"""From a state to the changes wanted and the answer to remember; raises to refuse."""


def _canonical(value: Any) -> Any:
    """A request as JSON values; fields at their defaults are left out, so that a field added later
    does not make an old request another one."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: _canonical(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != field.default
        }
        return [type(value).__name__, fields]
    if isinstance(value, tuple):
        return [_canonical(item) for item in value]
    return to_micros(value) if isinstance(value, datetime) else value


def request_sha256(request: object) -> str:
    """What tells two bodies of one idempotency key apart."""
    data = orjson.dumps(_canonical(request), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(data).hexdigest()


def _identified(ctx: Context, method: str, request: object) -> tuple[str, str]:
    """The idempotency key within its principal and method, hashed, and the hash of the body."""
    key = ctx.idempotency_key
    if not key:
        return "", ""
    name = f"{ctx.principal.id}\0{method}\0{key}"
    return hashlib.sha256(name.encode()).hexdigest(), request_sha256(request)


def encode_cursor(*parts: str | int) -> str:
    """An opaque cursor: where the last page ended, never an offset."""
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


def decode_cursor(cursor: str, kinds: tuple[type, ...]) -> list[Any]:
    """The parts of a cursor. Raises ``invalid`` for one that we did not make."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        parts = orjson.loads(base64.urlsafe_b64decode(padded.encode()))
    except (ValueError, UnicodeEncodeError):
        parts = None
    if not isinstance(parts, list) or [type(part) for part in parts] != list(kinds):
        raise LakehouseError(
            ErrorKind.INVALID,
            "the cursor is not one of this list",
            cursor=ascii(cursor[:80])[1:-1],
            hint="start again without a cursor",
        )
    return parts


class Core:
    """Handed to each use case; owns nothing but the tasks of commits under way."""

    def __init__(
        self,
        settings: CatalogSettings,
        buckets: Buckets,
        ledger: Ledger[CatalogState],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self.settings = settings
        self.buckets = buckets
        self.ledger = ledger
        self.clock = clock
        self.ids = ids
        # As this process was started with: what is added later is in the state itself.
        self.configured = {name: buckets.settings(name).residency for name in buckets.names()}
        self.fenced: LakehouseError | None = None
        self._committed_at = clock.monotonic()
        self._tasks: set[asyncio.Task[Committed[CatalogState]]] = set()

    async def read(self, ctx: Context, scope: Scope = Scope.READ) -> CatalogState:
        """The newest durable state, for a caller with ``scope``. Raises ``fenced``."""
        ctx.require(scope)
        await self.check_authority()
        return self.ledger.state

    async def check_authority(self) -> None:
        """Raise ``fenced`` once another writer holds the chain; remembered for readiness."""
        try:
            await self.ledger.check_authority()
        except LakehouseError as error:
            if error.kind is ErrorKind.FENCED:
                self.fenced = error
            raise

    async def commit(
        self, ctx: Context, method: str, request: object, decide: Decide, kind: str = "commit"
    ) -> Committed[CatalogState]:
        """Commit what ``decide`` wants, in a task of our own: a caller that goes away cancels
        nothing, one whose deadline passes is told ``unknown``. Scope is the caller's business."""
        await self.check_authority()

        def verdict(state: CatalogState, seq: int) -> Verdict:
            changes, answer = decide(state)
            if not changes:
                return Verdict((), answer)
            changes = [self._placed(state, change) for change in changes]
            drafted(state, seq, changes, self.configured)
            return Verdict(encode_changes(changes), answer)

        key_hash, body_sha256 = _identified(ctx, method, request)
        proposal: Proposal[CatalogState] = Proposal(
            decide=verdict,
            key_hash=key_hash,
            body_sha256=body_sha256,
            actor=ctx.principal.id,
            request_id=ctx.request_id,
            kind=kind,
        )
        task = asyncio.create_task(self.ledger.commit(proposal), name=f"commit {method}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await self._awaited(task, ctx.deadline)

    def residency(self, state: CatalogState, bucket: str) -> str:
        """What ``bucket`` is called now; "" for one that there is not, which the rules refuse."""
        if bucket in self.configured:
            return self.configured[bucket]
        return added_residency(state, bucket) or ""

    def _placed(self, state: CatalogState, change: StoredChange) -> StoredChange:
        """``change`` with the residency of its home put into a dataset to be made."""
        create = change.create if isinstance(change, ImportDataset) else change
        if not isinstance(create, CreateDataset) or create.residency:
            return change
        create = dataclasses.replace(create, residency=self.residency(state, create.bucket))
        if isinstance(change, ImportDataset):
            return dataclasses.replace(change, create=create)
        return create

    async def recall(
        self, ctx: Context, method: str, request: object
    ) -> Committed[CatalogState] | None:
        """What the same call with the same idempotency key came to, asked before any work is done
        for it: by now its objects may be gone and its plan another. Raises ``invalid`` (422)."""
        return await self.ledger.recall(*_identified(ctx, method, request))

    async def _awaited(
        self, task: asyncio.Task[Committed[CatalogState]], deadline: float | None
    ) -> Committed[CatalogState]:
        if deadline is None:
            return await asyncio.shield(task)
        timer = asyncio.create_task(self.clock.sleep(max(0.0, deadline - self.clock.monotonic())))
        try:
            await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        if task.done():
            return task.result()
        raise LakehouseError(
            ErrorKind.UNKNOWN,
            "the deadline passed before the outcome of the commit was known",
            commit_state="unknown",
            hint="repeat the request with the same idempotency key",
        )

    def _done(self, task: asyncio.Task[Committed[CatalogState]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is None and not task.result().no_op:
            self._committed_at = self.clock.monotonic()
        # A caller that went away need not fetch the error.
        error = None if task.cancelled() else task.exception()
        if isinstance(error, LakehouseError) and error.kind is ErrorKind.FENCED:
            self.fenced = error

    @property
    def idle_us(self) -> int:
        """Microseconds since the last commit was answered, or since the start, of a clock that
        nobody sets."""
        return int((self.clock.monotonic() - self._committed_at) * 1e6)

    @property
    def pending(self) -> int:
        """Commits asked for and not yet answered."""
        return len(self._tasks)

    async def drain(self) -> None:
        """Wait for the commits under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def result(self, committed: Committed[CatalogState], dataset_id: str) -> DatasetResult:
        """The dataset right after the commit; for a replayed one, as it was then."""
        dataset: DatasetState | None = committed.state.datasets.get(dataset_id)
        if dataset is None and committed.replayed:
            raise LakehouseError(
                ErrorKind.NOT_FOUND,
                "the dataset of this answer was purged since",
                dataset_id=dataset_id,
                version=committed.seq,
            )
        if dataset is None:
            raise no_such_dataset(committed.state, dataset_id)
        revision = dataset.at(committed.seq) or dataset.now
        created = bool(committed.answer.get("created", False)) and not committed.no_op
        return DatasetResult(dataset.view(revision), committed.seq, created)
