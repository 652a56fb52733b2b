"""Indexes of words over the rows of images: made when somebody searches by words, kept as long as
the numbering of the rows is, and followed by what is appended.

Rows that are gone stay in an index and are no candidates; when they are more than a tenth of it, it
is made anew without them. Until then they count in the statistics of BM25.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.vectors import VectorBackend
from lakehouse.objectstore.folders import Claim, claim
from lakehouse.vectord.book import Book
from lakehouse.vectord.image import Image
from lakehouse.vectord.lexical.port import Ranked, WordIndex
from lakehouse.vectord.lexical.ranking import best_rows, chosen_words
from lakehouse.vectord.parts import VectorParts

__all__ = ["Lexical"]

log = logging.getLogger(__name__)

Flags = npt.NDArray[np.bool_]
_Asked = tuple[Sequence[str], int, Flags, Callable[[], None]]

_PLACE: Final = "words"
_AT_ONCE: Final = 65_536
_DEAD_SHARE: Final = 10
_DEAD_MIN: Final = 100
_KEPT: Final = 2
# Of rows without their vectors; an index of more is on the disk.
_SMALL_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class _Made:
    """``head``: rows that were gone in the image of this version are not in it. ``upto``: rows
    before this number are, or were gone. ``small``: in memory."""

    index: WordIndex
    head: int
    upto: int
    small: bool


@dataclass(slots=True, eq=False)
class _Entry:
    """Of one numbering. ``made``: the newest last; the one before is for searches under way."""

    backend: VectorBackend
    made: list[_Made] = field(default_factory=list)
    work: asyncio.Task[None] | None = None


class Lexical:
    """Belongs to one event loop. ``built``: indexes that were made from the first row on."""

    def __init__(self, parts: VectorParts) -> None:
        self._parts = parts
        self._entries: weakref.WeakKeyDictionary[Book, _Entry] = weakref.WeakKeyDictionary()
        self._stop = threading.Event()
        self.built = 0

    async def search(
        self,
        image: Image,
        backend: VectorBackend,
        texts: Sequence[str],
        k: int,
        wanted: Flags | None = None,
        *,
        deadline: float | None = None,
    ) -> list[Ranked]:
        """The min(k, matches) best rows for each of ``texts``: those that have a word of it.

        Args:
            wanted: one flag a row; what it does not have is no candidate.
            deadline: on the clock's monotonic scale.

        Raises ``timeout`` where it passes before the last of ``texts`` is searched for; who gives
        up waiting ends the search at the next text.
        """
        if not image.count:
            return [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in texts]
        allowed = image.live if wanted is None else image.live & wanted
        given_up = threading.Event()

        def check() -> None:
            if given_up.is_set():
                raise LakehouseError(ErrorKind.UNAVAILABLE, "the search was given up")
            if deadline is not None and self._parts.clock.monotonic() > deadline:
                raise _too_late(len(texts))

        try:
            return await self._searched(image, backend, (texts, k, allowed, check))
        finally:
            given_up.set()

    async def _searched(self, image: Image, backend: VectorBackend, asked: _Asked) -> list[Ranked]:
        index = await self._index(image, backend)
        try:
            return await run_in(self._parts.jobs, _found, index, image.book, *asked)
        except LakehouseError as error:
            if error.kind is not ErrorKind.CORRUPT:
                raise
            log.warning("an index of words is made anew", extra={"reason": str(error)})
        entry = self._entries[image.book]
        entry.made = [each for each in entry.made if each.index is not index]
        index = await self._index(image, backend)
        return await run_in(self._parts.jobs, _found, index, image.book, *asked)

    async def close(self) -> None:
        """End what runs in the background; idempotent."""
        self._stop.set()
        tasks = [each.work for each in self._entries.values() if each.work is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._entries.clear()

    async def _index(self, image: Image, backend: VectorBackend) -> WordIndex:
        """One that has all rows of ``image``."""
        entry = self._entries.get(image.book)
        if entry is None:
            entry = self._entries[image.book] = _Entry(backend)
        while True:
            made = _fitting(entry, image)
            if made is not None and made.upto >= image.count and not _wasteful(made, image):
                return made.index
            if entry.work is None or entry.work.done():
                entry.work = asyncio.create_task(self._grow(entry, image), name="words")
                entry.work.add_done_callback(partial(_let_go, entry))
            # One at a time, whoever waits for it; it goes on when they no longer do.
            await asyncio.shield(entry.work)

    async def _grow(self, entry: _Entry, image: Image) -> None:
        made = _fitting(entry, image)
        if made is not None and not _wasteful(made, image):
            try:
                await self._extended(entry, made, image)
                return
            except LakehouseError as error:
                # Its folder was cleared away, say: once more, from the first row on.
                if error.kind is not ErrorKind.EXHAUSTED:
                    raise
        head = image.head if entry.made else -1
        small = image.book.size_bytes <= _SMALL_BYTES and entry.backend is not VectorBackend.LANCE
        index = await self._opened(entry.backend, small)
        live = image.live if head >= 0 else None
        await run_in(self._parts.jobs, _append, index, image, 0, live, self._stop)
        entry.made = [*entry.made, _Made(index, head, image.count, small)][-_KEPT:]
        self.built += 1

    async def _extended(self, entry: _Entry, made: _Made, image: Image) -> None:
        """With the rows of ``image`` that it does not have; what fails leaves an index that has
        some of them, and is not searched any more."""
        grown: list[_Made] = []
        try:
            start = made.upto
            await run_in(self._parts.jobs, _append, made.index, image, start, None, self._stop)
            grown.append(replace(made, upto=image.count))
        finally:
            entry.made = [one for each in entry.made for one in (grown if each is made else [each])]

    async def _opened(self, backend: VectorBackend, small: bool) -> WordIndex:
        if small:
            return await run_in(self._parts.jobs, _empty, backend, None)
        place = await self._place()
        try:
            return await run_in(self._parts.jobs, _empty, backend, place)
        except BaseException:
            place.release()
            raise

    async def _place(self) -> Claim:
        parent = str(Path(self._parts.settings.cache_dir) / _PLACE)
        try:
            return await claim(parent, self._parts.ids.ulid())
        except OSError as error:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE,
                "the folder for indexes of words cannot be written",
                folder=parent,
                reason=str(error)[:200],
                hint="see vectors.cache_dir in the configuration",
            ) from error


def _empty(backend: VectorBackend, place: Claim | None) -> WordIndex:
    if backend is VectorBackend.LANCE and place is not None:
        from lakehouse.vectord.adapters.lance_words import LanceWords

        return LanceWords(place)
    from lakehouse.vectord.adapters.tantivy import TantivyIndex

    return TantivyIndex(place)


def _fitting(entry: _Entry, image: Image) -> _Made | None:
    """The newest that lacks nothing of ``image``'s; else the oldest, which lacks least."""
    found = [each for each in entry.made if each.head <= image.head]
    return found[-1] if found else next(iter(entry.made), None)


