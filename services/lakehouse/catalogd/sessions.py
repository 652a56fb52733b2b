"""Sessions of writers: opened and closed by commits, kept alive by heartbeats in memory."""

from __future__ import annotations

import asyncio

from lakehouse.catalogd.core import Core, Planned
from lakehouse.catalogd.state import CatalogState
from lakehouse.contracts.catalog import SessionRequest, SessionResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.supervise import Supervisor
from lakehouse.model.changes import CloseSession, OpenSession
from lakehouse.model.identity import Context, Principal, Scope

__all__ = ["SYSTEM", "Sessions"]

SYSTEM = Principal(id="catalogd", scopes=(Scope.OPERATOR,))


class Sessions:
    """A session that is not heard of for ``session_seconds`` on our own monotonic clock is ended.
    After a start every session has that long to be heard of again."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._heard: dict[str, float] = {}
        self._own = ""
        self._opening = asyncio.Lock()
        self._supervisor = Supervisor()
        self._supervisor.start("catalog sessions", self._watch)

    async def session(self, ctx: Context, request: SessionRequest) -> SessionResult:
        """Open, keep alive or close a session."""
        ctx.require(Scope.WRITE)
        if not request.session_id:
            return await self._open(ctx, request)
        if request.close:
            return await self._close(ctx, request)
        state = await self._core.read(ctx, Scope.WRITE)
        if request.session_id not in state.objects.sessions:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "the session has ended",
                session_id=request.session_id[:64],
                hint="open a new one and write unfinished objects again",
            )
        self._heard[request.session_id] = self._core.clock.monotonic()
        return SessionResult(request.session_id, state.version)

    async def _open(self, ctx: Context, request: SessionRequest) -> SessionResult:
        if request.close or not request.writer or not request.role:
            raise LakehouseError(ErrorKind.INVALID, "a session needs a writer and a role")
        session_id = self._core.ids.ulid()

        def decide(_: CatalogState) -> Planned:
            change = OpenSession(session_id, request.writer, request.role)
            return [change], {"session_id": session_id}

        done = await self._core.commit(ctx, "session", request, decide)
        opened = str(done.answer["session_id"])
        self._heard[opened] = self._core.clock.monotonic()
        return SessionResult(opened, done.seq)

    async def _close(self, ctx: Context, request: SessionRequest) -> SessionResult:
        def decide(state: CatalogState) -> Planned:
            if request.session_id not in state.objects.sessions:
                return (), {}
            return [CloseSession(request.session_id)], {}

        done = await self._core.commit(ctx, "session", request, decide)
        self._heard.pop(request.session_id, None)
        return SessionResult(request.session_id, done.seq)

    async def own(self) -> str:
        """The session of catalogd itself, opened when it first writes an object."""
        async with self._opening:
            if self._own not in self._core.ledger.state.objects.sessions:
                ctx = Context(principal=SYSTEM, request_id="catalog-session")
                opened = await self._open(ctx, SessionRequest(writer="catalogd", role="catalogd"))
                self._own = opened.session_id
            return self._own

    async def stop(self) -> None:
        """End the watch, and our own session with it."""
        await self._supervisor.stop()
        if self._own in self._core.ledger.state.objects.sessions:
            ctx = Context(principal=SYSTEM, request_id="catalog-session")
            try:
                await self._close(
                    ctx, SessionRequest("catalogd", "catalogd", self._own, close=True)
                )
            except LakehouseError:
                return  # it ends at the next start, for want of a heartbeat

    async def _watch(self) -> None:
        settings = self._core.settings
        while True:
            await self._core.clock.sleep(settings.session_check_seconds)
            try:
                await self._core.check_authority()
                await self._end_silent(settings.session_seconds)
            except LakehouseError:
                continue  # fenced or unavailable: those who ask are told, we look again

    async def _end_silent(self, seconds: float) -> None:
        now = self._core.clock.monotonic()
        live = self._core.ledger.state.objects.sessions
        if self._own:
            self._heard[self._own] = now
        self._heard = {each: self._heard.get(each, now) for each in live}
        for session_id, heard in list(self._heard.items()):
            if now - heard > seconds:
                ctx = Context(principal=SYSTEM, request_id="session-expired")
                request = SessionRequest("catalogd", "catalogd", session_id, close=True)
                await self._close(ctx, request)
