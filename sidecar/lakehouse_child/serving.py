"""Listen, say where, serve until told to stop or until nobody is left."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import uvicorn

_BACKLOG: Final = 128
_DRAIN_SECONDS: Final = 5
_PIECE: Final = 4096

Message = MutableMapping[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=0, help="port to listen at; 0 takes a free one")
    parser.add_argument("--standalone", action="store_true", help="go on when standard input ends")


def serve(load: Callable[[], Application], arguments: argparse.Namespace) -> None:
    """Return when a signal, or the end of standard input, has stopped the server.

    Tells ``{"port": ..}`` at once and ``{"ready": true}`` when all is loaded, a line each: who
    connects in between is kept waiting by the kernel, so several children can start together.
    """
    ending = threading.Event()
    if not arguments.standalone:
        threading.Thread(target=_watch_parent, args=(ending,), daemon=True).start()
    with _listen(arguments.host, arguments.port) as listener:
        _tell(port=listener.getsockname()[1])
        settings = uvicorn.Config(
            load(),
            loop="uvloop",
            http="httptools",
            ws="none",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
        _tell(ready=True)
        asyncio.run(_until(ending, uvicorn.Server(settings), listener))


async def _until(ending: threading.Event, server: uvicorn.Server, listener: socket.socket) -> None:
    async def watch() -> None:
        await asyncio.to_thread(ending.wait)
        server.should_exit = True

    watching = asyncio.create_task(watch())
    await server.serve([listener])
    ending.set()
    await watching


def _tell(**what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201


def _listen(host: str, port: int) -> socket.socket:
    # The protocol is named so that small answers are sent at once (TCP_NODELAY).
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        sys.exit(f"cannot listen at {host}:{port}: {error.strerror}")
    return listener


def _watch_parent(ending: threading.Event) -> None:
    """Nothing is ever sent here: the end of the stream is the end of the parent."""
    with contextlib.suppress(OSError):
        while os.read(0, _PIECE):
            pass
    ending.set()
    # Whatever computes and does not look up must not keep an orphan alive.
    threading.Timer(_DRAIN_SECONDS + 1, os._exit, (1,)).start()
