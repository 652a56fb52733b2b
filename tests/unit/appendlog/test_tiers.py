"""What is merged: linear in bytes, ordered, bounded, and worth it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.appendlog.layout import Range
from lakehouse.appendlog.settings import LogSettings
from lakehouse.appendlog.tiers import Segment, plan_merges, tier_of

SETTINGS = LogSettings(merge_fan=4, merged_batches_max=256, merged_bytes_max=1 << 20)


@pytest.mark.parametrize(("batches", "tier"), [(1, 0), (3, 0), (4, 1), (15, 1), (16, 2), (64, 3)])
def test_tiers_are_powers_of_the_fan(batches: int, tier: int) -> None:
    assert tier_of(batches, 4) == tier


def _merged(first: int, last: int, size: int) -> Segment:
    return Segment(first, last, size, Range(first, last, f"{first}-{last}", "", size))


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.integers(1, 30_000),
    st.integers(16, 400),
)
def test_every_byte_is_rewritten_at_most_once_a_tier(
    arrivals: list[int], size: int, batches_max: int
) -> None:
    """Slots come in bursts of any size, and after each burst a compaction."""
    settings = LogSettings(
        merge_fan=4, merged_batches_max=batches_max, merged_bytes_max=SETTINGS.merged_bytes_max
    )
    segments: list[Segment] = []
    rewrites: dict[int, int] = {}
    n = 0
    for burst in arrivals:
        segments += [Segment(n + i, n + i, size) for i in range(burst)]
        n += burst
        for group in plan_merges(segments, settings):
            assert len(group) > 1
            first, last = group[0].first, group[-1].last
            total = sum(one.size_bytes for one in group)
            assert last - first + 1 <= batches_max
            assert total <= settings.merged_bytes_max
            for place in range(first, last + 1):
                rewrites[place] = rewrites.get(place, 0) + 1
            at = segments.index(group[0])
            assert tuple(segments[at : at + len(group)]) == group
            segments[at : at + len(group)] = [_merged(first, last, total)]
    assert [one.first for one in segments][1:] == [one.last + 1 for one in segments][:-1]
    # Once a tier, and once more into an object that is full.
    assert max(rewrites.values(), default=0) <= tier_of(batches_max, 4) + 1
    # What is left over is few: less than a fan of objects a tier, and the full ones.
    full = [
        one
        for one in segments
        if 2 * one.batches >= batches_max or 2 * one.size_bytes >= settings.merged_bytes_max
    ]
    runs = len(full) + 1
    assert len(segments) - len(full) <= runs * 4 * (tier_of(batches_max, 4) + 1)


def test_nothing_is_merged_over_a_gap_or_a_fixed_object() -> None:
    slots = [Segment(i, i, 10) for i in range(8) if i != 3]
    assert [(g[0].first, g[-1].last) for g in plan_merges(slots, SETTINGS)] == [(4, 7)]
    fixed = [
        Segment(0, 9, 10, Range(0, 9, "k", ""), fixed=True),
        *(Segment(i, i, 10) for i in range(10, 13)),
    ]
    assert plan_merges(fixed, SETTINGS) == []
