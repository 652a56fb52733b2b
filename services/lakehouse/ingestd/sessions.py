"""The writing session of this process: opened at start, kept alive, renewed, closed at stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from lakehouse.contracts.catalog import CatalogService, SessionRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.model.identity import Context, Principal, Scope

INGESTD: Final = Principal(id="ingestd", scopes=(Scope.WRITE,))
_ROLE: Final = "ingestd"


class WriterSession:
    """Objects are written below the session's id; a session that has ended can add none.

    An hourly renewal opens a new session; the old one is closed when the last ingest that writes
    under it is done.
    """

    def __init__(
        self, settings: IngestSettings, catalog: CatalogService, clock: Clock, ids: Ids
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._clock = clock
        self._ids = ids
        self._current = ""
        self._opened_at = 0.0
        self._users: Counter[str] = Counter()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to keep sessions alive; the first is opened when it is needed."""
        self._task = asyncio.create_task(self._keep_alive(), name="ingest session")

    async def close(self) -> None:
        """End the session. A catalog that cannot be reached ends it by itself, for silence."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        for session_id in {self._current, *self._users} - {""}:
            with contextlib.suppress(LakehouseError):
                await self._ask(session_id, close=True)
        self._current = ""
        self._users.clear()

    @asynccontextmanager
    async def writing(self, deadline: float | None = None) -> AsyncIterator[str]:
        """A live session's id, held open for the length of the block.

        Raises ``timeout`` if there is none by ``deadline``, in seconds of the monotonic clock.
        """
        session_id = await self._live_by(deadline)
        self._users[session_id] += 1
        try:
            yield session_id
        finally:
            self._users[session_id] -= 1
            if not self._users[session_id]:
                del self._users[session_id]
                if session_id != self._current:
                    with contextlib.suppress(LakehouseError):
                        await self._ask(session_id, close=True)

    def lost(self, session_id: str) -> None:
        """The catalog says that it has ended: the next user opens another."""
        if session_id == self._current:
            self._current = ""

    async def _live_by(self, deadline: float | None) -> str:
        if deadline is None:
            return await self._live()
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                return await self._live()
        except TimeoutError as error:
            raise LakehouseError(
                ErrorKind.TIMEOUT,
                "the deadline passed before anything could be written",
                hint="the primary bucket may be down: see /storage/errors",
            ) from error

    async def _live(self) -> str:
        async with self._lock:
            age = self._clock.monotonic() - self._opened_at
            if self._current and age < self._settings.session_seconds:
                return self._current
            old = self._current
            self._current = await self._ask("")
            self._opened_at = self._clock.monotonic()
            if old and old not in self._users:
                with contextlib.suppress(LakehouseError):
                    await self._ask(old, close=True)
            return self._current

    async def _ask(self, session_id: str, close: bool = False) -> str:
        ctx = Context(principal=INGESTD, request_id=self._ids.ulid())
        request = SessionRequest(self._settings.writer, _ROLE, session_id, close)
        return (await self._catalog.session(ctx, request)).session_id

    async def _keep_alive(self) -> None:
        while True:
            await self._clock.sleep(self._settings.heartbeat_seconds)
            for session_id in {self._current, *self._users} - {""}:
                try:
                    await self._ask(session_id)
                except LakehouseError as error:
                    # Anything else may pass: the catalog waits for a minute of heartbeats.
                    if error.kind is ErrorKind.CONFLICT:
                        self.lost(session_id)
