"""A folder of files as objects: put with a list of what is in it, and brought back verified.

The list stands in the folder too, and is told by its SHA-256; each file by the list. What does not
match is never handed to a library.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import orjson

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.refs import check_key
from lakehouse.objectstore.port import ObjectStore, StreamingReads, StreamingWrites

__all__ = ["LIST", "FolderInfo", "fetch_folder", "put_folder"]

LIST: Final = "files.json"
_CHUNK: Final = 8 << 20
_LIST_BYTES_MAX: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class FolderInfo:
    """``size_bytes`` of all files, without the list; ``sha256`` of the list."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _File:
    """``name``: of the path below the folder, with slashes."""

    name: str
    size_bytes: int
    sha256: str


async def put_folder(store: ObjectStore, key: str, folder: Path, threads: Executor) -> FolderInfo:
    """Put everything below ``folder`` at ``key``, which ends in a slash; the list comes last.

    Raises as the store does.
    """
    files = await run_in(threads, _listed, folder)
    for file in files:
        await _put(store, key + file.name, folder / file.name, file.size_bytes, threads)
    listed = {"files": [[file.name, file.size_bytes, file.sha256] for file in files]}
    data = orjson.dumps(listed)
    await store.put(key + LIST, data)
    size = sum(file.size_bytes for file in files)
    return FolderInfo(size, hashlib.sha256(data).hexdigest())


async def fetch_folder(
    store: ObjectStore, key: str, info: FolderInfo, folder: Path, threads: Executor
) -> None:
    """The files at ``key`` into ``folder``, which is empty. Raises ``corrupt`` for what is not what
    was put, ``exhausted`` where the disk is full, and as the store does."""
    if (await store.head(key + LIST)).size_bytes > _LIST_BYTES_MAX:
        raise _damaged(key, "its list is too long")
    data = await store.get(key + LIST)
    if hashlib.sha256(data).hexdigest() != info.sha256:
        raise _damaged(key, "its list is not the one that was written")
    files = [_File(check_key(name), size, sha) for name, size, sha in orjson.loads(data)["files"]]
    if sum(file.size_bytes for file in files) != info.size_bytes:
        raise _damaged(key, "its list has files of another size")
    for file in files:
        await _fetch(store, key, file, folder / file.name, threads)


def _listed(folder: Path) -> list[_File]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = []
    for path in paths:
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        files.append(_File(path.relative_to(folder).as_posix(), path.stat().st_size, digest))
    return files


async def _put(store: ObjectStore, key: str, path: Path, size: int, threads: Executor) -> None:
    if size <= _CHUNK or not isinstance(store, StreamingWrites):
        await store.put(key, await run_in(threads, path.read_bytes))
        return

    async def pieces() -> AsyncIterator[bytes]:
        with path.open("rb") as opened:
            while piece := await run_in(threads, opened.read, _CHUNK):
                yield piece

    await store.put_stream(key, pieces())


async def _fetch(store: ObjectStore, key: str, file: _File, path: Path, threads: Executor) -> None:
    digest, size = hashlib.sha256(), 0
    opened = await run_in(threads, _created, path)
    try:
        async for chunk in _chunks(store, key + file.name):
            size += len(chunk)
            if size > file.size_bytes:
                break
            await run_in(threads, _write, opened, digest, chunk)
    finally:
        await run_in(threads, opened.close)
    if size != file.size_bytes or digest.hexdigest() != file.sha256:
        raise _damaged(key + file.name, "its bytes are not those that were written")


async def _chunks(store: ObjectStore, key: str) -> AsyncIterator[bytes]:
    if isinstance(store, StreamingReads):
        async for chunk in store.stream(key):
            yield chunk
            await asyncio.sleep(0)
    else:
        yield await store.get(key)


def _created(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb", buffering=0)
    except OSError as error:
        raise _unwritable(path, error) from error


def _write(opened: IO[bytes], digest: Any, chunk: bytes) -> None:
    digest.update(chunk)
    try:
        opened.write(chunk)
    except OSError as error:
        raise _unwritable(Path(opened.name), error) from error


def _unwritable(path: Path, error: OSError) -> LakehouseError:
    return LakehouseError(
        ErrorKind.EXHAUSTED,
        "a search structure cannot be kept here",
        path=str(path),
        reason=error.strerror or str(error)[:200],
        hint="see vectors.cache_dir in the configuration",
    )


def _damaged(key: str, reason: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CORRUPT,
        "a search structure is damaged",
        key=key,
        reason=reason,
        hint="it is built anew from the rows",
    )
