"""Idempotency keys: which commit a key asked for, for a day or the newest million.

Kept in segments of rising commit order, so that a checkpoint rewrites the last segment alone and
forgets whole segments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import pyarrow as pa

from lakehouse.ledger.machine import Part

SEGMENT_KEYS: Final = 4096
PART_PREFIX: Final = "ledger-keys-"

_SCHEMA: Final = pa.schema(
    [
        ("key_hash", pa.string()),
        ("body_sha256", pa.string()),
        ("seq", pa.int64()),
        ("n", pa.int64()),
        ("ts_us", pa.int64()),
    ]
)


class Key(NamedTuple):
    """``seq`` and ``n``: the commit and the record that hold its answer."""

    key_hash: str
    body_sha256: str
    seq: int
    n: int
    ts_us: int


class Keys:
    """Mutable; one owner. Only durable commits are ever added."""

    def __init__(self, keys_max: int, seconds: float) -> None:
        self._keys_max = keys_max
        self._lifetime_us = int(seconds * 1_000_000)
        self._segment_keys = max(1, min(SEGMENT_KEYS, keys_max // 4))
        self._segments: dict[int, list[Key]] = {}
        self._index: dict[str, Key] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._index)

    def find(self, key_hash: str, now_us: int) -> Key | None:
        """The commit of ``key_hash`` unless it is too old."""
        key = self._index.get(key_hash)
        return key if key is not None and now_us - key.ts_us < self._lifetime_us else None

    def add(self, key: Key) -> None:
        """Remember ``key``; forgets the oldest segment if there are too many or it is too old."""
        segment = self._segments.setdefault(self._last, [])
        if len(segment) >= self._segment_keys:
            self._last += 1
            segment = self._segments[self._last] = []
        segment.append(key)
        self._index[key.key_hash] = key
        self._forget(key.ts_us)

    def _forget(self, now_us: int) -> None:
        oldest = next(iter(self._segments))
        keys = self._segments[oldest]
        old = now_us - keys[-1].ts_us >= self._lifetime_us
        if oldest != self._last and (old or len(self._index) > self._keys_max):
            del self._segments[oldest]
            for key in keys:
                if self._index.get(key.key_hash) is key:
                    del self._index[key.key_hash]

    def snapshot(self) -> dict[int, Sequence[Key]]:
        """The segments as they are now; full ones never change and are shared."""
        snapshot: dict[int, Sequence[Key]] = dict(self._segments)
        if self._last in snapshot:
            snapshot[self._last] = tuple(snapshot[self._last])
        return snapshot

    def restore(self, segments: dict[int, list[Key]]) -> None:
        """Start from a checkpoint's segments."""
        self._segments = {number: segments[number] for number in sorted(segments)}
        self._last = max(self._segments, default=0)
        self._index = {key.key_hash: key for keys in self._segments.values() for key in keys}


def dump_segment(number: int, keys: Iterable[Key]) -> Part:
    """One segment as a part of a checkpoint."""
    columns = list(zip(*keys, strict=True)) or [()] * len(_SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=_SCHEMA)
    return Part(f"{PART_PREFIX}{number:09d}", table)


def load_segment(name: str, table: pa.Table) -> tuple[int, list[Key]]:
    """The inverse of ``dump_segment``."""
    columns = [column.to_pylist() for column in table.select(_SCHEMA.names).columns]
    keys = [Key(*row) for row in zip(*columns, strict=True)]
    return int(name.removeprefix(PART_PREFIX)), keys
