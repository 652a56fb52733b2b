"""The conformance probe: whether a bucket keeps the promises that commits rest on.

Run at the start and by ``lakehouse doctor``, on a bucket whose settings nobody may have checked.
It writes below ``_probe/<id>/`` only, and removes what it wrote. One failed check refuses the
bucket: there is no store that is atomic enough most of the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.model.probe import ProbeCheck, ProbeReport
from lakehouse.objectstore.port import ByteRange, LocalFiles, ObjectStore

PREFIX: Final = "_probe/"
WRITERS: Final = 16

# In byte order, and in no other: case, "/" among punctuation, letters beyond ASCII, and a pair
# (U+FF5E, U+10000) that UTF-16 would turn round.
_ORDERED: Final = ("B", "a-", "a.x", "a/b", "a0", "ab", "é", "\uff5e", "\U00010000")


# Of the first write: nobody there, or nobody who lets us in.
_UNREACHED: Final = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT, ErrorKind.FORBIDDEN})


class _Refused(Exception):
    """A check saw what must not be; the text says what, and what it means."""


class _Unreached(Exception):
    """The bucket could not be asked anything."""

    def __init__(self, error: LakehouseError) -> None:
        super().__init__(str(error))
        self.error = error


async def probe_store(store: ObjectStore, bucket: str, clock: Clock, ids: Ids) -> ProbeReport:
    """Run every check on ``store``.

    Args:
        bucket: the bucket's configured name, for the report.

    Returns:
        The checks in order. If the first write fails the others are reported as not run.

    Raises:
        unavailable, timeout, forbidden: the first write did not reach the bucket or was not let
            in. That says nothing of its promises: it is the network or the credentials. What the
            store does after that is reported, never raised.
    """
    probe = _Probe(store, PREFIX + ids.ulid() + "/")
    planned: list[tuple[str, Callable[[], Awaitable[str]]]] = [("write", probe.write)]
    if isinstance(store, LocalFiles):
        planned.append(("link", probe.link))
    planned += [
        ("put-if-absent", probe.put_if_absent),
        ("one-winner", probe.one_winner),
        ("read-after-write", probe.read_after_write),
        ("list-after-write", probe.list_after_write),
        ("list-order", probe.list_order),
        ("range-reads", probe.range_reads),
        ("delete", probe.delete),
    ]
    checks: list[ProbeCheck] = []
    try:
        for name, check in planned:
            if checks and not checks[0].passed:
                checks.append(ProbeCheck(name, False, "not run: the first write failed", 0.0))
            else:
                checks.append(await _timed(name, check, clock))
    except _Unreached as stop:
        probe.forget()
        raise _unreached(stop.error, bucket, store) from stop.error
    finally:
        await probe.clean_up()
    return ProbeReport(bucket, store.url, all(check.passed for check in checks), tuple(checks))


def _unreached(error: LakehouseError, bucket: str, store: ObjectStore) -> LakehouseError:
    if isinstance(store, LocalFiles):
        hint = "check that the folder can be written to, and that its disk is mounted"
    elif error.kind is ErrorKind.FORBIDDEN:
        hint = f"check what buckets.{bucket}.secret_ref names, and that it may write"
    else:
        hint = f"check url and endpoint of buckets.{bucket}, and that its server is up"
    fields = {"bucket": bucket, "url": store.url, "hint": hint, **error.fields}
    return LakehouseError(error.kind, error.message, **fields)


async def _timed(name: str, check: Callable[[], Awaitable[str]], clock: Clock) -> ProbeCheck:
    started = clock.monotonic()
    try:
        detail, passed = await check(), True
    except _Refused as error:
        detail, passed = str(error), False
    except LakehouseError as error:
        detail, passed = f"the store failed: {_told(error)}", False
    return ProbeCheck(name, passed, detail, (clock.monotonic() - started) * 1e3)


def _told(error: LakehouseError) -> str:
    """The error with what the store said, for people."""
    said = [str(error.fields[name]) for name in ("status", "code", "errno") if name in error.fields]
    return f"{error} ({' '.join(said)})" if said else str(error)


class _Probe:
    """The checks; each returns what was seen, or raises ``_Refused``."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._keys: list[str] = []

    async def write(self) -> str:
        key = self._key("write")
        try:
            await self._store.put(key, b"probe")
        except LakehouseError as error:
            if error.kind in _UNREACHED:
                raise _Unreached(error) from error
            raise
        _expect(await self._store.get(key) == b"probe", "what was written reads back otherwise")
        return "an object was written and read back"

    async def link(self) -> str:
        try:
            await self._store.put(self._key("link"), b"probe", if_absent=True)
        except LakehouseError as error:
            raise _Refused(
                f"link(2) failed ({_told(error)}): without it this file system cannot create a"
                " file only if its name is free"
            ) from error
        return "link(2) works on this file system"

    async def put_if_absent(self) -> str:
        key = self._key("absent")
        try:
            await self._store.put(key, b"first", if_absent=True)
        except LakehouseError as error:
            raise _conditional_refused(error) from error
        try:
            await self._store.put(key, b"second", if_absent=True)
        except LakehouseError as error:
            if error.kind is not ErrorKind.ALREADY_EXISTS:
                raise _conditional_refused(error) from error
        else:
            raise _Refused(
                "a put that must fail on an existing key was accepted: the server ignores"
                " If-None-Match, as rclone's does, and would lose acknowledged commits"
            )
        _expect(
            await self._store.get(key) == b"first",
            "a refused put changed the object: the server answers one thing and does another",
        )
        return "a put-if-absent on an existing key was refused, and changed nothing"

    async def one_winner(self) -> str:
        key = self._key("race")
        bodies = [b"writer %d" % number for number in range(WRITERS)]
        results = await asyncio.gather(
            *(self._store.put(key, body, if_absent=True) for body in bodies),
            return_exceptions=True,
        )
        winners = []
        for body, result in zip(bodies, results, strict=True):
            if not isinstance(result, BaseException):
                winners.append(body)
            elif (
                not isinstance(result, LakehouseError)
                or result.kind is not ErrorKind.ALREADY_EXISTS
            ):
                raise result
        _expect(
            len(winners) == 1,
            f"of {WRITERS} writers of one key {len(winners)} were told they won: the condition"
            " is not atomic, and two nodes could both commit",
        )
        _expect(
            await self._store.get(key) == winners[0],
            "the object is not the winner's: another writer's bytes replaced it",
        )
        return f"of {WRITERS} writers of one key exactly one won"

    async def read_after_write(self) -> str:
        key = self._key("read")
        for body in (b"one", b"the second", b"3"):
            await self._store.put(key, body)
            seen = await self._store.get(key)
            size = (await self._store.head(key)).size_bytes
            _expect(
                seen == body and size == len(body),
                "a read after a write saw an older object: readers would miss commits",
            )
        return "reads saw each write at once"

    async def list_after_write(self) -> str:
        folder = self._prefix + "listed/"
        for number in range(3):
            key = self._key(f"listed/{number}")
            await self._store.put(key, b"x")
            keys = [meta.key for meta in await self._store.list(folder)]
            _expect(
                keys == [f"{folder}{n}" for n in range(number + 1)],
                "a list after a write missed the object: a node would not see the newest commit",
            )
        return "lists saw each write at once"

    async def list_order(self) -> str:
        folder = self._prefix + "order/"
        wanted = [self._key("order/" + name) for name in _ORDERED]
        for key in reversed(wanted):
            await self._store.put(key, b"x")
        keys = [meta.key for meta in await self._store.list(folder)]
        _expect(
            keys == wanted,
            f"a list is not in byte order of keys, but {[key[len(folder) :] for key in keys]}:"
            " the newest record could not be found by one list",
        )
        first = [meta.key for meta in await self._store.list(folder, limit=1)]
        rest = [meta.key for meta in await self._store.list(folder, start_after=wanted[3])]
        _expect(first == wanted[:1], "a list of one key does not return the first")
        _expect(rest == wanted[4:], "a list after a key does not go on behind it")
        return "lists are in byte order of keys, also from a key on"

    async def range_reads(self) -> str:
        key = self._key("range")
        body = bytes(range(256))
        await self._store.put(key, body)
        for start, end in ((0, 1), (17, 200), (250, 1000)):
            seen = await self._store.get(key, ByteRange(start, end))
            _expect(
                seen == body[start:end],
                f"a read of bytes {start} to {end} returned other bytes: ranges are not honoured",
            )
        return "ranges of bytes are read exactly"

    async def delete(self) -> str:
        key = self._key("delete")
        await self._store.put(key, b"x")
        await self._store.delete([key])
        try:
            await self._store.get(key)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
        else:
            raise _Refused("a deleted object can still be read: erasure could not be promised")
        await self._store.delete([key])
        listed = [meta.key for meta in await self._store.list(self._prefix)]
        _expect(key not in listed, "a deleted object is still listed")
        return "a deleted object is gone, and deleting it again is no error"

    def forget(self) -> None:
        """Nothing was written: there is nothing to clean up, and nobody to ask."""
        self._keys.clear()

    async def clean_up(self) -> None:
        """Remove what was written; a store that failed the checks may keep some of it."""
        for key in dict.fromkeys(self._keys):
            with suppress(LakehouseError):
                await self._store.delete([key])

    def _key(self, name: str) -> str:
        key = self._prefix + name
        self._keys.append(key)
        return key


def _expect(held: bool, meaning: str) -> None:
    if not held:
        raise _Refused(meaning)


def _conditional_refused(error: LakehouseError) -> _Refused:
    if error.fields.get("s3_status") == 501:
        return _Refused(
            "the server answers 501 Not Implemented to a conditional put, as Swift's S3 API does:"
            " commits need put-if-absent"
        )
    return _Refused(f"a conditional put failed otherwise than by refusal: {_told(error)}")


def refuse_unfit(report: ProbeReport) -> None:
    """Raise ``forbidden`` naming the failed checks unless the bucket passed."""
    if not report.passed:
        failed = [check for check in report.checks if not check.passed]
        # Where the first write failed the others did not run, and say nothing of the bucket.
        failed = failed[:1] if failed[0] is report.checks[0] else failed
        raise LakehouseError(
            ErrorKind.FORBIDDEN,
            "the bucket is not fit to keep a store: it fails the conformance probe",
            bucket=report.bucket,
            url=report.url,
            failed=[check.name for check in failed],
            details=[check.detail for check in failed],
            hint="lakehouse doctor shows every check; use a store with atomic conditional writes",
        )
