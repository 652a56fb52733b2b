"""The probe passes what keeps its promises, and names what does not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.model.probe import ProbeReport
from lakehouse.objectstore.local import LocalStore
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.port import ByteRange, ObjectMeta, ObjectStore
from lakehouse.objectstore.probe import probe_store
from lakehouse.objectstore.s3 import S3Store
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.testing.clocks import SeededIds
from support_peer import Peer, serving

CLOCK = SystemClock()
NAMES = [
    "write",
    "put-if-absent",
    "one-winner",
    "read-after-write",
    "list-after-write",
    "list-order",
    "range-reads",
    "delete",
]


async def probe(store: ObjectStore) -> ProbeReport:
    return await probe_store(store, "bucket-name", CLOCK, SeededIds(3))


def failed(report: ProbeReport) -> list[str]:
    assert report.passed == all(check.passed for check in report.checks)
    return [check.name for check in report.checks if not check.passed]


async def test_a_good_store_passes_and_is_left_empty() -> None:
    store = MemoryStore("probe", CLOCK)
    report = await probe(store)
    assert failed(report) == []
    assert [check.name for check in report.checks] == NAMES
    assert (report.bucket, report.url) == ("bucket-name", "memory://probe")
    assert await store.list() == []


async def test_a_local_store_is_asked_about_links_too(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, CLOCK)
    report = await probe(store)
    assert failed(report) == []
    assert [check.name for check in report.checks] == ["write", "link", *NAMES[1:]]
    assert await store.list() == []
    await store.close()


async def test_a_file_system_without_links_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*args: object, **kwargs: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_link)
    store = LocalStore(tmp_path, CLOCK)
    report = await probe(store)
    assert failed(report) == ["link", "put-if-absent", "one-winner"]
    assert "link(2) failed" in report.checks[1].detail
    assert "EPERM" in report.checks[1].detail
    await store.close()


# -- real peers on the wire ---------------------------------------------------------------------


async def over_http(conditional: str) -> tuple[ProbeReport, Peer]:
    with serving(Peer(conditional)) as peer:
        store = S3Store(peer.settings())
        report = await probe(store)
        await store.close()
        return report, peer


async def test_a_server_that_honours_the_condition_passes() -> None:
    report, peer = await over_http("honour")
    assert failed(report) == []
    assert peer.objects == {}


async def test_a_server_that_ignores_the_condition_is_refused_by_name() -> None:
    report, peer = await over_http("ignore")
    assert failed(report) == ["put-if-absent", "one-winner"]
    details = {check.name: check.detail for check in report.checks}
    assert "ignores If-None-Match, as rclone's does" in details["put-if-absent"]
    assert "16 were told they won" in details["one-winner"]
    assert peer.objects == {}


async def test_a_server_that_answers_501_is_refused_by_name() -> None:
    report, _ = await over_http("501")
    assert failed(report) == ["put-if-absent", "one-winner"]
    details = {check.name: check.detail for check in report.checks}
    assert "501 Not Implemented" in details["put-if-absent"]
    assert "Swift" in details["put-if-absent"]


# -- stores that lie ----------------------------------------------------------------------------


class ChecksThenPuts(ForwardingStore):
    """The race of a store that looks first and writes after."""

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        if if_absent:
            try:
                await self.inner.head(key)
            except LakehouseError:
                await asyncio.sleep(0)
                return await self.inner.put(key, data)
            raise LakehouseError(ErrorKind.ALREADY_EXISTS, "an object with this key exists")
        return await self.inner.put(key, data)


class RefusesButWrites(ForwardingStore):
    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        try:
            return await self.inner.put(key, data, if_absent=if_absent)
        except LakehouseError:
            await self.inner.put(key, data)
            raise


class ReadsStale(ForwardingStore):
    """The first bytes of a key, for ever: a cache in between."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._seen: dict[str, bytes] = {}

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        data = await self.inner.get(key, byte_range)
        return self._seen.setdefault(key, data) if byte_range is None else data


class ListsLate(ForwardingStore):
    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        return (await self.inner.list(prefix, start_after=start_after, limit=limit))[:-1]


class ListsInOrderOf(ForwardingStore):
    def __init__(self, inner: ObjectStore, encoding: str) -> None:
        super().__init__(inner)
        self._encoding = encoding

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        found = await self.inner.list(prefix)
        order = str.casefold if self._encoding == "casefold" else self._units
        keys = sorted(found, key=lambda meta: order(meta.key))
        return [meta for meta in keys if order(meta.key) > order(start_after)][:limit]

    def _units(self, key: str) -> str:
        return key.encode("utf-16-be").hex()


class NoStartAfter(ForwardingStore):
    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        return await self.inner.list(prefix, limit=limit)


class NoRanges(ForwardingStore):
    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        return await self.inner.get(key)


class KeepsDeleted(ForwardingStore):
    async def delete(self, keys: Sequence[str]) -> None:
        pass


@pytest.mark.parametrize(
    ("wrap", "expected"),
    [
        (ChecksThenPuts, ["one-winner"]),
        (RefusesButWrites, ["put-if-absent", "one-winner"]),
        (ReadsStale, ["read-after-write"]),
        (ListsLate, ["list-after-write", "list-order"]),
        (lambda inner: ListsInOrderOf(inner, "casefold"), ["list-order"]),
        (lambda inner: ListsInOrderOf(inner, "utf-16"), ["list-order"]),
        (NoStartAfter, ["list-order"]),
        (NoRanges, ["range-reads"]),
        (KeepsDeleted, ["delete"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_each_lie_is_told_by_its_check(wrap: object, expected: list[str]) -> None:
    assert callable(wrap)
    report = await probe(wrap(MemoryStore("lies", CLOCK)))
    assert failed(report) == expected
    for check in report.checks:
        assert check.detail
        assert check.elapsed_ms >= 0


@pytest.mark.parametrize("kind", [ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT, ErrorKind.FORBIDDEN])
async def test_a_bucket_that_nobody_reaches_is_no_matter_of_conformance(kind: ErrorKind) -> None:
    store = Failing(kind)
    with pytest.raises(LakehouseError) as caught:
        await probe(store)
    assert caught.value.kind is kind
    assert caught.value.fields["bucket"] == "bucket-name"
    assert caught.value.fields["cause"] == "connection refused"
    place = "secret_ref" if kind is ErrorKind.FORBIDDEN else "endpoint"
    assert place in str(caught.value.fields["hint"])
    assert store.calls == ["put"]


async def test_a_store_whose_first_write_fails_ends_the_probe_at_once() -> None:
    report = await probe(Failing(ErrorKind.EXHAUSTED))
    assert failed(report) == NAMES
    assert report.checks[0].detail == "the store failed: exhausted: it failed"
    assert {check.detail for check in report.checks[1:]} == {"not run: the first write failed"}


class Failing(ForwardingStore):
    """A bucket whose puts fail, and which counts what is asked of it."""

    def __init__(self, kind: ErrorKind) -> None:
        super().__init__(MemoryStore("down", CLOCK))
        self._kind = kind
        self.calls: list[str] = []

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        self.calls.append("put")
        raise LakehouseError(self._kind, "it failed", cause="connection refused")

    async def delete(self, keys: Sequence[str]) -> None:
        self.calls.append("delete")
