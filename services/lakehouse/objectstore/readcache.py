"""Verified local copies of objects: a bounded folder that may be deleted at any time.

An object's SHA-256 is checked once, on entry; the file is named by it. A file bucket is read in
place after one streamed hash a process, remembered as long as path, size, times and inode stay. One
whose files do not answer is asked as any other bucket is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import DataFile
from lakehouse.objectstore.in_place import Beat, InPlace, SilentError
from lakehouse.objectstore.port import LocalFiles, ObjectStore
from lakehouse.objectstore.rescue import COPIES, KnownObject, KnownReads, Stores

R = TypeVar("R")
_HASH_BYTES: Final = 1 << 20
# So many files of that size take a thread some milliseconds.
_TOGETHER: Final = 64
_SMALL_BYTES: Final = 64 << 10
_Identity = tuple[int, ...]
_Seen = tuple[_Identity, str, int]


@dataclass(frozen=True, slots=True)
class Local:
    """Verified copies of objects, in order. ``served_from``: for the objects fetched now, the
    places of the rescue bucket (``rescue/<bucket>``) that answered for their own, sorted."""

    paths: list[str]
    served_from: tuple[str, ...] = ()


def _corrupt(file: DataFile, found: str, size: int) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CORRUPT,
        "an object is not what the catalog says it is",
        bucket=file.bucket,
        key=file.key,
        sha256_expected=file.sha256,
        sha256_found=found,
        size_expected=file.size_bytes,
        size_found=size,
        hint="run catalog fsck --deep, restore the object from a backup",
    )


def hash_file(path: str, beat: Beat) -> tuple[str, int]:
    """SHA-256 (hex) and size of a file, streamed; ``beat`` is called with each block."""
    digest = hashlib.sha256()
    size = 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_HASH_BYTES):
            digest.update(block)
            size += len(block)
            beat()
    return digest.hexdigest(), size


class ReadCache:
    """Local paths of objects. ``size_bytes`` stays at or below ``bytes_max`` but for files that
    running queries hold. ``setting``: what the bound is called, for who has to raise it."""

    def __init__(
        self,
        folder: Path,
        bytes_max: int,
        stores: Stores,
        fetches_max: int,
        known: KnownReads,
        setting: str = "query.cache_bytes_max",
    ) -> None:
        self._folder = folder
        self._setting = setting
        self._known = known
        self._opened: dict[str, tuple[ObjectStore, LocalFiles | None]] = {}
        self._bytes_max = bytes_max
        self._stores = stores
        # A bucket each: one that hangs must not hold the places of the others.
        self._slots = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(fetches_max))
        self._entries: OrderedDict[str, int] = OrderedDict()
        self._used: Counter[str] = Counter()
        self._coming: dict[str, asyncio.Task[tuple[str, str]]] = {}
        self._in_place: dict[str, tuple[_Identity, str]] = {}
        self._threads = defaultdict[str, InPlace](lambda: InPlace(fetches_max))
        self.size_bytes = 0
        self.fetches = 0

    def store(self, bucket: str) -> tuple[ObjectStore, LocalFiles | None]:
        """The bucket and, if its objects are local files, that capability."""
        store, known = self._stores.get(bucket), self._opened.get(bucket)
        # A bucket may be given up and its name be given to another.
        if known is None or known[0] is not store:
            known = (store, store if isinstance(store, LocalFiles) else None)
            self._opened[bucket] = known
        return known

    @contextlib.contextmanager
    def held(self, files: Sequence[DataFile]) -> Iterator[None]:
        """Keep the local copies of ``files`` for as long as a query runs."""
        names = [file.sha256 for file in files]
        self._used.update(names)
        try:
            yield
        finally:
            self._used.subtract(names)
            for name in names:
                if self._used[name] <= 0:
                    del self._used[name]
            if self.size_bytes > self._bytes_max:
                self._evict()

    async def paths(self, files: Sequence[DataFile]) -> Local:
        """Local paths of ``files``, in order; call it within ``held``.

        Raises ``corrupt`` naming the object whose bytes are not those of the catalog;
        ``unavailable`` if a bucket cannot be read or one object is larger than the cache.
        """
        found = await self.paths_now(files)
        missing = [index for index, path in enumerate(found) if path is None]
        served_from: set[str] = set()
        if len(missing) > 1:
            found, silent = await self._verify_together(files, found)
            missing = [index for index in missing if found[index] is None]
        else:
            silent = frozenset[str]()
        if missing:
            tasks = [self._join(files[index], silent) for index in missing]
            for index, (path, origin) in zip(missing, await asyncio.gather(*tasks), strict=True):
                found[index] = path
                served_from.add(origin)
        served_from.discard("")
        paths = [path for path in found if path is not None]
        return Local(paths, tuple(sorted(served_from)))

    async def paths_now(self, files: Sequence[DataFile]) -> list[str | None]:
        """The paths of verified copies that are there now, in order; None for the others."""
        found = [self._cached(file) for file in files]
        known: dict[str, dict[str, list[int]]] = {}
        for index, file in enumerate(files):
            local = None if found[index] else self.store(file.bucket)[1]
            if local is not None:
                path = local.local_path(file.key)
                if self._in_place.get(path, ((), ""))[1] == file.sha256:
                    known.setdefault(file.bucket, {}).setdefault(path, []).append(index)
        for bucket, indexes in known.items():
            unchanged = await self._unchanged(bucket, list(indexes))
            for path in unchanged:
                for index in indexes[path]:
                    found[index] = path
        return found

    def _cached(self, file: DataFile) -> str | None:
        if file.sha256 not in self._entries:
            return None
        self._entries.move_to_end(file.sha256)
        return str(self._folder / f"{file.sha256}.parquet")

    async def _unchanged(self, bucket: str, paths: list[str]) -> list[str]:
        """Those of ``paths`` whose files are as they were when they were hashed."""
        try:
            seen = await self.run_in_place(bucket, partial(_identities, paths))
        except SilentError:
            return []
        pairs = zip(paths, seen, strict=True)
        return [path for path, one in pairs if self._in_place.get(path, ((), ""))[0] == one]

    async def run_in_place(self, bucket: str, function: Callable[[Beat], R]) -> R:
        """Run what touches files of ``bucket`` in its threads. Raises as ``InPlace.run``."""
        return await self._threads[bucket].run(function)

    def close(self) -> None:
        """Let the threads go."""
        for threads in self._threads.values():
            threads.close()

    async def _verify_together(
        self, files: Sequence[DataFile], found: list[str | None]
    ) -> tuple[list[str | None], frozenset[str]]:
        """``found`` with the small ones among what is missing of file buckets, many in one go: what
        a thread costs counts there, not what the hash costs. And the buckets that were silent."""
        small: dict[str, list[int]] = {}
        for index, file in enumerate(files):
            near = found[index] is not None or file.sha256 in self._coming
            if not near and file.size_bytes <= _SMALL_BYTES and self.store(file.bucket)[1]:
                small.setdefault(file.bucket, []).append(index)
        found, silent = list(found), set[str]()
        for bucket, indexes in small.items():
            for start in range(0, len(indexes), _TOGETHER):
                some = indexes[start : start + _TOGETHER]
                try:
                    paths = await self._verified(bucket, [files[index] for index in some])
                except SilentError:
                    silent.add(bucket)
                    break
                for index, path in zip(some, paths, strict=True):
                    found[index] = path
        return found, frozenset(silent)

    async def _verified(self, bucket: str, files: Sequence[DataFile]) -> list[str | None]:
        """As ``_verify_in_place`` for each of ``files`` of one bucket. Raises ``SilentError``."""
        local = self.store(bucket)[1]
        assert local is not None
        paths = [local.local_path(file.key) for file in files]

        def look(beat: Beat) -> list[_Seen | None]:
            return [_look(path, beat) for path in paths]

        async with self._slots[bucket]:
            seen = await self.run_in_place(bucket, look)
        found: list[str | None] = []
        for file, path, one in zip(files, paths, seen, strict=True):
            if one is not None and one[1] != file.sha256:
                raise _corrupt(file, one[1], one[2])
            if one is not None:
                self._in_place[path] = (one[0], file.sha256)
            found.append(None if one is None else path)
        return found

    async def _join(self, file: DataFile, silent: frozenset[str]) -> tuple[str, str]:
        """Fetch once however many ask; all that wait for it are told where it came from. Buckets
        that are ``silent`` are not asked for the file itself."""
        task = self._coming.get(file.sha256)
        if task is None:
            task = asyncio.create_task(self._bring(file, in_place=file.bucket not in silent))
            self._coming[file.sha256] = task
            task.add_done_callback(lambda _: self._coming.pop(file.sha256, None))
        return await asyncio.shield(task)

    async def _bring(self, file: DataFile, *, in_place: bool) -> tuple[str, str]:
        async with self._slots[file.bucket]:
            local = self.store(file.bucket)[1]
            if local is not None and in_place:
                path = await self._verify_in_place(local.local_path(file.key), file)
                if path is not None:
                    return path, ""
            return await self._fetch(file)

    async def _verify_in_place(self, path: str, file: DataFile) -> str | None:
        """``path`` if the object's own file is there and right; None if it cannot be read or
        is silent, which the bucket has to explain."""

        try:
            seen = await self.run_in_place(file.bucket, partial(_look, path))
        except SilentError:
            return None
        if seen is None:
            return None
        before, found, size = seen
        if found != file.sha256:
            raise _corrupt(file, found, size)
        self._in_place[path] = (before, file.sha256)
        return path

    async def _fetch(self, file: DataFile) -> tuple[str, str]:
        path = self._folder / f"{file.sha256}.parquet"
        self._make_room(file)
        self.fetches += 1
        wanted = KnownObject(file.bucket, file.key, file.size_bytes, file.sha256)
        try:
            rescue = await self._known.to_file(wanted, path)
            # The catalog's figure may be a guess, as of an object beside another.
            size = path.stat().st_size
        except LakehouseError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                raise LakehouseError(
                    ErrorKind.CORRUPT,
                    "an object that the catalog names is missing",
                    bucket=file.bucket,
                    key=file.key,
                    hint="run catalog fsck",
                ) from error
            fields = {"bucket": file.bucket, "key": file.key, **error.fields}
            raise LakehouseError(error.kind, error.message, **fields) from error
        self._entries[file.sha256] = size
        self.size_bytes += size
        self._evict()
        return str(path), f"{COPIES}{file.bucket}" if rescue else ""

    def _make_room(self, file: DataFile) -> None:
        if file.size_bytes > self._bytes_max:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE,
                "an object is larger than the read cache",
                key=file.key,
                size_bytes=file.size_bytes,
                cache_bytes_max=self._bytes_max,
                hint=f"raise {self._setting}",
            )

    def _evict(self) -> None:
        """Drop the least recently used copies that no query holds, down to the bound."""
        for name in list(self._entries):
            if self.size_bytes <= self._bytes_max:
                return
            if self._used[name] > 0:
                continue
            self.size_bytes -= self._entries.pop(name)
            with contextlib.suppress(OSError):
                (self._folder / f"{name}.parquet").unlink()


def _look(path: str, beat: Beat) -> _Seen | None:
    """What a file is and holds; None if it cannot be read."""
    try:
        return (_identity(path), *hash_file(path, beat))
    except OSError:
        return None


def _identities(paths: list[str], beat: Beat) -> list[_Identity]:
    found = []
    for path in paths:
        found.append(_identity(path))
        beat()
    return found


def _identity(path: str) -> _Identity:
    """What changes when somebody writes to a file."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
