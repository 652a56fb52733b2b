"""A server that does not wait for streams that have no end of their own.

A watch over health and a session of reflection last for as long as their client likes; a graceful
stop would give all its time to them. They are told to end as soon as the server begins to stop;
calls that do some work keep the grace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final

import grpc
from grpc_reflection.v1alpha import reflection

_AIO: Final[Any] = reflection.aio  # type: ignore[attr-defined]


class Leaving:
    """Set once, when the server begins to stop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def begin(self) -> None:
        """Tell everybody who listens."""
        self._event.set()

    async def or_result(self, work: Any) -> Any:
        """What ``work`` comes to; None if the server is to stop before."""
        working = asyncio.ensure_future(work)
        waiting = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            waiting.cancel()
            if not working.done():
                working.cancel()
            await asyncio.gather(working, waiting, return_exceptions=True)


class DrainingServer(grpc.aio.Server):
    """``server``, with ``leaving`` told before it stops."""

    def __init__(self, server: grpc.aio.Server, leaving: Leaving) -> None:
        self._server: Any = server
        self._leaving = leaving

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        self._server.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Any]
    ) -> None:
        self._server.add_registered_method_handlers(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        port: int = self._server.add_insecure_port(address)
        return port

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        port: int = self._server.add_secure_port(address, server_credentials)
        return port

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float | None = None) -> None:
        """Take no more calls; let those that do some work finish within ``grace`` seconds."""
        self._leaving.begin()
        await self._server.stop(grace)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        ended: bool = await self._server.wait_for_termination(timeout)
        return ended


class Reflection(_AIO.ReflectionServicer):  # type: ignore[misc]
    """The library's, whose sessions end when the server stops."""

    def __init__(self, names: Sequence[str], leaving: Leaving) -> None:
        super().__init__(names)
        self._leaving = leaving

    async def ServerReflectionInfo(  # noqa: N802 - the library's name
        self, request_iterator: AsyncIterator[Any], unused_context: Any
    ) -> AsyncIterator[Any]:
        questions = self._until_leaving(request_iterator)
        async for answer in super().ServerReflectionInfo(questions, unused_context):
            yield answer

    async def _until_leaving(self, questions: AsyncIterator[Any]) -> AsyncIterator[Any]:
        while True:
            question = await self._leaving.or_result(anext(questions, None))
            if question is None:
                return
            yield question
