"""What is searched: all rows of a version of an index, and what finds the nearest of them.

An ``Image`` is a value: what changes it makes another, so that a search that is under way ends on
the rows it began with, whatever is written, built or exchanged meanwhile, in any thread. Each row
is in one place: a label of one part (a structure), or the tail, whose vectors are compared one by
one. Rows that are gone are no candidates; nothing else about them matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.model.vectors import Distance, Structure
from lakehouse.vectord.book import KEY, Book, fitted
from lakehouse.vectord.nearest import Matrix, blank
from lakehouse.vectord.ports import Labels, SearchIndex, Vectors
from lakehouse.vectord.tables import LANCE

__all__ = ["Compares", "Found", "Image", "Part", "matrix_of"]

Flags = npt.NDArray[np.bool_]
Found = tuple[Labels, Vectors]
"""Row numbers and distances, nearest first."""

_PART_BITS: Final = 40
_LABEL_MASK: Final = (1 << _PART_BITS) - 1
_BLOCK_ROWS: Final = 16_384
_TAIL_MIN: Final = 256
_CANDIDATE_US: Final = 5.5
_ROW_US: Final = 0.3
_EF: Final = 128
_EF_MIN: Final = 48


@runtime_checkable
class Compares(Protocol):
    """Capability of a structure: compare every vector, where they lie."""

    def compare(
        self, queries: Vectors, k: int, allowed: Flags | None = None
    ) -> tuple[Labels, Vectors]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A structure and the rows that its labels stand for; -1 where there was none to begin with.

    ``structure.key`` is "" while it is in memory alone. ``labels``: what the rows must still be
    for the labels to stand for them, where they are read anew (``structures.LABELS``).
    """

    structure: Structure
    index: SearchIndex
    rows: Labels
    size_bytes: int = 0
    labels: pa.Table | None = None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Image:
    """Rows ``[0, count)`` of ``book`` that are ``live``.

    Attributes:
        head: the version of the vectors' dataset that this is.
        where: of each row: the number of its part (0 is the tail) and its label there.
        dead: labels of each part whose rows are gone; ``tail_dead`` of the tail.
    """

    distance: Distance
    dimensions: int
    head: int
    book: Book
    count: int
    live: Flags
    parts: tuple[Part, ...]
    dead: tuple[int, ...]
    room: Room
    tail: Matrix
    tail_rows: Labels
    tail_dead: int
    where: Labels
    _allowed: dict[int, Flags] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        shape: tuple[int, Distance],
        head: int,
        rows: pa.Table,
        parts: Sequence[Part] = (),
        vectors: Callable[[Labels], Vectors] | None = None,
    ) -> Image:
        """Of ``rows`` sorted by key.

        Args:
            shape: dimensions and distance.
            parts: no row in two of them; labels of -1 stand for no row.
            vectors: gives those of the rows that no part has, rising.
        """
        count = rows.num_rows
        dimensions, distance = shape
        where = np.full(count, -1, np.int64)
        _enter(where, parts)
        tail_rows = np.flatnonzero(where < 0)
        where[tail_rows] = np.arange(len(tail_rows))
        room = Room(np.empty((0, dimensions), np.float32), 0)
        if len(tail_rows):
            assert vectors is not None
            room = Room(vectors(tail_rows), len(tail_rows))
        dead = tuple(int(np.count_nonzero(part.rows < 0)) for part in parts)
        live = np.ones(count, np.bool_)
        tail = Matrix(room.vectors, distance)
        return cls(
            distance,
            dimensions,
            head,
            Book(rows),
            count,
            live,
            tuple(parts),
            dead,
            room,
            tail,
            tail_rows,
            0,
            where,
        )

    @property
    def rows(self) -> int:
        """How many can be found."""
        return int(np.count_nonzero(self.live))

    @property
    def size_bytes(self) -> int:
        """In memory, about."""
        arrays = self.live.nbytes + self.where.nbytes + self.tail_rows.nbytes
        parts = sum(part.size_bytes + part.rows.nbytes for part in self.parts)
        return self.book.size_bytes + self.room.size_bytes + arrays + parts

    def applied(
        self, upserts: pa.Table | None, gone: Iterable[tuple[str, int]], head: int
    ) -> Image:
        """With rows inserted or replaced, and others gone.

        Args:
            upserts: columns of ``ROW_SCHEMA`` and ``vector``; each key once.
            gone: entity and chunk; those that are not there are no error.
        """
        if upserts is not None and not upserts.num_rows:
            upserts = None
        keys = set(gone)
        rows = None if upserts is None else fitted(upserts)
        if rows is not None:
            columns = [rows.column(name).to_pylist() for name in KEY]
            keys |= set(zip(*columns, strict=True))
        image = self._without(keys)
        if rows is not None and upserts is not None:
            image = image._with(rows, matrix_of(upserts.column("vector"), self.dimensions))
        return replace(image, head=head, _allowed={})

    def _without(self, keys: set[tuple[str, int]]) -> Image:
        found = self.book.find(sorted({entity for entity, _ in keys}))
        found = found[found < self.count]
        old = [row for row in found[self.live[found]].tolist() if self.book.key(row) in keys]
        if not old:
            return self
        live = self.live.copy()
        live[old] = False
        counts = np.bincount(self.where[old] >> _PART_BITS, minlength=len(self.parts) + 1)
        dead = tuple(n + int(more) for n, more in zip(self.dead, counts[1:], strict=True))
        return replace(self, live=live, dead=dead, tail_dead=self.tail_dead + int(counts[0]))

    def _with(self, rows: pa.Table, vectors: Vectors) -> Image:
        # Two images made of one: the second goes on in a book of its own.
        book = self.book if self.book.count == self.count else self.book.cut(self.count)
        book.append(rows)
        numbers = np.arange(self.count, book.count)
        before = len(self.tail_rows)
        places = np.arange(before, before + len(numbers))
        room = self.room.appended(before, vectors)
        return replace(
            self,
            book=book,
            count=book.count,
            live=np.concatenate([self.live, np.ones(len(numbers), np.bool_)]),
            room=room,
            tail=Matrix(room.vectors[: before + len(numbers)], self.distance),
            tail_rows=np.concatenate([self.tail_rows, numbers]),
            where=np.concatenate([self.where, places]),
        )

    def search(
        self,
        queries: Vectors,
        k: int,
        ef: int = 0,
        wanted: Flags | None = None,
        exact: bool = False,
    ) -> list[Found]:
        """The min(k, matches) nearest rows of each query; those that are as near as each other by
        entity, then by chunk.

        Args:
            queries: float32, (queries, dimensions), of length 1 for cosine.
            ef: candidates looked at in graphs; 0 takes what fits ``k``.
            wanted: one flag a row; what it does not have is no candidate.
        """
        answers: list[list[Found]] = [[] for _ in queries]
        for at, part in enumerate(self.parts):
            allowed = self._allowed_of(at, wanted)
            look = self._ef(at, k, ef)
            # A structure may have a shorter way for a single query.
            nearest = getattr(part.index, "nearest", None)
            if len(queries) == 1 and nearest is not None and not exact:
                near, apart = nearest(queries, k, look, allowed)
                if len(near):
                    answers[0].append((part.rows[near], apart))
                continue
            if exact:
                labels, far = self._compared(part.index, queries, k, allowed)
            else:
                labels, far = part.index.search(queries, k, look, allowed)
            for answer, near, apart in zip(answers, labels, far, strict=True):
                there = near >= 0
                if there.any():
                    answer.append((part.rows[near[there]], apart[there]))
        if len(self.tail_rows):
            allowed = self._allowed_of(-1, wanted)
            tail = self.tail.ranked(queries, k, allowed)
            for answer, (places, apart) in zip(answers, tail, strict=True):
                if len(places):
                    answer.append((self.tail_rows[places], apart))
        return [self._merged(answer, k) for answer in answers]

    @property
    def on_disk(self) -> bool:
        """Some of it is read from files when it is asked for: not on the loop."""
        return any(part.structure.kind == LANCE for part in self.parts)

    def cost_us(self, queries: int, k: int, ef: int, *, every: bool) -> float:
        """About what ``search`` without a filter takes, in microseconds."""
        if self.on_disk:
            return math.inf
        rows = len(self.tail_rows)
        looked_at = 0
        for at, part in enumerate(self.parts):
            if every:
                rows += part.index.rows
            else:
                looked_at += max(k, self._ef(at, k, ef))
        shape = self.dimensions / 768.0
        return queries * shape * (looked_at * _CANDIDATE_US + rows * _ROW_US)

    def _compared(
        self, index: SearchIndex, queries: Vectors, k: int, allowed: Flags | None
    ) -> tuple[Labels, Vectors]:
        """As ``SearchIndex.search``, with every vector compared."""
        if isinstance(index, Compares):
            return index.compare(queries, k, allowed)
        labels = np.arange(index.rows) if allowed is None else np.flatnonzero(allowed)
        best, apart = blank(len(queries), k)
        for start in range(0, len(labels), _BLOCK_ROWS):
            block = labels[start : start + _BLOCK_ROWS]
            near, far = Matrix(index.vectors(block), self.distance).search(queries, k)
            near = np.where(near < 0, near, block[near])
            far = np.concatenate([apart, far], axis=1)
            order = np.argsort(far, axis=1, kind="stable")[:, :k]
            best = np.take_along_axis(np.concatenate([best, near], axis=1), order, axis=1)
            apart = np.take_along_axis(far, order, axis=1)
        return best, apart

    def _ef(self, at: int, k: int, ef: int) -> int:
        """Of several graphs each finds a part of the nearest, and need not look at as many."""
        whole = ef or max(_EF, 2 * k)
        if len(self.parts) == 1:
            return whole
        share = self.parts[at].index.rows / max(1, sum([part.index.rows for part in self.parts]))
        return max(_EF_MIN, k, int(whole * (1.0 + share) / 2.0))

    def _allowed_of(self, at: int, wanted: Flags | None) -> Flags | None:
        """One flag a label of part ``at`` (-1: the tail); None where all are."""
        rows = self.tail_rows if at < 0 else self.parts[at].rows
        if wanted is None and not (self.tail_dead if at < 0 else self.dead[at]):
            return None
        kept = self._allowed.get(at)
        if not self.count:
            return np.zeros(len(rows), np.bool_)
        if kept is None:
            kept = self.live[rows] & (rows >= 0)
            self._allowed[at] = kept
        return kept if wanted is None else kept & wanted[rows]

    def _merged(self, answer: list[Found], k: int) -> Found:
        if not answer:
            labels, far = blank(1, 0)
            return labels[0], far[0]
        if len(answer) == 1 and len(answer[0][0]) <= k and not len(self.tail_rows):
            return answer[0]
        rows = np.concatenate([one[0] for one in answer])
        far = np.concatenate([one[1] for one in answer])
        order = far.argsort(kind="stable")
        rows, far = rows[order], far[order]
        if (far[1:] == far[:-1]).any():
            named = sorted(range(len(rows)), key=lambda at: (far[at], self.book.key(int(rows[at]))))
            rows, far = rows[named], far[named]
        return rows[:k], far[:k]

    def matching(self, entities: pa.Array) -> Flags:
        """One flag a row: whether it is live and its entity is one of ``entities``."""
        return self.book.flags(entities, self.count) & self.live

    def rows_of(self, entity: str) -> list[int]:
        """The live rows of an entity, by chunk."""
        found = [row for row in self.book.rows_of(entity) if row < self.count and self.live[row]]
        return sorted(found, key=lambda row: self.book.key(row)[1])

    def vectors(self, rows: Labels) -> Vectors:
        """(rows, dimensions)."""
        places = self.where[rows]
        parts = places >> _PART_BITS
        first = int(parts[0]) if len(parts) else 0
        if (parts == first).all():
            return self._vectors_in(first, places & _LABEL_MASK)
        found = np.empty((len(rows), self.dimensions), np.float32)
        for part in np.unique(parts).tolist():
            chosen = parts == part
            found[chosen] = self._vectors_in(part, places[chosen] & _LABEL_MASK)
        return found

    def _vectors_in(self, part: int, labels: Labels) -> Vectors:
        if part:
            return self.parts[part - 1].index.vectors(labels)
        found: Vectors = self.tail.vectors[labels]
        return found

    def rebuilt(self, added: Sequence[Part], dropped: Sequence[Part]) -> Image:
        """With ``added`` parts in place of ``dropped`` ones and of what they have of the tail.

        Every live row of a dropped part is in an added one; rows that went meanwhile are dead
        labels.
        """
        parts = (*(part for part in self.parts if part not in dropped), *added)
        where = np.full(self.count, -1, np.int64)
        _enter(where, parts)
        dead = tuple(
            int(np.count_nonzero(~(self.live[part.rows] & (part.rows >= 0)))) for part in parts
        )
        places = np.flatnonzero((where[self.tail_rows] < 0) & self.live[self.tail_rows])
        tail_rows = self.tail_rows[places]
        where[tail_rows] = np.arange(len(tail_rows))
        room = Room(self.tail.vectors[places], len(places))
        return replace(
            self,
            parts=parts,
            dead=dead,
            room=room,
            tail=Matrix(room.vectors, self.distance),
            tail_rows=tail_rows,
            tail_dead=0,
            where=where,
            _allowed={},
        )

    def folded(self) -> Image:
        """The same, with live rows alone, sorted by key again and numbered anew."""
        rows = self.book.in_order(np.flatnonzero(self.live))
        numbers = np.full(self.count + 1, -1, np.int64)
        numbers[rows] = np.arange(len(rows))
        parts = [replace(part, rows=numbers[part.rows]) for part in self.parts]
        vectors = self.vectors

        def of(tail_rows: Labels) -> Vectors:
            return np.ascontiguousarray(vectors(rows[tail_rows]))

        shape = (self.dimensions, self.distance)
        return Image.of(shape, self.head, self.book.table(rows), parts, of)


