"""Listen, say where, serve until told to stop or until nobody is left."""

from __future__ import annotations

import argparse
import asyncio
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


def serve(application: Application, arguments: argparse.Namespace) -> None:
    """Return when a signal, or the end of standard input, has stopped the server."""
    with _listen(arguments.host, arguments.port) as listener:
        settings = uvicorn.Config(
            application,
            loop="uvloop",
            http="httptools",
            ws="none",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
        server = uvicorn.Server(settings)
        if not arguments.standalone:
            threading.Thread(target=_watch_parent, args=(server,), daemon=True).start()
        # Whoever connects from here on is answered: the kernel holds it until the server looks.
        print(json.dumps({"port": listener.getsockname()[1], "pid": os.getpid()}), flush=True)  # noqa: T201
        asyncio.run(server.serve([listener]))


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


def _watch_parent(server: uvicorn.Server) -> None:
    """Nothing is ever sent here: the end of the stream is the end of the parent."""
    try:
        while os.read(0, _PIECE):
            pass
    except OSError:
        pass
    server.should_exit = True
    # A computation that does not look up must not keep an orphan alive.
    threading.Timer(_DRAIN_SECONDS + 1, os._exit, (1,)).start()
