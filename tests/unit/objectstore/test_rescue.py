"""Reads from the rescue bucket: just where the own one did not answer, and only right bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.failures import AttemptOutcome, FailedAttempt
from lakehouse.objectstore import rescue
from lakehouse.objectstore.buckets import Buckets, BucketSettings, ResilienceSettings
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.port import ByteRange, ObjectStore
from lakehouse.objectstore.rescue import (
    STREAM_ABOVE_BYTES,
    KnownObject,
    KnownReads,
    RescueSettings,
    place_of,
    rescue_key,
)
from lakehouse.objectstore.wrapping import ForwardingStore

KEY = "datasets/S1/D1/a.parquet"
DATA = b"rows of client a"
CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
UNANSWERED = {ErrorKind.TIMEOUT, ErrorKind.UNAVAILABLE}


class Scripted(ForwardingStore):
    """Every read raises ``error``, or hangs until it is let go; streams break off after a chunk;
    the next ``damaged`` reads give other bytes."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.error: LakehouseError | None = None
        self.hangs: asyncio.Event | None = None
        self.damaged = 0
        self.reads = 0

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        self.reads += 1
        if self.hangs is not None:
            await self.hangs.wait()
        if self.error is not None:
            raise self.error
        data = await super().get(key, byte_range)
        if self.damaged:
            self.damaged -= 1
            return data[:-1] + b"?"
        return data

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        self.reads += 1
        async for chunk in super().stream(key):
            yield chunk[:100]
            if self.hangs is not None:
                await self.hangs.wait()
            if self.error is not None:
                raise self.error
            yield chunk[100:]


class Place:
    """A bucket, its rescue bucket, and reads of both."""

    def __init__(self, patience: float = 30.0) -> None:
        self.home = Scripted(MemoryStore("home", CLOCK))
        self.rescue = Scripted(MemoryStore("rescue", CLOCK))
        chosen = RescueSettings("rescue", patience_seconds=patience)
        self.reads = KnownReads(self, CLOCK, IDS, chosen)

    def get(self, name: str) -> ObjectStore:
        return {"client_a": self.home, "rescue": self.rescue}[name]

    async def put(self, data: bytes = DATA, copy: bytes | None = None) -> KnownObject:
        await self.home.put(KEY, data)
        await self.rescue.put(f"rescue/client_a/{KEY}", data if copy is None else copy)
        return KnownObject("client_a", KEY, len(data), hashlib.sha256(data).hexdigest())


async def refused(place: Place, wanted: KnownObject, path: Path) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await place.reads.to_file(wanted, path)
    assert not path.exists()
    return caught.value


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_an_answer_is_never_sought_elsewhere(tmp_path: Path) -> None:
    place = Place()
    wanted = await place.put(copy=b"never looked at")
    assert await place.reads.to_file(wanted, tmp_path / "a") == ""
    assert (tmp_path / "a").read_bytes() == DATA
    assert (place.rescue.reads, place.reads.served, left(tmp_path)) == (0, 0, ["a"])


@pytest.mark.parametrize("kind", ErrorKind)
async def test_it_falls_back_on_exactly_what_says_nothing_of_the_object(
    tmp_path: Path, kind: ErrorKind
) -> None:
    place = Place()
    wanted = await place.put()
    place.home.error = LakehouseError(kind, "scripted")
    if kind in UNANSWERED:
        assert await place.reads.to_file(wanted, tmp_path / "a") == "rescue"
        assert (tmp_path / "a").read_bytes() == DATA
        assert place.reads.served == 1
    else:
        assert (await refused(place, wanted, tmp_path / "a")) is place.home.error
        assert (place.rescue.reads, place.reads.served) == (0, 0)
    assert left(tmp_path) == (["a"] if kind in UNANSWERED else [])


async def test_a_reply_that_was_cut_off_is_no_answer(tmp_path: Path) -> None:
    place = Place()
    wanted = await place.put()
    place.home.error = LakehouseError(ErrorKind.CORRUPT, "ended early", truncated=True)
    assert await place.reads.to_file(wanted, tmp_path / "a") == "rescue"


async def test_an_erased_object_does_not_come_back(tmp_path: Path) -> None:
    place = Place()
    wanted = await place.put()
    await place.home.delete([KEY])
    assert (await refused(place, wanted, tmp_path / "a")).kind is ErrorKind.NOT_FOUND
    assert place.rescue.reads == 0


async def test_wrong_bytes_at_home_are_an_answer_and_no_reason_to_look_away(
    tmp_path: Path,
) -> None:
    place = Place()
    wanted = await place.put()
    await place.home.put(KEY, b"rows of client b")
    assert (await refused(place, wanted, tmp_path / "a")).kind is ErrorKind.CORRUPT
    assert place.rescue.reads == 0


async def test_bytes_that_were_damaged_on_the_way_are_read_once_more(tmp_path: Path) -> None:
    place = Place()
    wanted = await place.put()
    place.home.damaged = 1
    assert await place.reads.to_file(wanted, tmp_path / "a") == ""
    assert (tmp_path / "a").read_bytes() == DATA
    assert (place.home.reads, place.rescue.reads) == (2, 0)
    place.home.damaged = 2
    assert (await refused(place, wanted, tmp_path / "b")).kind is ErrorKind.CORRUPT
    assert (place.home.reads, place.rescue.reads) == (4, 0)