class Room:
    """Vectors of the tail with room to spare behind them, so that a few more cost just these.

    ``used`` rows hold something; images have the first so many of them.
    """

    __slots__ = ("used", "vectors")

    def __init__(self, vectors: Vectors, used: int) -> None:
        self.vectors = vectors
        self.used = used

    @property
    def size_bytes(self) -> int:
        return self.vectors.nbytes

    def appended(self, count: int, more: Vectors) -> Room:
        """With ``more`` behind the first ``count``: this room, if that is where it is free."""
        end = count + len(more)
        if self.used != count or end > len(self.vectors):
            wider = np.empty((max(_TAIL_MIN, 2 * end), more.shape[1]), np.float32)
            wider[:count] = self.vectors[:count]
            return Room(wider, count).appended(count, more)
        self.vectors[count:end] = more
        self.used = end
        return self


def matrix_of(column: pa.ChunkedArray | pa.Array, dimensions: int) -> Vectors:
    """A column of vectors as (rows, dimensions)."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    values = column.flatten().cast(pa.float32())
    return np.asarray(values, np.float32).reshape(len(column), dimensions)


def _enter(where: Labels, parts: Sequence[Part]) -> None:
    """Note which part and label each row has."""
    for number, part in enumerate(parts, 1):
        labels = np.flatnonzero(part.rows >= 0)
        where[part.rows[labels]] = labels | (number << _PART_BITS)
