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

    assert await waiting.embedded("m", ["one"], loading) == ("vectors", "")
    found, reason = await waiting.embedded("m", ["one"], loading)
    assert (found, bool(reason)) == (None, True)
    # It is not asked twice at a time, and is asked again when it has answered.
    assert (await waiting.embedded("m", ["one"], answer))[0] is None
    await asyncio.sleep(0.15)
    assert await waiting.embedded("m", ["one"], answer) == ("vectors", "")
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

    assert await waiting.embedded("m", ["one"], answer) == ("vectors", "")
    for _ in range(3):
        assert await waiting.embedded("m", ["one"], refuse) == (None, "nobody answers")
    assert asked == 1
    assert await waiting.embedded("other", ["one"], answer) == ("vectors", "")
    await asyncio.sleep(0.06)
    assert await waiting.embedded("m", ["one"], answer) == ("vectors", "")


@pytest.mark.parametrize("kind", [ErrorKind.INVALID, ErrorKind.CONFLICT, ErrorKind.NOT_FOUND])
async def test_a_refusal_is_no_absence(kind: ErrorKind) -> None:
    async def refuse() -> str:
        raise LakehouseError(kind, "not so")

    with pytest.raises(LakehouseError) as caught:
        await Patience(SystemClock()).embedded("m", ["one"], refuse)
    assert caught.value.kind is kind


MUCH = ["word " * 1_000]
MANY = ["one"] * 100


@pytest.mark.parametrize("much", [MUCH, MANY], ids=["long", "many"])
async def test_what_takes_long_for_one_caller_keeps_no_other_waiting(
    monkeypatch: pytest.MonkeyPatch, much: list[str]
) -> None:
    monkeypatch.setattr(p, "_SECONDS", 0.01)
    monkeypatch.setattr(p, "_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(p, "_SECONDS_A_TEXT", 0.0)
    waiting, over = Patience(SystemClock()), asyncio.Event()

    async def slow() -> str:
        await over.wait()
        return "vectors"

    assert (await waiting.embedded("m", much, slow))[0] is None
    # Much is not asked for twice at a time; a little is.
    assert (await waiting.embedded("m", much, answer))[0] is None
    assert await waiting.embedded("m", ["one"], answer) == ("vectors", "")
    # A server that is slow with a little is slow; with others it may not be.
    assert (await waiting.embedded("m", ["one"], slow))[0] is None
    assert (await waiting.embedded("m", ["two"], answer))[0] is None
    assert await waiting.embedded("other", ["two"], answer) == ("vectors", "")
    over.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await waiting.embedded("m", much, answer) == ("vectors", "")
    assert await waiting.embedded("m", ["two"], answer) == ("vectors", "")
    await waiting.close()


@pytest.mark.parametrize(
    ("kind", "told"),
    [(ErrorKind.UNAVAILABLE, True), (ErrorKind.TIMEOUT, False), (ErrorKind.EXHAUSTED, False)],
)
async def test_no_room_for_much_is_no_absence_for_a_little(kind: ErrorKind, told: bool) -> None:
    waiting = Patience(SystemClock())

    async def refuse() -> str:
        raise LakehouseError(kind, "not now")

    assert await waiting.embedded("m", MUCH, refuse) == (None, "not now")
    assert await waiting.embedded("m", MUCH, answer) == (None, "not now")
    found = await waiting.embedded("m", ["one"], answer)
    assert found == ((None, "not now") if told else ("vectors", ""))


async def test_who_is_slow_is_left_to_it_and_asked_when_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(p, "_SECONDS", 0.02)
    monkeypatch.setattr(p, "_FIRST_SECONDS", 0.02)
    waiting, gate, asked = Patience(SystemClock()), asyncio.Event(), 0

    async def slow() -> int:
        nonlocal asked
        asked += 1
        await gate.wait()
        return 5

    value, reason = await waiting.embedded("one", ["x"], slow)
    assert (value, asked) == (None, 1)
    assert reason
    # It goes on meanwhile, once.
    assert (await waiting.embedded("one", ["x"], slow))[0] is None
    assert asked == 1
    gate.set()
    await asyncio.sleep(0.01)
    assert await waiting.embedded("one", ["x"], slow) == (5, "")
    await waiting.close()
