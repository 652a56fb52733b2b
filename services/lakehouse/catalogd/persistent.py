"""Two persistent sequences: a vector that grows at its end, and a sorted set. Both share
structure: an update copies a chunk of at most a few hundred pointers and the list of chunks."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")
_CHUNK: Final = 256


@dataclass(frozen=True, slots=True)
class Vector(Generic[T]):
    """``chunks`` are full, ``tail`` has fewer items than a chunk; ``start`` is the index of the
    first item kept: indexes stay what they were when items are cut off the front."""

    chunks: tuple[tuple[T, ...], ...] = ()
    tail: tuple[T, ...] = ()
    start: int = 0

    @property
    def end(self) -> int:
        """One past the index of the last item."""
        return self.start + len(self.chunks) * _CHUNK + len(self.tail)

    def __len__(self) -> int:
        return self.end - self.start

    def __iter__(self) -> Iterator[T]:
        for chunk in self.chunks:
            yield from chunk
        yield from self.tail

    def __getitem__(self, index: int) -> T:
        """``start <= index < end``."""
        if not self.start <= index < self.end:
            raise IndexError(index)
        chunk, place = divmod(index - self.start, _CHUNK)
        return self.chunks[chunk][place] if chunk < len(self.chunks) else self.tail[place]

    def append(self, item: T) -> Vector[T]:
        tail = (*self.tail, item)
        if len(tail) < _CHUNK:
            return Vector(self.chunks, tail, self.start)
        return Vector((*self.chunks, tail), (), self.start)

    def replace_last(self, item: T) -> Vector[T]:
        """The vector with another last item; it must not be empty."""
        if self.tail:
            return Vector(self.chunks, (*self.tail[:-1], item), self.start)
        return Vector(self.chunks[:-1], (*self.chunks[-1][:-1], item), self.start).settled()

    def settled(self) -> Vector[T]:
        """Move a full tail among the chunks."""
        if len(self.tail) < _CHUNK:
            return self
        return Vector((*self.chunks, self.tail), (), self.start)

    def cut(self, index: int) -> Vector[T]:
        """Without whole chunks below ``index``: what is cut may be less, never more."""
        whole = min(max(0, (index - self.start) // _CHUNK), len(self.chunks))
        return Vector(self.chunks[whole:], self.tail, self.start + whole * _CHUNK)

    def bisect(self, value: Any, key: Callable[[T], Any]) -> int:
        """The index after the last item with ``key(item) <= value``; keys must not fall."""
        low, high = self.start, self.end
        while low < high:
            middle = (low + high) // 2
            if key(self[middle]) <= value:
                low = middle + 1
            else:
                high = middle
        return low

    @staticmethod
    def of(items: Iterable[T], start: int = 0) -> Vector[T]:
        every = tuple(items)
        whole = len(every) // _CHUNK * _CHUNK
        chunks = tuple(every[at : at + _CHUNK] for at in range(0, whole, _CHUNK))
        return Vector(chunks, every[whole:], start)


NameEntry = tuple[str, str]


@dataclass(frozen=True, slots=True)
class SortedNames:
    """A persistent sorted set of (name key, dataset id)."""

    chunks: tuple[tuple[NameEntry, ...], ...] = ()
    size: int = 0

    def __len__(self) -> int:
        return self.size

    def _find(self, entry: NameEntry) -> int:
        """The chunk that holds ``entry`` or would."""
        at = bisect.bisect_right(self.chunks, entry, key=lambda chunk: chunk[0])
        return max(0, at - 1)

    def add(self, entry: NameEntry) -> SortedNames:
        if not self.chunks:
            return SortedNames(((entry,),), 1)
        at = self._find(entry)
        chunk = self.chunks[at]
        place = bisect.bisect_left(chunk, entry)
        if place < len(chunk) and chunk[place] == entry:
            return self
        grown = (*chunk[:place], entry, *chunk[place:])
        half = len(grown) // 2
        parts = (grown,) if len(grown) <= _CHUNK * 2 else (grown[:half], grown[half:])
        return SortedNames((*self.chunks[:at], *parts, *self.chunks[at + 1 :]), self.size + 1)

    def remove(self, entry: NameEntry) -> SortedNames:
        if not self.chunks:
            return self
        at = self._find(entry)
        chunk = self.chunks[at]
        place = bisect.bisect_left(chunk, entry)
        if place == len(chunk) or chunk[place] != entry:
            return self
        left = (*chunk[:place], *chunk[place + 1 :])
        parts = (left,) if left else ()
        return SortedNames((*self.chunks[:at], *parts, *self.chunks[at + 1 :]), self.size - 1)

    def after(self, entry: NameEntry) -> Iterator[NameEntry]:
        """Entries greater than ``entry``, in order."""
        if not self.chunks:
            return
        at = self._find(entry)
        yield from self.chunks[at][bisect.bisect_right(self.chunks[at], entry) :]
        for chunk in self.chunks[at + 1 :]:
            yield from chunk

    def around(self, entry: NameEntry, reach: int) -> list[NameEntry]:
        """Up to about ``reach`` entries on either side of where ``entry`` would stand."""
        if not self.chunks:
            return []
        at = self._find(entry)
        near = [item for chunk in self.chunks[max(0, at - 1) : at + 2] for item in chunk]
        place = bisect.bisect_left(near, entry)
        return near[max(0, place - reach) : place + reach]

    @staticmethod
    def of(entries: Iterable[NameEntry]) -> SortedNames:
        every = sorted(set(entries))
        chunks = tuple(tuple(every[at : at + _CHUNK]) for at in range(0, len(every), _CHUNK))
        return SortedNames(chunks, len(every))
