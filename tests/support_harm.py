"""A store that harms what is read."""

from __future__ import annotations

import random

from lakehouse.objectstore.port import ByteRange, ObjectStore


class Harming:
    """A store whose reads are harmed at random, never the same object's twice in a row."""

    def __init__(self, inner: ObjectStore, rate: float, seed: int) -> None:
        self._inner = inner
        self._random = random.Random(seed)
        self._last: set[str] = set()
        self.rate = rate
        self.harmed: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        data = await self._inner.get(key, byte_range)
        if not data or key in self._last or self._random.random() >= self.rate:
            self._last.discard(key)
            return data
        self._last.add(key)
        self.harmed.append(key)
        at = self._random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
