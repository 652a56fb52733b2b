"""Reads of objects whose content is known, from their own bucket or else from the rescue bucket.

An object is asked for in its own bucket, with all the retries there are. Only where that bucket
does not answer (timeout, 5xx, refused, cut off, breaker open) is the copy asked for that stands at
``rescue/<bucket>/<key>`` of the rescue bucket. Never for an object that is gone (an erased one must
not come back) or forbidden, and never for what is not known by its SHA-256: the ledger, logs,
``store.json``. Nothing is handed out before its hash was checked. Writes know nothing of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.model.refs import ObjectRef, check_foreign_key, check_key
from lakehouse.objectstore.operations import Operation, current_operation, operation
from lakehouse.objectstore.port import ObjectStore, StreamingReads

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "STREAM_ABOVE_BYTES",
    "KnownObject",
    "KnownReads",
    "RescueSettings",
    "Stores",
    "may_be_rescued",
    "place_of",
    "rescue_key",
]

log = logging.getLogger(__name__)

COPIES: Final = "rescue/"
STREAM_ABOVE_BYTES: Final = 16 << 20
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_BUCKET: Final = re.compile(r"[^/]+")
_UNANSWERED: Final = frozenset({ErrorKind.TIMEOUT, ErrorKind.UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class RescueSettings:
    """Section ``rescue``.

    Attributes:
        bucket: name of the bucket that holds the copies; "" is none, and nothing is copied.
        patience_seconds: a read whose own bucket sends nothing for so long asks the copy as well.
        interval_seconds: between looks at what the catalog has that is new or given up.
        concurrency: objects copied at once.
        bandwidth_bytes_max: bytes a second that copying may read; 0 is no bound.
        sweep_seconds: between comparisons of all copies with the catalog; one comes at each start.
        verify_objects: copies an hour, drawn at random, that are read back and hashed.
    """

    bucket: str = ""
    patience_seconds: float = 10.0
    interval_seconds: float = 5.0
    concurrency: int = 4
    bandwidth_bytes_max: int = 0
    sweep_seconds: float = 86_400.0
    verify_objects: int = 20


@dataclass(frozen=True, slots=True)
class KnownObject:
    """An immutable object with the size and the SHA-256 (lower-case hex) that it must have."""

    bucket: str
    key: str
    size_bytes: int
    sha256: str


class Stores(Protocol):
    """Buckets by name."""

    def get(self, name: str) -> ObjectStore: ...


def rescue_key(bucket: str, key: str) -> str:
    """Where the copy of an object stands in the rescue bucket; the one door to that place.

    Raises ``forbidden`` for what is never copied nor rescued: the ledger, logs, ``store.json`` and
    everything else that is not a data object or a user's; ``invalid`` for a name that is too long.
    """
    if not _BUCKET.fullmatch(bucket):
        raise LakehouseError(ErrorKind.INVALID, "no bucket has such a name", bucket=bucket[:80])
    if not key.startswith("datasets/"):
        check_foreign_key(key)
    return check_key(f"{COPIES}{bucket}/{check_key(key)}")


def place_of(copy: str) -> tuple[str, str] | None:
    """The bucket and key whose copy ``copy`` is; None for a key that is no copy's."""
    parts = copy.split("/", 2)
    return (parts[1], parts[2]) if len(parts) == 3 and f"{parts[0]}/" == COPIES else None


def may_be_rescued(error: LakehouseError) -> bool:
    """Whether it says that the bucket did not answer, which says nothing of the object."""
    cut_off = error.kind is ErrorKind.CORRUPT and error.fields.get("truncated") is True
    return error.kind in _UNANSWERED or cut_off