@pytest.mark.parametrize("copy", [b"", b"rows of client b", DATA + b"!"])
async def test_a_wrong_copy_is_never_used_and_the_first_error_stands(
    tmp_path: Path, copy: bytes
) -> None:
    place = Place()
    wanted = await place.put(copy=copy)
    place.home.error = LakehouseError(ErrorKind.TIMEOUT, "no answer")
    error = await refused(place, wanted, tmp_path / "a")
    assert error is place.home.error
    assert error.fields["rescue"] == {
        "bucket": "rescue",
        "kind": "corrupt",
        "message": "corrupt: an object is not what the catalog says it is",
    }
    assert left(tmp_path) == []


async def test_without_a_copy_the_first_error_stands(tmp_path: Path) -> None:
    place = Place()
    wanted = await place.put()
    await place.rescue.delete([f"rescue/client_a/{KEY}"])
    place.home.error = LakehouseError(ErrorKind.UNAVAILABLE, "refused")
    told: Any = (await refused(place, wanted, tmp_path / "a")).fields["rescue"]
    assert told["kind"] == "not_found"


@pytest.mark.parametrize("size", [len(DATA), STREAM_ABOVE_BYTES + 1])
async def test_a_bucket_that_hangs_is_left_in_bounded_time(tmp_path: Path, size: int) -> None:
    place = Place(patience=0.05)
    wanted = await place.put(DATA.ljust(size, b"."))
    place.home.hangs = asyncio.Event()
    async with asyncio.timeout(10):
        assert await place.reads.to_file(wanted, tmp_path / "a") == "rescue"
    assert (tmp_path / "a").stat().st_size == size
    assert left(tmp_path) == ["a"]


async def test_a_slow_bucket_is_waited_for_where_there_is_no_copy(tmp_path: Path) -> None:
    place = Place(patience=0.02)
    wanted = await place.put()
    await place.rescue.delete([f"rescue/client_a/{KEY}"])
    place.home.hangs = asyncio.Event()
    reading = asyncio.create_task(place.reads.to_file(wanted, tmp_path / "a"))
    while place.rescue.reads == 0:
        await asyncio.sleep(0.005)
    assert not reading.done()
    place.home.hangs.set()
    assert await reading == ""
    assert (tmp_path / "a").read_bytes() == DATA


async def test_a_late_no_stands_against_a_copy_under_way(tmp_path: Path) -> None:
    """It hung, then said 404: the object is gone, whatever the rescue bucket has of it."""
    place = Place(patience=0.02)
    wanted = await place.put()
    await place.home.delete([KEY])
    place.home.hangs, place.rescue.hangs = asyncio.Event(), asyncio.Event()
    reading = asyncio.create_task(place.reads.to_file(wanted, tmp_path / "a"))
    while place.rescue.reads == 0:
        await asyncio.sleep(0.005)
    place.home.hangs.set()
    await asyncio.sleep(0.01)
    place.rescue.hangs.set()
    with pytest.raises(LakehouseError) as caught:
        await reading
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert left(tmp_path) == []


async def test_a_large_object_that_breaks_off_is_taken_whole_from_the_copy(
    tmp_path: Path,
) -> None:
    place = Place()
    wanted = await place.put(b"x" * (STREAM_ABOVE_BYTES + 5))
    place.home.error = LakehouseError(ErrorKind.UNAVAILABLE, "reset")
    assert await place.reads.to_file(wanted, tmp_path / "a") == "rescue"
    assert (tmp_path / "a").stat().st_size == wanted.size_bytes


