"""When a structure is made, and of which rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lakehouse.model.vectors import IndexVersion, Profile, VectorBackend, VersionState
from lakehouse.vectord.image import Image, Part
from lakehouse.vectord.ports import Labels
from lakehouse.vectord.tables import LANCE

__all__ = ["Plan", "merge_of", "mergeable", "plan_of", "should_fold", "tail_max", "wanted"]

_TAIL_SHARE: Final = 0.2
_QUIET_ROWS: Final = 1_000
_KEPT_SHARE: Final = 0.7
_SWALLOWED: Final = 2
_PARTS_MAX: Final = 4
_SPLIT_ROWS: Final = 20_000
_SPLIT: Final = 2
_FOLD_ROWS: Final = 10_000
_MERGED_SHARE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Plan:
    """``rows``: for each structure to be made its rows, by key; ``dropped``: the parts that they
    were in. ``grown``: the one of these that the first structure begins with, as it is."""

    rows: tuple[Labels, ...]
    dropped: tuple[Part, ...]
    grown: Part | None = None

    @property
    def labelled(self) -> tuple[Labels, ...]:
        """For each structure the rows that its labels stand for."""
        if self.grown is None:
            return self.rows
        return (np.concatenate([self.grown.rows, self.rows[0]]), *self.rows[1:])


def tail_max(image: Image, version: IndexVersion, most: int, *, quiet: bool) -> int:
    """How many rows may be compared one by one.

    Args:
        most: of them, in any case.
        quiet: nothing is written just now: then there is time to make them few.
    """
    tail = len(image.tail_rows) - image.tail_dead
    if version.state is VersionState.BUILDING:
        # What is built while most is still to come is built again soon: each time twice as much.
        return max(most, image.rows - tail)
    few = min(most, int(_TAIL_SHARE * image.rows))
    return min(few, _QUIET_ROWS) if quiet else few


def wanted(image: Image, profile: Profile, most: int) -> tuple[Part, ...] | None:
    """The parts that new structures take the place of; None where there is nothing to do: no more
    than ``most`` rows in the tail, few dead labels, and graphs in the shape of the profile."""
    rows = image.rows
    if rows <= profile.exact_rows_max:
        return None
    tail = len(image.tail_rows) - image.tail_dead
    live = {id(p): p.index.rows - dead for p, dead in zip(image.parts, image.dead, strict=True)}
    worn = {
        id(part)
        for part in image.parts
        if live[id(part)] < part.index.rows * _KEPT_SHARE or _is_misshapen(part, profile)
    }
    if not worn and tail <= most:
        return None
    # What is small beside the tail goes into the same: each row is built in few times, and parts
    # stay few.
    dropped = [p for p in image.parts if id(p) in worn or live[id(p)] < _SWALLOWED * tail]
    kept = [part for part in image.parts if part not in dropped]
    kept.sort(key=lambda part: live[id(part)])
    while len(kept) >= _PARTS_MAX:
        dropped.append(kept.pop(0))
    return tuple(dropped)


def _is_misshapen(part: Part, profile: Profile) -> bool:
    """A graph that was built with another setting than the profile has now."""
    shape = getattr(part.index, "shape", None)
    m = profile.hnsw_m
    return shape is not None and shape != (m, max(m, profile.ef_construction))


def plan_of(image: Image, profile: Profile, most: int) -> Plan | None:
    """What is to be built now; None for nothing."""
    dropped = wanted(image, profile, most)
    if dropped is None:
        return None
    rows = np.concatenate([image.tail_rows, *(part.rows[part.rows >= 0] for part in dropped)])
    rows = image.book.in_order(rows[image.live[rows]])
    if not len(rows):
        return Plan((), dropped)
    # Two threads build two graphs in half the time of one, and to search both costs little more.
    graphs = profile.vector_backend is VectorBackend.PARQUET
    pieces = _SPLIT if graphs and len(rows) >= _SPLIT_ROWS else 1
    return Plan(tuple(np.array_split(rows, pieces)), dropped)


def mergeable(image: Image, version: IndexVersion) -> bool:
    """Whether one graph is better than those that there are: to search two takes nearly twice as
    long as one of both. Not for a few rows, as all of the graph is written again with them."""
    graphs = version.profile.vector_backend is VectorBackend.PARQUET
    if not graphs or len(image.parts) < 2 or version.state is VersionState.BUILDING:
        return False
    if any(part.labels is None or part.structure.kind == LANCE for part in image.parts):
        return False
    most = max(part.index.rows for part in image.parts)
    return image.rows - most >= _MERGED_SHARE * most


def merge_of(image: Image) -> Plan:
    """One graph of several: the largest, and the rows of the others and of the tail behind it, for
    that is half the work of a new one."""
    base = max(image.parts, key=lambda part: part.index.rows)
    others = [part.rows[part.rows >= 0] for part in image.parts if part is not base]
    rows = np.concatenate([image.tail_rows, *others])
    return Plan((image.book.in_order(rows[image.live[rows]]),), image.parts, base)


def should_fold(image: Image) -> bool:
    """Whether so much was appended, or is gone, that rows are better numbered anew."""
    most = max(_FOLD_ROWS, image.count // 4)
    return image.book.appended > most or image.count - image.rows > most