def _wasteful(made: _Made, image: Image) -> bool:
    if made.head > image.head or made.upto < image.count:
        return False
    if made.small and image.book.size_bytes > 2 * _SMALL_BYTES:
        return True
    dead = made.index.texts - image.rows
    return dead > _DEAD_MIN and dead * _DEAD_SHARE > made.index.texts


def _append(
    index: WordIndex, image: Image, start: int, live: Flags | None, stop: threading.Event
) -> None:
    for rows, texts in _texts(image, start):
        if stop.is_set():
            raise LakehouseError(ErrorKind.UNAVAILABLE, "the node stops")
        if live is not None:
            kept = live[rows]
            rows, texts = rows[kept], texts.filter(pa.array(kept))
        if len(rows):
            index.append(rows, texts)


def _texts(image: Image, start: int) -> Iterator[tuple[npt.NDArray[np.int64], pa.Array]]:
    """The rows from ``start`` on, many at a time."""
    while start < image.count:
        page, at = image.book.place(start)
        texts = page.text.slice(at, min(_AT_ONCE, image.count - start))
        yield np.arange(start, start + len(texts)), texts
        start += len(texts)


def _found(
    index: WordIndex,
    book: Book,
    texts: Sequence[str],
    k: int,
    allowed: Flags,
    check: Callable[[], None],
) -> list[Ranked]:
    found = []
    for text in texts:
        check()
        found.append(best_rows(index, book, chosen_words(index, text), k, allowed))
    return found


def _too_late(texts: int) -> LakehouseError:
    return LakehouseError(
        ErrorKind.TIMEOUT,
        "the deadline passed before all texts were searched for",
        queries=texts,
        hint="allow more time, or ask for less at once",
    )


def _let_go(entry: _Entry, task: asyncio.Task[None]) -> None:
    """Those who waited were told; that nobody did is no defect. What failed holds the image that it
    failed with, and by that the entry itself."""
    if entry.work is task:
        entry.work = None
    if not task.cancelled():
        task.exception()