async def test_a_reader_that_goes_away_leaves_nothing(tmp_path: Path) -> None:
    place = Place(patience=0.01)
    wanted = await place.put()
    place.home.hangs = place.rescue.hangs = asyncio.Event()
    reading = asyncio.create_task(place.reads.to_file(wanted, tmp_path / "a"))
    while place.rescue.reads == 0:
        await asyncio.sleep(0.005)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "key",
    [
        "store.json",
        "_catalog/c/9999999999999990.json",
        "_catalog/floor/9999999999999990",
        "_errors/bucket_errors/c/9999999999999990.jsonl",
        "_retrievals/searches/c/9999999999999990.jsonl",
        "_retrievals/objects/01M80J045BBD103D7TZ2V3Q9KJ.json.zst",
        "_Catalog/x",
        "STORE.JSON",
        ".hidden",
        "rescue/client_a/datasets/S1/D1/a.parquet",
        "_rescue/state.json",
    ],
)
async def test_the_ledger_and_its_like_are_refused_at_the_door(tmp_path: Path, key: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        rescue_key("client_a", key)
    assert caught.value.kind is ErrorKind.FORBIDDEN
    place = Place()
    # Not even if somebody has put the right bytes there.
    await place.rescue.put(f"rescue/client_a/{key}", DATA)
    place.home.error = LakehouseError(ErrorKind.UNAVAILABLE, "down")
    wanted = KnownObject("client_a", key, len(DATA), hashlib.sha256(DATA).hexdigest())
    assert (await refused(place, wanted, tmp_path / "a")) is place.home.error
    assert place.rescue.reads == 0


def test_only_who_reads_data_objects_knows_of_rescue() -> None:
    """The ledger, logs, the catalog and all that writes cannot even ask for a copy."""
    package = Path(rescue.__file__).parents[1]
    users = {
        str(path.relative_to(package).parent)
        for path in package.rglob("*.py")
        if "objectstore.rescue import" in path.read_text()
    }
    assert users <= {"queryd", "ingestd", "ingestd/rows", "storaged", "node", "objectstore"}
    reading = {
        path.name
        for path in package.rglob("*.py")
        if "KnownReads" in path.read_text() and path.parent.name not in ("node", "queryd")
    }
    # In ingestd the reader of tables alone asks for one; it is handed there by these.
    assert reading == {
        "rescue.py",
        "figures.py",
        "readcache.py",
        "reading.py",
        "parts.py",
        "service.py",
    }


@settings(max_examples=200, deadline=None)
@given(
    bucket=st.text(min_size=1, max_size=12),
    key=st.text(st.sampled_from("abr/._-é"), min_size=1, max_size=40),
)
def test_a_copy_has_one_place_and_one_origin(bucket: str, key: str) -> None:
    try:
        copy = rescue_key(bucket, key)
    except LakehouseError:
        return
    assert place_of(copy) == (bucket, key)
    assert copy.startswith(f"rescue/{bucket}/")


class Journal:
    """A sink, and real buckets whose home fails or hangs below all wrappers."""

    def __init__(self, patience: float) -> None:
        self.attempts: list[FailedAttempt] = []
        tag = IDS.ulid()
        chosen = [BucketSettings(name, f"memory://{tag}-{name}") for name in ("client_a", "rescue")]
        resilience = ResilienceSettings(breaker_failures=2, breaker_seconds=0.0, probe_seconds=60.0)
        self.buckets = Buckets(chosen, CLOCK, IDS, self, resilience)
        settings = RescueSettings("rescue", patience_seconds=patience)
        self.reads = KnownReads(self.buckets, CLOCK, IDS, settings)
        meter: Any = self.buckets._meter("client_a")
        self.home = meter.inner = Scripted(meter.inner)

    def failed(self, attempt: FailedAttempt) -> None:
        self.attempts.append(attempt)

    async def put(self) -> KnownObject:
        await self.buckets.get("rescue").put(f"rescue/client_a/{KEY}", DATA)
        return KnownObject("client_a", KEY, len(DATA), hashlib.sha256(DATA).hexdigest())


async def test_the_journal_says_that_it_was_rescued(tmp_path: Path) -> None:
    journal = Journal(patience=30.0)
    wanted, failed = await journal.put(), journal.attempts
    journal.home.error = LakehouseError(ErrorKind.UNAVAILABLE, "connection refused")
    assert await journal.reads.to_file(wanted, tmp_path / "a") == "rescue"
    assert len({attempt.op_id for attempt in failed}) == 1
    assert [one.attempt for one in failed] == list(range(1, len(failed) + 1))
    assert [one.final for one in failed] == [False] * (len(failed) - 1) + [True]
    assert {one.outcome for one in failed[:-1]} <= {AttemptOutcome.RETRIED}
    assert failed[-1].outcome is AttemptOutcome.RESCUED
    # The breaker is open by now: nothing is sent, and nobody waits.
    failed.clear()
    async with asyncio.timeout(1):
        assert await journal.reads.to_file(wanted, tmp_path / "b") == "rescue"
    assert [(one.sent, one.outcome) for one in failed] == [(False, AttemptOutcome.RESCUED)]
    await journal.buckets.close()


async def test_an_attempt_that_hung_is_journaled_once_as_rescued(tmp_path: Path) -> None:
    journal = Journal(patience=1.1)
    wanted = await journal.put()
    journal.home.hangs = asyncio.Event()
    assert await journal.reads.to_file(wanted, tmp_path / "a") == "rescue"
    [one] = journal.attempts
    told = (one.bucket, one.error_kind, one.final, one.outcome)
    assert told == ("client_a", "timeout", True, AttemptOutcome.RESCUED)
    await journal.buckets.close()


async def test_without_a_copy_the_journal_tells_both_stories(tmp_path: Path) -> None:
    journal = Journal(patience=30.0)
    wanted = await journal.put()
    await journal.buckets.get("rescue").put(f"rescue/client_a/{KEY}", b"rotten")
    journal.home.error = LakehouseError(ErrorKind.UNAVAILABLE, "connection refused")
    with pytest.raises(LakehouseError):
        await journal.reads.to_file(wanted, tmp_path / "a")
    final = {(one.bucket, one.error_kind, one.outcome) for one in journal.attempts if one.final}
    assert final == {
        ("client_a", "unavailable", AttemptOutcome.FAILED),
        ("rescue", "corrupt", AttemptOutcome.FAILED),
    }
    assert len({one.op_id for one in journal.attempts}) == 2
    await journal.buckets.close()
