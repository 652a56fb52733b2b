"""Files below one folder, by object key: blocking, durable, and never outside that folder.

Every path is walked component by component with ``O_NOFOLLOW`` from an open folder, so neither a
link inside the root nor one swapped in meanwhile leads outside. Durability is bought in this
order: the bytes (fsync of the temporary file), the name (``link`` or ``rename``), then the folder
that holds the name, and the folder above for each folder that this process has not yet synced.

The root that was opened first is the only one: where another folder lies at its path later, or
none (a disk was unmounted, a backup moved in), every operation is refused until it is back.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.refs import check_key
from lakehouse.objectstore.arguments import key_taken, no_such_key, range_refused
from lakehouse.objectstore.port import ByteRange, ObjectMeta

TEMP: Final = ".tmp"
FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STALE_SECONDS: Final = 86_400
_KNOWNFOLDER_FLAGSS_MAX: Final = 65_536
_RACES_MAX: Final = 100

_KINDS: Final = {
    errno.ENAMETOOLONG: ErrorKind.INVALID,
    errno.EACCES: ErrorKind.FORBIDDEN,
    errno.EPERM: ErrorKind.FORBIDDEN,
    errno.EROFS: ErrorKind.FORBIDDEN,
    errno.ENOSPC: ErrorKind.EXHAUSTED,
    errno.EDQUOT: ErrorKind.EXHAUSTED,
    errno.EMFILE: ErrorKind.EXHAUSTED,
    errno.ENFILE: ErrorKind.EXHAUSTED,
}


@contextmanager
def translated(key: str) -> Iterator[None]:
    """The one place where an ``OSError`` becomes an error of ours."""
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "?")
        raise LakehouseError(
            _KINDS.get(error.errno or 0, ErrorKind.UNAVAILABLE),
            f"the local file system refused: {(error.strerror or 'no reason given').lower()}",
            key=key,
            errno=name,
        ) from error


def _clash(key: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID,
        "the key clashes with a folder, a file or a link of the local file system",
        key=key,
        hint="in a local directory no object may be named like a folder of other objects",
    )


def metadata(key: str, found: os.stat_result) -> ObjectMeta:
    etag = f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"
    return ObjectMeta(key, found.st_size, etag, found.st_mtime_ns // 1_000)


@dataclass(frozen=True, slots=True)
class TempFile:
    """An open temporary file: descriptors of its folder and itself, and its name."""

    folder: int
    fd: int
    name: str


class LocalTree:
    """Objects as files below ``root``; made on the first write, and never a second time.

    Args:
        root: absolute path of the folder; may itself be reached through links.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._counter = 0
        self._lock = threading.Lock()
        self._synced: set[str] = set()
        self._seen: tuple[int, int] | None = None
        self._held: weakref.finalize[[int], LocalTree] | None = None

    def release(self) -> None:
        """Let go of the root, so that its disk can be unmounted; it is still known again."""
        with self._lock:
            if self._held is not None:
                self._held()
                self._held = None

    # -- reading -----------------------------------------------------------------------------

    def open_object(self, key: str) -> tuple[int, os.stat_result]:
        """A descriptor of the object's file, which the caller closes, and its status."""
        with translated(key):
            try:
                parent, name = self._walk(key)
            except (FileNotFoundError, NotADirectoryError):
                raise no_such_key(key) from None
            try:
                fd = os.open(
                    name,
                    os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                    dir_fd=parent,
                )
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                    raise no_such_key(key) from None
                raise
            finally:
                os.close(parent)
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                os.close(fd)
                raise no_such_key(key)
            return fd, found

    def read(self, key: str, byte_range: ByteRange | None) -> bytes:
        fd, found = self.open_object(key)
        with translated(key):
            try:
                start, end = 0, found.st_size
                if byte_range is not None:
                    if byte_range.start >= end:
                        raise range_refused(key, byte_range, end)
                    start, end = byte_range.start, min(byte_range.end, end)
                data = _read_exactly(fd, start, end - start)
            finally:
                os.close(fd)
        if len(data) != end - start:
            raise LakehouseError(
                ErrorKind.CORRUPT,
                "the file ended early",
                key=key,
                truncated=True,
                wanted=end - start,
                got=len(data),
            )
        return data

    def head(self, key: str) -> ObjectMeta:
        fd, found = self.open_object(key)
        os.close(fd)
        return metadata(key, found)

    def listing(self, prefix: str, start_after: str, limit: int) -> list[ObjectMeta]:
        """Objects in byte order; folders before ``start_after`` are not entered."""
        found: list[ObjectMeta] = []
        with translated(prefix):
            try:
                fd = self.open_folder(prefix)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                    return []
                raise
            try:
                for meta in descend(fd, prefix, start_after):
                    found.append(meta)
                    if len(found) == limit:
                        break
            finally:
                os.close(fd)
        return found

    def open_folder(self, prefix: str) -> int:
        """A descriptor of the folder that ``prefix`` ("" or ending in a slash) names, which the
        caller closes. Raises ``OSError``."""
        fd = self._open_root()
        for part in prefix.split("/")[:-1]:
            above = fd
            try:
                fd = os.open(part, FOLDER_FLAGS, dir_fd=above)
            finally:
                os.close(above)
        return fd

    # -- writing -----------------------------------------------------------------------------

    def write(self, key: str, data: bytes, *, if_absent: bool) -> ObjectMeta:
        temp = self.open_temp(key)
        try:
            self.append(temp, data, key)
            return self.publish(key, temp, if_absent=if_absent)
        finally:
            self.discard(temp)

    def open_temp(self, key: str) -> TempFile:
        """A new temporary file for ``key``, to be given to ``discard`` in any case."""
        self._refuse_reserved(key)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with translated(key):
            folder = self._open_temp_folder()
            try:
                while True:
                    with self._lock:
                        self._counter += 1
                        name = f"{os.getpid()}-{self._counter}"
                    try:
                        return TempFile(folder, os.open(name, flags, 0o666, dir_fd=folder), name)
                    except FileExistsError:
                        continue  # left by a killed process that had the same id
            except OSError:
                os.close(folder)
                raise

    def append(self, temp: TempFile, data: bytes, key: str) -> None:
        """Add bytes to a temporary file."""
        with translated(key):
            _write_all(temp.fd, data)

    def publish(self, key: str, temp: TempFile, *, if_absent: bool) -> ObjectMeta:
        """Give the finished temporary file its name, durably and in one step."""
        with translated(key):
            os.fsync(temp.fd)
            for _ in range(_RACES_MAX):
                try:
                    parent, name = self._walk(key, create=True)
                except NotADirectoryError:
                    raise _clash(key) from None
                except FileNotFoundError:
                    self._forget_folders(key)
                    continue  # a folder on the way was emptied and removed by a delete
                try:
                    _give_name(key, temp, parent, name, if_absent=if_absent)
                    os.fsync(parent)
                except FileNotFoundError:
                    self._forget_folders(key)
                    continue
                finally:
                    os.close(parent)
                return metadata(key, os.fstat(temp.fd))
        raise LakehouseError(
            ErrorKind.UNAVAILABLE, "folders of the key keep being removed", key=key
        )

    def discard(self, temp: TempFile) -> None:
        """Close a temporary file and remove its temporary name."""
        os.close(temp.fd)
        with suppress(FileNotFoundError):
            os.unlink(temp.name, dir_fd=temp.folder)
        os.close(temp.folder)

    def remove(self, key: str) -> None:
        """Delete one object, and the folders that held nothing else."""
        self._refuse_reserved(key)
        with translated(key):
            try:
                parent, name = self._walk(key)
            except (FileNotFoundError, NotADirectoryError):
                return
            try:
                if stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=parent)
            except FileNotFoundError:
                return
            finally:
                os.close(parent)
            self._prune(key)

    def sweep(self, now_seconds: float) -> int:
        """Remove temporary files that nobody has written to for a day; returns how many."""
        removed = 0
        try:
            folder = self._open_temp_folder(create=False)
        except OSError:
            return removed
        try:
            for name in os.listdir(folder):
                with suppress(OSError):
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if now_seconds - found.st_mtime > _STALE_SECONDS:
                        os.unlink(name, dir_fd=folder)
                        removed += 1
        finally:
            os.close(folder)
        return removed

    # -- folders -----------------------------------------------------------------------------

    def _open_root(self, *, create: bool = False) -> int:
        """A descriptor of the root, which is the folder that was opened first.

        Raises ``unavailable`` where that one is gone or another is in its place, and
        ``FileNotFoundError`` where none was ever seen and none is to be made.
        """
        # Asked before: where two make it at once, the one that found none sees the other's after.
        seen = self._seen
        try:
            fd = os.open(self.root, FOLDER_FLAGS & ~os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            if seen is not None:
                raise self._swapped("is gone") from None
            if not create:
                raise
            _make_durably(self.root)
            fd = os.open(self.root, FOLDER_FLAGS & ~os.O_NOFOLLOW)
        status = os.fstat(fd)
        found = (status.st_dev, status.st_ino)
        with self._lock:
            if self._seen is None:
                self._seen = found
            if self._held is None and self._seen == found:
                # While it is open its number is not given to another folder.
                self._held = weakref.finalize(self, os.close, os.dup(fd))
        if found != self._seen:
            os.close(fd)
            raise self._swapped("is another folder than before")
        return fd

    def _swapped(self, what: str) -> LakehouseError:
        return LakehouseError(
            ErrorKind.UNAVAILABLE,
            f"the folder of the bucket {what}",
            path=self.root,
            hint="was its disk unmounted, or the folder moved or replaced? put it back, or stop"
            " the node; nothing is written meanwhile",
        )

    def _walk(self, key: str, *, create: bool = False) -> tuple[int, str]:
        """An open descriptor of the folder that holds ``key``, and the last component."""
        self._refuse_reserved(key)
        *folders, name = key.split("/")
        fd = self._open_root()
        path = ""
        try:
            for part in folders:
                path += part + "/"
                if create:
                    self._make_folder(fd, part, path)
                above = fd
                fd = os.open(part, FOLDER_FLAGS, dir_fd=above)
                os.close(above)
        except OSError:
            os.close(fd)
            raise
        return fd, name

    def _make_folder(self, above: int, part: str, path: str) -> None:
        if path in self._synced:
            return
        with suppress(FileExistsError):
            os.mkdir(part, dir_fd=above)
        # Also where it was there already: whoever made it may have died before syncing it.
        os.fsync(above)
        with self._lock:
            if len(self._synced) >= _KNOWNFOLDER_FLAGSS_MAX:
                self._synced.clear()
            self._synced.add(path)

    def _open_temp_folder(self, *, create: bool = True) -> int:
        root = self._open_root(create=create)
        try:
            if create:
                # Its own name need not last: what is in it never does.
                with suppress(FileExistsError):
                    os.mkdir(TEMP, dir_fd=root)
            return os.open(TEMP, FOLDER_FLAGS, dir_fd=root)
        finally:
            os.close(root)

    def _forget_folders(self, key: str) -> None:
        folders = key.split("/")[:-1]
        with self._lock:
            for count in range(1, len(folders) + 1):
                self._synced.discard("/".join(folders[:count]) + "/")

    def _prune(self, key: str) -> None:
        folders = key.split("/")[:-1]
        while folders:
            path = "/".join(folders) + "/"
            # Forgotten first: if it is made again, its name must be synced again.
            with self._lock:
                self._synced.discard(path)
            try:
                above, name = self._walk(path[:-1])
            except OSError:
                return
            try:
                os.rmdir(name, dir_fd=above)
            except OSError:
                return
            finally:
                os.close(above)
            folders.pop()

    def _refuse_reserved(self, key: str) -> None:
        if key.split("/", 1)[0] == TEMP:
            raise LakehouseError(
                ErrorKind.INVALID, f"keys below {TEMP}/ are reserved by local stores", key=key
            )


def _make_durably(folder: str) -> None:
    """Make ``folder`` and those above it; each new name is synced."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for new in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(new)
        above = os.open(os.path.dirname(new), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(above)
        finally:
            os.close(above)


def _give_name(key: str, temp: TempFile, parent: int, name: str, *, if_absent: bool) -> None:
    """``link`` fails if the name is taken, by anything; ``rename`` replaces a file."""
    if not if_absent:
        try:
            os.rename(temp.name, name, src_dir_fd=temp.folder, dst_dir_fd=parent)
        except (IsADirectoryError, NotADirectoryError):
            raise _clash(key) from None
        return
    try:
        os.link(temp.name, name, src_dir_fd=temp.folder, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        with suppress(FileNotFoundError):
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            if not stat.S_ISREG(mode):
                raise _clash(key) from None
        # Whoever gave the name may have died, or failed, before syncing it: "taken" is for good.
        os.fsync(parent)
        raise key_taken(key) from None


def names_below(fd: int, prefix: str, start_after: str) -> list[tuple[str, bool]]:
    """Keys of files and (ending in a slash) folders in an open folder, in byte order, with
    whether each is a folder; what lies wholly before ``start_after`` is left out."""
    names: list[tuple[str, bool]] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if not prefix and entry.name == TEMP:
                continue
            folder = entry.is_dir(follow_symlinks=False)
            if folder or entry.is_file(follow_symlinks=False):
                key = prefix + entry.name + ("/" if folder else "")
                if key > start_after or (folder and start_after.startswith(key)):
                    names.append((key, folder))
    names.sort()
    return names


def descend(fd: int, prefix: str, start_after: str) -> Iterator[ObjectMeta]:
    """The objects below an open folder whose key is ``prefix``, in byte order."""
    for key, folder in names_below(fd, prefix, start_after):
        name = key.removesuffix("/")[len(prefix) :]
        try:
            # Foreign files whose names could not be keys are not objects.
            check_key(key.removesuffix("/"))
            if folder:
                below = os.open(name, FOLDER_FLAGS, dir_fd=fd)
                try:
                    yield from descend(below, key, start_after)
                finally:
                    os.close(below)
            else:
                yield metadata(key, os.stat(name, dir_fd=fd, follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError, LakehouseError):
            continue


def _read_exactly(fd: int, start: int, size: int) -> bytes:
    """``size`` bytes from ``start``, or fewer if the file ends before."""
    first = os.pread(fd, size, start)
    if len(first) == size or not first:
        return first
    parts, got = [first], len(first)
    while got < size:
        part = os.pread(fd, size - got, start + got)
        if not part:
            break
        parts.append(part)
        got += len(part)
    return b"".join(parts)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
