"""Buckets by name: which URLs there are, what is shared, what is said of a wrong one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.objectstore.buckets import (
    Buckets,
    BucketSettings,
    S3Credentials,
    open_adapter,
    open_raw,
    open_store,
)
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.retrying import RetryingStore
from lakehouse.testing.clocks import SeededIds
from support_peer import Peer, serving

CLOCK = SystemClock()


def buckets(*settings: BucketSettings) -> Buckets:
    return Buckets(settings, CLOCK, SeededIds(1))


async def test_local_urls_absolute_and_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url, place in (
        ("file:./data/primary", tmp_path / "data" / "primary"),
        ("file:data", tmp_path / "data"),
        (f"file://{tmp_path}/with%20space", tmp_path / "with space"),
        (f"file://localhost{tmp_path}/x", tmp_path / "x"),
    ):
        assert open_adapter(BucketSettings("b", url), CLOCK).url == f"file://{place}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "data/primary",
        "/data/primary",
        "file:",
        "file://host/path",
        "http://host/bucket",
        "s3://",
        "s3:bucket",
        "s3://key:SECRET@bucket",
        "s3://bucket?token=SECRET",
        "gs://bucket",
    ],
)
def test_other_urls_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        open_adapter(BucketSettings("mine", url), CLOCK)
    assert caught.value.kind is ErrorKind.INVALID
    assert caught.value.fields["bucket"] == "mine"
    assert "SECRET" not in f"{caught.value} {caught.value.fields}"


async def test_one_memory_a_name_within_the_process() -> None:
    first = open_store(BucketSettings("a", "memory://test-buckets-shared"), CLOCK, SeededIds(1))
    second = open_raw(BucketSettings("b", "memory://test-buckets-shared"), CLOCK)
    other = open_raw(BucketSettings("b", "memory://test-buckets-other"), CLOCK)
    await first.put("key", b"x")
    assert await second.get("key") == b"x"
    assert await other.list() == []
    await first.delete(["key"])


def test_the_order_of_wrappers() -> None:
    settings = BucketSettings("a", "memory://test-buckets-order")
    store = open_store(settings, CLOCK, SeededIds(1))
    assert isinstance(store, RetryingStore)
    assert isinstance(store.inner, MeteredStore)
    assert isinstance(open_raw(settings, CLOCK), MeteredStore)


async def test_handles_of_one_bucket_share_its_meter() -> None:
    both = buckets(
        BucketSettings("one", "memory://test-buckets-one", residency="eu"),
        BucketSettings("two", "memory://test-buckets-two"),
    )
    assert both.names() == ("one", "two")
    assert both.settings("one").residency == "eu"
    await both.get("one").put("key", b"12")
    await both.raw("one").get("key")
    footprint = both.footprint("one")
    assert (footprint.requests["put"], footprint.requests["get"]) == (1, 1)
    assert sum(both.footprint("two").requests.values()) == 0
    assert both.last_error("one") == ""
    await both.close()
    await both.close()
    await both.get("one").delete(["key"])


@pytest.mark.parametrize("method", ["get", "raw", "settings", "footprint"])
def test_an_unknown_bucket_names_those_there_are(method: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        getattr(buckets(BucketSettings("primary", "memory://x")), method)("primry")
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert caught.value.fields["buckets"] == ["primary"]


def test_two_buckets_of_one_name_are_refused() -> None:
    with pytest.raises(LakehouseError) as caught:
        buckets(BucketSettings("a", "memory://x"), BucketSettings("a", "memory://y"))
    assert caught.value.kind is ErrorKind.INVALID


def test_s3_urls_lose_nothing_but_the_slash() -> None:
    keys = S3Credentials("a", "b")
    for url, shown in (("s3://b", "s3://b"), ("s3://b/", "s3://b"), ("s3://b/p/q/", "s3://b/p/q")):
        assert open_adapter(BucketSettings("x", url, credentials=keys), CLOCK).url == shown


def test_without_any_credentials_an_s3_bucket_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(LakehouseError) as caught:
        open_adapter(BucketSettings("x", "s3://b"), CLOCK)
    assert caught.value.kind is ErrorKind.FORBIDDEN


async def test_only_buckets_of_a_server_are_made(tmp_path: Path) -> None:
    with serving(Peer()) as peer:
        peer.script.append((404, "", b""))
        place = replace(peer.settings(), name="s3")
        some = buckets(place, BucketSettings("disk", f"file://{tmp_path}/disk"))
        assert await some.create("s3")
        assert not await some.create("disk")
        with pytest.raises(LakehouseError) as caught:
            await some.create("nothing")
        assert caught.value.kind is ErrorKind.NOT_FOUND
        await some.close()
    assert [(method, key) for method, key, _ in peer.requests] == [("HEAD", ""), ("PUT", "")]
