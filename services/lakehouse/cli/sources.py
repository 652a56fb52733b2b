"""Files and standard input as chunks, and a bar that shows how far they are."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from lakehouse.errors import ErrorKind, LakehouseError

_CHUNK_BYTES: Final = 1 << 20


def open_source(source: str) -> tuple[int | None, BinaryIO]:
    """The size if it is known, and the bytes; "-" is standard input. Raises ``not_found``."""
    if source == "-":
        # Without a buffer there is no lock that a thread could hold while the process ends.
        return None, open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    path = Path(source)
    try:
        return path.stat().st_size, path.open("rb", buffering=0)
    except OSError as error:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "the file cannot be read",
            path=source,
            reason=(error.strerror or "").lower(),
        ) from error


async def chunks_of(stream: BinaryIO, advance: Callable[[int], None]) -> AsyncIterator[bytes]:
    """The bytes of ``stream``, which is closed in the end; ``advance`` is told of each chunk."""
    with stream:
        while chunk := await _read(stream):
            yield chunk
            advance(len(chunk))


async def _read(stream: BinaryIO) -> bytes:
    """The next bytes. Read by a daemon: an interrupt must not wait for a terminal or a pipe."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def settle(chunk: bytes, error: OSError | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(chunk)
        else:
            done.set_exception(error)

    def read() -> None:
        chunk, failed = b"", None
        try:
            chunk = stream.read(_CHUNK_BYTES)
        except OSError as error:
            failed = error
        # The loop may be closed by now: then nobody waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, chunk, failed)

    threading.Thread(target=read, daemon=True).start()
    return await done


@contextmanager
def progress(wanted: bool, size: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where it is wanted and somebody may be watching."""
    if not wanted or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    bar = Progress(
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=size)
        yield lambda count: bar.advance(task, count)
