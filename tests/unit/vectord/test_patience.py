"""An embedder is waited for a little: longer before it was met, not at all where it is away."""

from __future__ import annotations

import asyncio

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.vectord.retrieval import patience as p
from lakehouse.vectord.retrieval.patience import Patience


async def answer() -> str:
    return "vectors"


async def test_a_model_that_loads_is_waited_for_and_one_that_is_slow_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(p, "_SECONDS", 0.01)
    monkeypatch.setattr(p, "_SECONDS_A_TEXT", 0.0)
    waiting = Patience(SystemClock())

    async def loading() -> str:
        await asyncio.sleep(0.1)
        return "vectors"

    assert await waiting.embedded("m", 1, loading) == ("vectors", "")
    found, reason = await waiting.embedded("m", 1, loading)
    assert (found, bool(reason)) == (None, True)
    # It is not asked twice at a time, and is asked again when it has answered.
    assert (await waiting.embedded("m", 1, answer))[0] is None
    await asyncio.sleep(0.15)
    assert await waiting.embedded("m", 1, answer) == ("vectors", "")
    await waiting.close()


@pytest.mark.parametrize("kind", [ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT, ErrorKind.EXHAUSTED])
async def test_who_is_away_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch, kind: ErrorKind
) -> None:
    monkeypatch.setattr(p, "_AWAY_SECONDS", 0.05)
    waiting = Patience(SystemClock())
    asked = 0

    async def refuse() -> str:
        nonlocal asked
        asked += 1
        raise LakehouseError(kind, "nobody answers")

    for _ in range(3):
        assert await waiting.embedded("m", 1, refuse) == (None, "nobody answers")
    assert asked == 1
    await asyncio.sleep(0.06)
    assert await waiting.embedded("m", 1, answer) == ("vectors", "")


@pytest.mark.parametrize("kind", [ErrorKind.INVALID, ErrorKind.CONFLICT, ErrorKind.NOT_FOUND])
async def test_a_refusal_is_no_absence(kind: ErrorKind) -> None:
    async def refuse() -> str:
        raise LakehouseError(kind, "not so")

    with pytest.raises(LakehouseError) as caught:
        await Patience(SystemClock()).embedded("m", 1, refuse)
    assert caught.value.kind is kind
