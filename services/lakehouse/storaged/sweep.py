"""A comparison of all copies with the catalog, a page at a time: what is too much, what is missing.

First all copies are listed and the catalog is asked for the standing of each; then the catalog's
objects are walked and looked up among the copies that were seen, as 8 bytes each. It finds what no
change tells: copies that somebody removed or cut short, objects given up while nobody looked.
"""

from __future__ import annotations

import bisect
import hashlib
from array import array
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.inventory import ObjectStanding, ObjectState
from lakehouse.kit.ids import Ids
from lakehouse.model.refs import ObjectRef
from lakehouse.objectstore.port import ObjectMeta
from lakehouse.objectstore.rescue import place_of, rescue_key

__all__ = ["Sample", "Seen", "Verdict", "Walk", "is_foreign", "judge", "origins"]

OURS: Final = "datasets/"


class Verdict(Enum):
    """``KEEP`` also where nothing is known. ``REMOVE``: it must not be there. ``DAMAGED``: it
    should be there and is not what it should be."""

    KEEP = auto()
    REMOVE = auto()
    DAMAGED = auto()


def judge(copy: ObjectMeta, origin: ObjectRef, state: ObjectState, excluded: bool) -> Verdict:
    """What becomes of a copy. Only what the catalog or the configuration says removes one.

    Args:
        excluded: residency keeps the objects of the origin's bucket away from here.
    """
    if state.standing is ObjectStanding.GIVEN_UP or excluded:
        return Verdict.REMOVE
    sized = state.standing is ObjectStanding.NAMED and state.size_bytes > 0
    if sized and copy.size_bytes != state.size_bytes:
        return Verdict.DAMAGED
    return Verdict.KEEP


def is_foreign(key: str) -> bool:
    """Whether an object was registered and not written by a session: its end is in no change."""
    return not key.startswith(OURS)


def origins(page: Collection[ObjectMeta]) -> list[tuple[ObjectMeta, ObjectRef]]:
    """The copies of a listing with what they are copies of; keys that are no copy's are left."""
    found = []
    for copy in page:
        origin = place_of(copy.key)
        if origin is not None:
            found.append((copy, ObjectRef(*origin)))
    return found


class Seen:
    """A set of objects in 8 bytes each. A chance collision hides a missing copy from one sweep."""

    def __init__(self, salt: str) -> None:
        # Another salt every time: what collides today does not tomorrow.
        self._salt = bytes.fromhex(salt)
        self._hashes = array("Q")
        self._sorted = True

    def add(self, bucket: str, key: str) -> None:
        self._hashes.append(self._hash(bucket, key))
        self._sorted = False

    def __contains__(self, place: tuple[str, str]) -> bool:
        if not self._sorted:
            self._sort()
        wanted = self._hash(*place)
        at = bisect.bisect_left(self._hashes, wanted)
        return at < len(self._hashes) and self._hashes[at] == wanted

    def _hash(self, bucket: str, key: str) -> int:
        name = f"{bucket}/{key}".encode()
        return int.from_bytes(hashlib.blake2b(name, digest_size=8, key=self._salt).digest())

    def _sort(self) -> None:
        self._sorted = True
        if not self._hashes:
            return
        values = pa.Array.from_buffers(
            pa.uint64(), len(self._hashes), [None, pa.py_buffer(self._hashes)]
        )
        ordered = values.take(pc.sort_indices(values))
        self._hashes = array("Q", bytes(ordered.buffers()[1])[: 8 * len(ordered)])


class Sample:
    """A uniform sample of at most ``size`` of all objects offered."""

    def __init__(self, size: int, ids: Ids) -> None:
        self._size = size
        self._ids = ids
        self._offered = 0
        self.objects: list[ObjectRef] = []

    def offer(self, origin: ObjectRef) -> None:
        self._offered += 1
        if len(self.objects) < self._size:
            self.objects.append(origin)
            return
        place = int(self._ids.uniform() * self._offered)
        if place < self._size:
            self.objects[place] = origin


@dataclass(slots=True)
class Walk:
    """How far a sweep has come.

    Attributes:
        version: of the store when it began; what came later is not its business, but for buckets
            that are copied for the first time (``fresh``).
        listed: key of the last copy looked at; None once all were.
        cursors: bucket -> where to go on in its objects; a bucket is taken out when it is done.
        foreign_only: it looks at copies of others' objects alone.
    """

    version: int
    began: float
    seen: Seen
    sample: Sample
    listed: str | None = ""
    cursors: dict[str, str] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)
    foreign_only: bool = False

    def go_on(self, page: Collection[ObjectMeta], limit: int) -> None:
        """A page of at most ``limit`` copies was looked at."""
        last = max((copy.key for copy in page), default="")
        origin = place_of(last)
        if self.foreign_only and origin is not None and not is_foreign(origin[1]):
            # Nobody else's key is between there and the last one that a session can have written.
            last = rescue_key(origin[0], f"{OURS}~")
        self.listed = last if len(page) == limit else None
