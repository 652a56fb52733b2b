"""The collector in a node: what lives long is looked at once."""

from __future__ import annotations

import gc

import pytest

from lakehouse.node.process import COLLECTION_SECONDS_MAX, long_lived
from lakehouse.testing.clocks import ManualClock


@pytest.mark.parametrize(
    ("generation", "seconds", "frozen"),
    [
        (2, COLLECTION_SECONDS_MAX * 2, 1),
        (2, COLLECTION_SECONDS_MAX / 2, 0),
        (1, COLLECTION_SECONDS_MAX * 2, 0),
        (0, COLLECTION_SECONDS_MAX * 2, 0),
    ],
)
async def test_only_a_long_full_collection_freezes(
    monkeypatch: pytest.MonkeyPatch, generation: int, seconds: float, frozen: int
) -> None:
    calls: list[None] = []
    monkeypatch.setattr(gc, "freeze", lambda: calls.append(None))
    clock = ManualClock()
    watch = long_lived(clock)
    watch("start", {"generation": generation})
    await clock.advance(seconds)
    watch("stop", {"generation": generation})
    assert len(calls) == frozen
