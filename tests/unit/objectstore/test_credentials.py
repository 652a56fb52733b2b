"""Keys of a bucket that rotate while it is used, at a server that checks signatures."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.secrets import Secret, concealed, local_secrets
from lakehouse.model.failures import AttemptOutcome, FailedAttempt
from lakehouse.objectstore.answers import StoreError, is_bucket_fault, was_done_perhaps
from lakehouse.objectstore.buckets import Buckets, BucketSettings, ResilienceSettings
from lakehouse.objectstore.credentials import RotatingStore, parse_credentials
from lakehouse.objectstore.s3 import S3Store
from lakehouse.testing.clocks import ManualClock, SeededIds
from support_peer import Peer, serving

CLOCK = SystemClock()
OLD, NEW = ("old-key-id", "old-secret-canary"), ("new-key-id", "new/secret+canary")


class Sink:
    def __init__(self) -> None:
        self.got: list[FailedAttempt] = []

    def failed(self, attempt: FailedAttempt) -> None:
        self.got.append(attempt)


class Watched:
    """Counts who looks into the file."""

    def __init__(self) -> None:
        self.looks = 0

    def resolve(self, secret_ref: str) -> Secret:
        self.looks += 1
        return local_secrets({}).resolve(secret_ref)


def secret_of(keys: tuple[str, str]) -> str:
    return json.dumps({"access_key_id": keys[0], "secret_access_key": keys[1]})


class Rig:
    def __init__(self, peer: Peer, folder: Path, **resilience: float) -> None:
        self.peer, self.file = peer, folder / "keys"
        self.write(OLD)
        self.settings = BucketSettings(
            "peer", "s3://bucket/pre", peer.endpoint, secret_ref=f"file:{self.file}"
        )
        self.sink = Sink()
        bounds = ResilienceSettings(**resilience)  # type: ignore[arg-type]
        self.secrets = Watched()
        self.buckets = Buckets(
            [self.settings], CLOCK, SeededIds(1), self.sink, bounds, self.secrets
        )
        self.store = self.buckets.get("peer")

    def write(self, keys: tuple[str, str]) -> None:
        new = self.file.with_name("keys.new")
        new.write_text(secret_of(keys))
        new.chmod(0o600)
        new.rename(self.file)

    def take(self, *keys: tuple[str, str]) -> None:
        """From now on the server takes these keys alone."""
        self.peer.keys = dict(keys)


@pytest.fixture
def peer() -> Iterator[Peer]:
    with serving(Peer()) as peer:
        peer.keys = dict([OLD])
        yield peer


@pytest.fixture
async def rig(peer: Peer, tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(peer, tmp_path)
    yield rig
    await rig.buckets.close()


async def test_the_peer_tells_keys_apart(peer: Peer) -> None:
    """The test's own server: right, wrong secret, unknown id, on both libraries."""
    from lakehouse.objectstore.settings import S3Credentials

    for keys, code in ((OLD, ""), ((OLD[0], "x"), "SignatureDoesNotMatch"), (NEW, "Invalid")):
        settings = BucketSettings(
            "peer", "s3://bucket/ü x", peer.endpoint, credentials=S3Credentials(*keys)
        )
        store = S3Store(settings)
        for call in (store.put("kéy +", b"x"), store.get("kéy +"), store.list("")):
            if code:
                with pytest.raises(LakehouseError) as caught:
                    await call
                assert caught.value.kind is ErrorKind.FORBIDDEN
                assert str(caught.value.fields["code"]).startswith(code)
            else:
                await call
        await store.close()


@pytest.mark.parametrize("operation", ["get", "head", "put", "create", "list", "delete", "stream"])
async def test_every_operation_survives_a_rotation(rig: Rig, operation: str) -> None:
    store = rig.store
    await store.put("key", b"x")
    rig.write(NEW)
    rig.take(NEW)
    match operation:
        case "get":
            assert await store.get("key") == b"x"
        case "head":
            assert (await store.head("key")).size_bytes == 1
        case "put":
            await store.put("key", b"yy")
        case "create":
            await store.put("other", b"yy", if_absent=True)
        case "list":
            assert [one.key for one in await store.list()] == ["key"]
        case "delete":
            await store.delete(["key"])
        case _:
            assert [c async for c in store.stream("key")] == [b"x"]  # type: ignore[attr-defined]
    assert set(rig.peer.signers) == {OLD[0], NEW[0]}
    (failed,) = rig.sink.got
    assert (failed.http_status, failed.outcome) == (403, AttemptOutcome.RETRIED)
    assert "exchanged" in failed.reason
    assert rig.buckets.health("peer").failures == 0


async def test_the_ledger_s_handle_is_told_to_try_again(rig: Rig) -> None:
    raw = rig.buckets.raw("peer")
    await raw.put("slot", b"x", if_absent=True)
    rig.write(NEW)
    rig.take(NEW)
    with pytest.raises(LakehouseError) as caught:
        await raw.put("slot2", b"x", if_absent=True)
    assert caught.value.retryable
    assert not was_done_perhaps(caught.value)
    assert not is_bucket_fault(caught.value)
    await raw.put("slot2", b"x", if_absent=True)


async def test_many_at_once_lead_to_one_look_and_no_failure(rig: Rig) -> None:
    await rig.store.put("key", b"x")
    rig.take(NEW)
    rig.write(NEW)
    assert await asyncio.gather(*(rig.store.get("key") for _ in range(30))) == [b"x"] * 30
    assert {one.outcome for one in rig.sink.got} <= {AttemptOutcome.RETRIED}


