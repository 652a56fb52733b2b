"""The node's two listeners, HTTP and gRPC, on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.node.settings import ListenSettings
from lakehouse.node.values import host_and_port

if TYPE_CHECKING:
    import grpc
    import uvicorn

_BACKLOG: Final = 1024
_KEEP_ALIVE_SECONDS: Final = 75
# Without this option two nodes may listen on one port and share its connections in silence.
GRPC_OPTIONS: Final = (("grpc.so_reuseport", 0),)


def bind_http(address: str) -> socket.socket:
    """A listening socket. Raises ``unavailable`` if the port is taken.

    IPPROTO_TCP is stated: with a protocol of 0 the event loop leaves Nagle's algorithm on, and a
    small GET takes 44 ms.
    """
    host, port = host_and_port("gateway.http", address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _taken("gateway.http", address, error) from error
    listener.setblocking(False)
    return listener


def reserve_grpc(address: str) -> str:
    """``host:port`` with a port that is free now; raises ``unavailable`` if it is taken.

    grpc binds by itself and only when everything behind it is there; this finds out early.
    """
    host, port = host_and_port("gateway.grpc", address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        except OSError as error:
            raise _taken("gateway.grpc", address, error) from error
        return (
            f"[{host}]:{port or probe.getsockname()[1]}"
            if family == socket.AF_INET6
            else (f"{host}:{port or probe.getsockname()[1]}")
        )


class Servers:
    """Both listeners of a node; started when there is something to serve."""

    def __init__(self, listen: ListenSettings, with_http: bool) -> None:
        self._socket = bind_http(listen.http) if with_http else None
        self.grpc_address = reserve_grpc(listen.grpc)
        self._uvicorn: uvicorn.Server | None = None
        self._http: asyncio.Task[None] | None = None
        self._grpc: grpc.aio.Server | None = None

    @property
    def http_address(self) -> str:
        """``host:port`` really bound; "" without HTTP."""
        if self._socket is None:
            return ""
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start_grpc(self, server: grpc.aio.Server) -> None:
        """Raises ``unavailable`` if the port was taken meanwhile."""
        try:
            server.add_insecure_port(self.grpc_address)
        except RuntimeError as error:
            raise _taken("gateway.grpc", self.grpc_address, error) from error
        await server.start()
        self._grpc = server

    async def start_http(self, app: Any, drain_seconds: float) -> None:
        """Serve ``app`` on the socket that was bound; returns when it answers."""
        import uvicorn

        from lakehouse.gateway.wire import BoundedHttp

        class Quiet(uvicorn.Server):
            @contextlib.contextmanager
            def capture_signals(self) -> Iterator[None]:
                # Signals belong to the node, which has more to close than this listener.
                yield

        assert self._socket is not None
        config = uvicorn.Config(
            app,
            loop="none",
            http=BoundedHttp,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, int(drain_seconds)),
        )
        self._uvicorn = Quiet(config)
        self._http = asyncio.create_task(self._uvicorn.serve(sockets=[self._socket]), name="http")
        while not self._uvicorn.started:
            if self._http.done():
                await self._http
                raise LakehouseError(ErrorKind.INTERNAL, "the http listener ended at its start")
            await asyncio.sleep(0.005)

    async def stop(self, drain_seconds: float) -> None:
        """Stop taking requests, let running ones finish within ``drain_seconds``; idempotent."""
        waiting = []
        if self._uvicorn is not None and self._http is not None:
            self._uvicorn.should_exit = True
            waiting.append(asyncio.ensure_future(self._http))
        if self._grpc is not None:
            waiting.append(asyncio.ensure_future(self._grpc.stop(drain_seconds)))
        await asyncio.gather(*waiting, return_exceptions=True)
        self._uvicorn = self._http = self._grpc = None
        if self._socket is not None:
            self._socket.close()


def _taken(key: str, address: str, error: Exception) -> LakehouseError:
    return LakehouseError(
        ErrorKind.UNAVAILABLE,
        f"cannot listen on {address}",
        key=key,
        reason=str(error),
        hint=f"stop what listens there, or set {key} to another address",
    )
