"""What to merge: pure. A byte is rewritten at most once a tier.

The tier of a segment is the logarithm of its number of batches to the base ``fan``. A run of
neighbours of tier t or less is merged when together they reach tier t + 1; so whatever is rewritten
rises by a tier at least, and an object that is half as large as one may be is left alone for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from lakehouse.appendlog.layout import Range
from lakehouse.appendlog.settings import LogSettings


@dataclass(frozen=True, slots=True)
class Segment:
    """Batches that lie in one object: a slot, or ``merged``. ``fixed`` ones take no part."""

    first: int
    last: int
    size_bytes: int
    merged: Range | None = None
    fixed: bool = False

    @property
    def batches(self) -> int:
        return self.last - self.first + 1


def tier_of(batches: int, fan: int) -> int:
    """The largest t with ``fan ** t <= batches``."""
    tier = 0
    while batches >= fan:
        batches //= fan
        tier += 1
    return tier


def plan_merges(segments: Sequence[Segment], settings: LogSettings) -> list[tuple[Segment, ...]]:
    """Groups of neighbours, in order, each to become one object."""
    planned: list[tuple[Segment, ...]] = []
    rest = [tuple(run) for run in _runs(segments, settings)]
    for tier in range(tier_of(settings.merged_batches_max, settings.merge_fan), -1, -1):
        left: list[tuple[Segment, ...]] = []
        for run in rest:
            for low, group in groupby(run, partial(_is_at_most, settings, tier)):
                part = tuple(group)
                groups, tail = _cut(part, tier, settings) if low else ([], part)
                planned += groups
                left.append(tail)
        rest = left
    return sorted(planned, key=lambda group: group[0].first)


def _is_at_most(settings: LogSettings, tier: int, one: Segment) -> bool:
    return tier_of(one.batches, settings.merge_fan) <= tier


def _full(batches: int, size_bytes: int, settings: LogSettings) -> bool:
    return 2 * batches >= settings.merged_batches_max or 2 * size_bytes >= settings.merged_bytes_max


def _runs(segments: Sequence[Segment], settings: LogSettings) -> Iterator[list[Segment]]:
    """Neighbours without a gap that may be merged."""
    run: list[Segment] = []
    for one in segments:
        closed = one.fixed or _full(one.batches, one.size_bytes, settings)
        if run and (closed or one.first != run[-1].last + 1):
            yield run
            run = []
        if not closed:
            run.append(one)
    if run:
        yield run


def _cut(
    run: tuple[Segment, ...], tier: int, settings: LogSettings
) -> tuple[list[tuple[Segment, ...]], tuple[Segment, ...]]:
    """Groups that are full or reach the next tier, and what is left over at the end."""
    enough = settings.merge_fan ** (tier + 1)
    if sum(one.batches for one in run) < min(enough, settings.merged_batches_max):
        return [], run
    groups: list[tuple[Segment, ...]] = []
    group: list[Segment] = []
    batches = size = 0
    for one in run:
        over = (
            batches + one.batches > settings.merged_batches_max
            or size + one.size_bytes > settings.merged_bytes_max
        )
        if group and over:
            groups.append(tuple(group))
            group, batches, size = [], 0, 0
        group.append(one)
        batches, size = batches + one.batches, size + one.size_bytes
    if len(group) > 1 and (batches >= enough or _full(batches, size, settings)):
        groups.append(tuple(group))
        group = []
    return [one for one in groups if len(one) > 1], tuple(group)
