"""The node's own token rotates; references that are none are refused without showing them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.secrets import Secret
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.node.buckets import live_secrets, open_buckets
from lakehouse.node.config import load_config
from lakehouse.node.credentialed import Credentialed, OwnToken
from lakehouse.testing.clocks import ManualClock, SeededIds

CTX = Context(ANONYMOUS_OPERATOR, "r-1")


class Secrets:
    def __init__(self) -> None:
        self.text, self.looks = "old", 0

    def resolve(self, secret_ref: str) -> Secret:
        self.looks += 1
        if not self.text:
            raise LakehouseError(ErrorKind.NOT_FOUND, "gone")
        return Secret(self.text)


class Peer:
    """A contract that takes one token."""

    def __init__(self) -> None:
        self.takes = "old"

    async def ask(self, ctx: Context, request: Any) -> str:
        if ctx.credential != self.takes:
            raise LakehouseError(ErrorKind.UNAUTHENTICATED, "no such token")
        return f"{request} by {ctx.credential}"


async def test_a_token_that_rotated_is_looked_for_when_it_is_refused() -> None:
    secrets, peer, clock = Secrets(), Peer(), ManualClock()
    client = Credentialed(peer, OwnToken(secrets, "env:ANY", clock))
    assert await client.ask(CTX, 1) == "1 by old"
    secrets.text = peer.takes = "new"
    assert await client.ask(CTX, 2) == "2 by new"
    assert secrets.looks == 2
    peer.takes = "other"
    for _ in range(3):
        with pytest.raises(LakehouseError):
            await client.ask(CTX, 3)
    assert secrets.looks == 3
    secrets.text = "other"
    await clock.advance(2)
    assert await client.ask(CTX, 4) == "4 by other"
    secrets.text, peer.takes = "", "newest"
    await clock.advance(2)
    with pytest.raises(LakehouseError) as caught:
        await client.ask(CTX, 5)
    assert caught.value.kind is ErrorKind.UNAUTHENTICATED


async def test_a_caller_s_credential_is_passed_on_as_it_is() -> None:
    peer = Peer()
    client = Credentialed(peer, OwnToken(Secrets(), "env:ANY", ManualClock()))
    peer.takes = "caller's"
    assert await client.ask(replace(CTX, credential="caller's"), 1) == "1 by caller's"
    with pytest.raises(LakehouseError):
        await client.ask(replace(CTX, credential="wrong"), 1)


@pytest.mark.parametrize("key", ["BUCKETS__EU__SECRET_REF", "NODE__SECRET_REF"])
@pytest.mark.parametrize(
    "value", ["canary-secret", '{"secret_access_key": "canary"}', "vault:canary"]
)
def test_a_secret_in_the_place_of_its_reference_is_refused_unseen(key: str, value: str) -> None:
    environ = {"LAKEHOUSE__BUCKETS__EU__URL": "s3://eu", f"LAKEHOUSE__{key}": value}
    with pytest.raises(LakehouseError) as caught:
        load_config(None, environ)
    assert caught.value.kind is ErrorKind.INVALID
    assert "canary" not in f"{caught.value} {caught.value.fields}"


def test_each_bucket_has_the_bounds_and_the_reference_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environ = {
        "LAKEHOUSE__BUCKETS__EU__URL": "s3://eu",
        "LAKEHOUSE__BUCKETS__EU__SECRET_REF": "env:NOT_SET_ANYWHERE",
        "LAKEHOUSE__BUCKETS__EU__ATTEMPT_SECONDS": "3",
        "LAKEHOUSE__BUCKETS__EU__IN_FLIGHT_MAX": "5",
        "LAKEHOUSE__STORAGE__ATTEMPT_SECONDS": "7",
    }
    config = load_config(None, environ)
    buckets = open_buckets(config, ManualClock(), SeededIds(1))
    assert buckets._watch("eu").settings.attempt_seconds == 3
    assert buckets._watch("eu").settings.in_flight_max == 5
    assert buckets._watch("primary").settings.attempt_seconds == 7
    assert buckets.settings("eu").secret_ref == "env:NOT_SET_ANYWHERE"
    # A tenant's secret that is not there stops nobody; the primary's does.
    assert live_secrets(config) == frozenset()
    wrong = environ | {"LAKEHOUSE__BUCKETS__PRIMARY__SECRET_REF": "env:NOT_SET_ANYWHERE"}
    with pytest.raises(LakehouseError) as caught:
        live_secrets(load_config(None, wrong))
    assert caught.value.kind is ErrorKind.NOT_FOUND


async def test_a_body_goes_with_the_token_and_goes_once() -> None:
    class Taker(Peer):
        taken = 0

        async def put(self, ctx: Context, request: Any, body: list[int]) -> str:
            self.taken += len(body)
            return await self.ask(ctx, request)

    secrets, peer = Secrets(), Taker()
    client = Credentialed(peer, OwnToken(secrets, "env:ANY", ManualClock()))
    assert await client.put(CTX, 1, [1, 2]) == "1 by old"
    secrets.text = peer.takes = "new"
    with pytest.raises(LakehouseError):
        await client.put(CTX, 2, [3])
    assert (peer.taken, secrets.looks) == (3, 1)
    assert await client.put(replace(CTX, credential="new"), 3, [4]) == "3 by new"
