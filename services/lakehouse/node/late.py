"""The query service, loaded once the node already answers.

Its SQL parser and its first worker are more than a third of a cold start. Whoever queries within
that second waits for it; nobody else does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from lakehouse.contracts.query import (
    CancelRequest,
    CancelResult,
    QueryRequest,
    QueryService,
    QueryStream,
    RunningRequest,
    RunningResult,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.figures import Readout
from lakehouse.model.identity import Context


class Loaded(QueryService, Protocol):
    """A query service that can be ended."""

    def figures(self) -> Iterable[Readout]: ...

    async def close(self) -> None: ...


class LateQuery:
    """``QueryService`` that waits for the real one.

    Args:
        load: makes and starts the service; called once, by ``load``.
    """

    def __init__(self, load: Callable[[], Awaitable[Loaded]]) -> None:
        self._load = load
        self._service: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()

    async def load(self) -> None:
        """Load the service; raises why it cannot, to whoever waits for it as well."""
        try:
            self._service.set_result(await self._load())
        except BaseException as error:
            self._give_up(error)
            raise

    async def run(self, ctx: Context, request: QueryRequest) -> QueryStream:
        return await (await self._loaded()).run(ctx, request)

    async def running(self, ctx: Context, request: RunningRequest) -> RunningResult:
        return await (await self._loaded()).running(ctx, request)

    async def cancel(self, ctx: Context, request: CancelRequest) -> CancelResult:
        return await (await self._loaded()).cancel(ctx, request)

    def figures(self) -> Iterable[Readout]:
        """The service's, once it has come to be."""
        if self._service.done() and self._service.exception() is None:
            return self._service.result().figures()
        return ()

    async def close(self) -> None:
        """End the service if it has come to be; who waits for it is told."""
        if self._service.done() and self._service.exception() is None:
            await self._service.result().close()
        self._give_up(None)

    def _give_up(self, error: BaseException | None) -> None:
        if self._service.done():
            return
        told = (
            error
            if isinstance(error, LakehouseError)
            else LakehouseError(ErrorKind.UNAVAILABLE, "the query service did not start")
        )
        self._service.set_exception(told)
        # Whether anybody waits or not, the failure has been seen.
        self._service.exception()

    async def _loaded(self) -> Loaded:
        return await asyncio.shield(self._service)