class _Watch:
    """When the last bytes came."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.at = clock.monotonic()

    def __call__(self) -> None:
        self.at = self._clock.monotonic()


class KnownReads:
    """Whole objects into local files, verified.

    Args:
        stores: the buckets, with their retries.
        settings: which bucket rescues; with none every read is one of the object's own bucket.

    ``served`` counts the reads that were answered by the rescue bucket.
    """

    def __init__(
        self, stores: Stores, clock: Clock, ids: Ids, settings: RescueSettings = RescueSettings()
    ) -> None:
        self._stores = stores
        self._clock = clock
        self._ids = ids
        self._rescue = settings.bucket
        self._patience = settings.patience_seconds
        self.served = 0

    async def to_file(self, wanted: KnownObject, path: Path) -> str:
        """Put the object's verified bytes at ``path``, whole or not at all.

        Returns "" or, where its own bucket did not answer, the name of the rescue bucket. Raises
        what the own bucket raises, with what the rescue bucket said in the field ``rescue``;
        ``corrupt`` for bytes that are not those that are known; ``unavailable`` if ``path`` cannot
        be written.
        """
        served_from = ""
        home, copy = _part(path, "home"), _part(path, "copy")
        try:
            with operation(self._ids) as within:
                if self._rescue in ("", wanted.bucket):
                    await self._verified(wanted, wanted.bucket, wanted.key, home, lambda: None)
                    found = home
                else:
                    found, served_from = await self._either(wanted, home, copy)
                if served_from:
                    within.rescued()
            await run_blocking(os.replace, found, path)
        except OSError as error:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE, "the read cache cannot be written", reason=error.strerror
            ) from error
        finally:
            for part in (home, copy):
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
        return served_from

    async def _either(self, wanted: KnownObject, home: Path, copy: Path) -> tuple[Path, str]:
        """The own bucket; beside it the copy once that has been silent for too long, or instead of
        it once that did not answer. What the own bucket says of the object is never overruled."""
        watch = _Watch(self._clock)
        own = asyncio.create_task(
            self._verified(wanted, wanted.bucket, wanted.key, home, watch), name="read of an object"
        )
        other: asyncio.Task[None] | None = None
        try:
            await self._patiently(own, watch)
            if own.done() and not _unanswered(own):
                await own
                return home, ""
            other = asyncio.create_task(self._copied(wanted, copy), name="read of a copy")
            await asyncio.wait({own, other}, return_when=asyncio.FIRST_COMPLETED)
            if _unanswered(own):
                await asyncio.wait({other})
            if _succeeded(other) and (not own.done() or _unanswered(own)):
                self._rescued(wanted, own)
                return copy, self._rescue
            # Slow it may be, but there is no copy to be had.
            await asyncio.wait({own})
            if _unanswered(own):
                _note(own, self._rescue, other)
            await own
            return home, ""
        finally:
            tasks = [task for task in (own, other) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _copied(self, wanted: KnownObject, part: Path) -> None:
        key = rescue_key(wanted.bucket, wanted.key)
        # What goes wrong with the copy is a story of its own in the journal.
        with Operation(self._ids):
            await self._verified(wanted, self._rescue, key, part, lambda: None)

    async def _patiently(self, own: asyncio.Task[None], watch: _Watch) -> None:
        """Wait for the end of it, or until no bytes have come for too long."""
        while not own.done():
            left = watch.at + self._patience - self._clock.monotonic()
            if left <= 0:
                return
            await asyncio.wait({own}, timeout=left)

    def _rescued(self, wanted: KnownObject, own: asyncio.Task[None]) -> None:
        self.served += 1
        log.warning(
            "an object was served from the rescue bucket",
            extra={
                "bucket": wanted.bucket,
                "key": wanted.key,
                "rescue": self._rescue,
                "reason": str(own.exception()) if own.done() else "the bucket was silent",
            },
        )

    async def _verified(
        self, wanted: KnownObject, bucket: str, key: str, part: Path, came: Callable[[], None]
    ) -> None:
        """Write ``key`` to ``part`` and check it; a part with other bytes is never used. Wrong
        bytes are read once more: it may have been the way here that damaged them."""
        store = self._stores.get(bucket)
        for more in (True, False):
            if wanted.size_bytes > STREAM_ABOVE_BYTES and isinstance(store, StreamingReads):
                found, size = await _stream(store, key, part, came)
            else:
                found, size = await run_blocking(_write, part, await store.get(key))
            if found == wanted.sha256:
                return
            error = _other(wanted, ObjectRef(bucket, key), found, size)
            within = current_operation()
            if within is not None:
                within.refuse(error)
            if not more:
                raise error


def _other(wanted: KnownObject, place: ObjectRef, found: str, size: int) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CORRUPT,
        "an object is not what the catalog says it is",
        bucket=place.bucket,
        key=place.key,
        sha256_expected=wanted.sha256,
        sha256_found=found,
        size_expected=wanted.size_bytes,
        size_found=size,
        hint="run catalog fsck --deep, restore the object from a backup",
    )


def _succeeded(task: asyncio.Task[None]) -> bool:
    return task.done() and task.exception() is None


def _unanswered(task: asyncio.Task[None]) -> bool:
    """Whether it has ended because the bucket did not answer."""
    error = task.exception() if task.done() else None
    return isinstance(error, LakehouseError) and may_be_rescued(error)


def _note(own: asyncio.Task[None], rescue: str, other: asyncio.Task[None]) -> None:
    """Tell in the error of the own bucket why the copy did not help."""
    error = own.exception()
    failure = other.exception() if other.done() else None
    if isinstance(error, LakehouseError):
        told = failure.kind.value if isinstance(failure, LakehouseError) else "unavailable"
        error.fields["rescue"] = {"bucket": rescue, "kind": told, "message": str(failure)[:200]}


def _part(path: Path, origin: str) -> Path:
    return path.with_name(f"{path.name}.{origin}.part")


async def _stream(
    store: StreamingReads, key: str, part: Path, came: Callable[[], None]
) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    with part.open("wb") as out:
        async for chunk in store.stream(key):
            came()
            await run_blocking(_append, out, digest, chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _write(part: Path, data: bytes) -> tuple[str, int]:
    part.write_bytes(data)
    return hashlib.sha256(data).hexdigest(), len(data)


def _append(out: IO[bytes], digest: Any, chunk: bytes) -> None:
    digest.update(chunk)
    out.write(chunk)