async def test_what_is_under_way_ends_on_the_old_keys(rig: Rig) -> None:
    await rig.store.put("key", b"x")
    rig.peer.slow_seconds = 0.4
    rig.peer.script.append("slow")
    slow = asyncio.ensure_future(rig.buckets.raw("peer").get("key"))
    while "slow" in rig.peer.script:
        await asyncio.sleep(0.01)
    rig.write(NEW)
    rig.take(NEW)
    assert await rig.store.get("key") == b"x"
    with pytest.raises(LakehouseError) as caught:
        await slow
    # The server hung up on it; nobody pulled its client away before.
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "exchanged" not in caught.value.message


async def test_wrong_keys_that_do_not_change_are_forbidden(rig: Rig) -> None:
    rig.take(NEW)
    for _ in range(3):
        with pytest.raises(LakehouseError) as caught:
            await rig.store.get("key")
        assert caught.value.kind is ErrorKind.FORBIDDEN
    assert {one.outcome for one in rig.sink.got} == {AttemptOutcome.FAILED}
    rig.take(OLD, NEW)
    await rig.store.put("key", b"x")
    looks = rig.secrets.looks
    rig.peer.script += [(403, "AccessDenied", b"")] * 3
    for _ in range(3):
        with pytest.raises(LakehouseError) as caught:
            await rig.store.get("key")
        assert caught.value.kind is ErrorKind.FORBIDDEN
    # What they may not do is hardly a reason to look for others.
    assert rig.secrets.looks <= looks + 1


async def test_a_denial_may_be_of_keys_that_are_being_forgotten(rig: Rig) -> None:
    await rig.store.put("key", b"x")
    rig.write(NEW)
    rig.take(OLD, NEW)
    rig.peer.script.append((403, "AccessDenied", b""))
    assert await rig.store.get("key") == b"x"
    assert rig.peer.signers[-1] == NEW[0]


class Counted:
    """A place of secrets that counts who looks, and can be away."""

    def __init__(self) -> None:
        self.keys, self.looks, self.away = OLD, 0, False
        self.wait = threading.Event()
        self.wait.set()

    def resolve(self, secret_ref: str) -> Secret:
        self.looks += 1
        self.wait.wait(5)
        if self.away:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "nobody answers")
        return Secret(secret_of(self.keys))


def rotating(peer: Peer, secrets: Counted, clock: ManualClock, seconds: float) -> RotatingStore:
    settings = replace(peer.settings(), credentials=None, secret_ref="env:ANY")
    return RotatingStore(settings, secrets, clock, S3Store, seconds)


async def test_they_are_looked_for_again_after_a_while_and_nobody_waits(peer: Peer) -> None:
    secrets, clock = Counted(), ManualClock()
    store = rotating(peer, secrets, clock, 300.0)
    await asyncio.gather(*(store.put(f"key-{n}", b"x") for n in range(5)))
    assert secrets.looks == 1
    await clock.advance(301)
    secrets.keys = NEW
    peer.keys = dict([OLD, NEW])
    secrets.wait.clear()
    await store.head("key-1")
    await store.head("key-2")
    assert peer.signers[-1] == OLD[0]
    secrets.wait.set()
    while peer.signers[-1] == OLD[0]:
        await store.head("key-3")
    assert secrets.looks == 2
    # Who is away does not take the keys away.
    await clock.advance(301)
    secrets.away = True
    await store.head("key-3")
    await asyncio.sleep(0.05)
    await store.head("key-3")
    assert peer.signers[-1] == NEW[0]
    await store.close()
    await store.close()


async def test_keys_that_cannot_be_had_say_so_and_never_not_found(peer: Peer) -> None:
    secrets = Counted()
    secrets.away = True
    store = rotating(peer, secrets, ManualClock(), 300.0)
    with pytest.raises(LakehouseError) as caught:
        await store.get("key")
    assert isinstance(caught.value, StoreError)
    assert (caught.value.kind, caught.value.sent) == (ErrorKind.UNAVAILABLE, False)
    await store.close()
    gone = replace(peer.settings(), credentials=None, secret_ref="env:LAKEHOUSE_TEST_NOT_SET")
    buckets = Buckets([gone], CLOCK, SeededIds(1), secrets=local_secrets({}))
    with pytest.raises(LakehouseError) as caught:
        await buckets.get("peer").get("key")
    assert caught.value.kind is ErrorKind.FORBIDDEN
    assert caught.value.fields["variable"] == "LAKEHOUSE_TEST_NOT_SET"
    # Nobody reaches the bucket, so it must not look like one that answers.
    health = buckets.health("peer")
    assert health.failures > 0
    assert health.unavailable_since is not None
    await buckets.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "canary-text",
        "[]",
        "{}",
        '{"access_key_id": "canary-id"}',
        '{"access_key_id": 1, "secret_access_key": "canary-s"}',
    ],
)
def test_a_secret_of_another_form_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        parse_credentials(Secret(text), "one")
    assert caught.value.kind is ErrorKind.INVALID
    assert "canary" not in f"{caught.value} {caught.value.fields} {caught.value.__cause__}"


async def test_rotated_keys_are_concealed_and_logged_without_them(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="lakehouse")
    await rig.store.put("key", b"x")
    rig.write(NEW)
    rig.take(NEW)
    await rig.store.get("key")
    assert {OLD[1], NEW[1]} <= set(concealed())
    assert "the keys of a bucket were exchanged" in caplog.text
    assert "canary" not in caplog.text
    assert "canary" not in repr(rig.buckets.settings("peer"))


async def test_a_bucket_may_be_made_with_keys_from_a_reference(rig: Rig) -> None:
    rig.peer.script.append((404, "", b""))
    assert await rig.buckets.create("peer")
