"""The storage role: buckets as an operator sees them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest

from lakehouse.contracts.storage import BucketsRequest, ProbeRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.objectstore.buckets import Buckets, BucketSettings, S3Credentials
from lakehouse.objectstore.port import ObjectMeta
from lakehouse.storaged import infos
from lakehouse.storaged.journal import Journal
from lakehouse.storaged.registry import Registry
from lakehouse.storaged.service import Storage
from lakehouse.storaged.settings import JournalSettings, RegistrySettings
from lakehouse.testing.clocks import SeededIds
from support_peer import Peer, serving
from unit.gateway.fakes import FakeCatalog

CLOCK = SystemClock()
OPERATOR = Context(Principal("op", (Scope.OPERATOR,)), "request")
KEYS = S3Credentials("peer-access", "peer-secret-key")


@pytest.fixture
async def buckets() -> AsyncIterator[Buckets]:
    with socket.socket() as taken, serving(Peer()) as peer:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        peer.script.append((404, "NoSuchBucket", b""))
        buckets = Buckets(
            [
                BucketSettings("primary", "memory://test-storaged", bucket_class="primary"),
                BucketSettings("down", "s3://b/p", endpoint=nobody, credentials=KEYS),
                BucketSettings("typo", "s3://b", endpoint=peer.endpoint, credentials=KEYS),
                BucketSettings("wrong", "ftp://user:canary@host/x"),
            ],
            CLOCK,
            SeededIds(1),
        )
        yield buckets
        await buckets.close()


def over(buckets: Buckets) -> Storage:
    journal = Journal(JournalSettings(), CLOCK, SeededIds(3))
    registry = Registry(RegistrySettings(), buckets, FakeCatalog(), CLOCK, SeededIds(4))  # type: ignore[arg-type]
    return Storage(buckets, registry, journal, CLOCK, SeededIds(2))


async def test_one_bad_bucket_does_not_hide_the_others(buckets: Buckets) -> None:
    await buckets.get("primary").put("key", b"12345")
    storage = over(buckets)
    found = (await storage.buckets(OPERATOR, BucketsRequest())).buckets
    assert [info.name for info in found] == ["primary", "down", "typo", "wrong"]
    assert [info.reachable for info in found] == [True, False, False, False]
    primary, down, typo, wrong = found
    assert (primary.bucket_class, primary.url) == ("primary", "memory://test-storaged")
    assert (primary.requests, primary.bytes_written, primary.last_error) == (2, 5, "")
    assert down.last_error.startswith("unavailable: ")
    assert typo.last_error == "not_found: the bucket does not exist"
    assert wrong.last_error.startswith("invalid: ")
    assert "canary" not in repr(found)
    assert "peer-secret-key" not in repr(found)
    await buckets.get("primary").delete(["key"])


async def test_a_bucket_that_does_not_answer_is_given_up(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stuck(*args: object, **kwargs: object) -> list[ObjectMeta]:
        await CLOCK.sleep(60)
        return []

    monkeypatch.setattr(infos, "REACH_SECONDS", 0.05)
    monkeypatch.setattr(buckets.raw("primary"), "list", stuck)
    storage = over(buckets)
    found = (await storage.buckets(OPERATOR, BucketsRequest())).buckets
    assert found[0].reachable is False
    assert found[0].last_error.startswith("timeout: ")


async def test_the_probe_by_name(buckets: Buckets) -> None:
    storage = over(buckets)
    report = await storage.probe(OPERATOR, ProbeRequest("primary"))
    assert (report.bucket, report.passed) == ("primary", True)
    with pytest.raises(LakehouseError) as caught:
        await storage.probe(OPERATOR, ProbeRequest("down"))
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert caught.value.fields["cause"] == "connection refused"
    with pytest.raises(LakehouseError) as caught:
        await storage.probe(OPERATOR, ProbeRequest("none"))
    assert caught.value.kind is ErrorKind.NOT_FOUND


@pytest.mark.parametrize("scope", [Scope.READ, Scope.WRITE])
async def test_only_operators_ask(buckets: Buckets, scope: Scope) -> None:
    storage = over(buckets)
    ctx = Context(Principal("p", (scope,)), "request")
    for call in (
        storage.buckets(ctx, BucketsRequest()),
        storage.probe(ctx, ProbeRequest("primary")),
    ):
        with pytest.raises(LakehouseError) as caught:
            await call
        assert caught.value.kind is ErrorKind.FORBIDDEN
