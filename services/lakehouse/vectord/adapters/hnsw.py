"""HNSW graphs by hnswlib: built by one thread in the order of the rows, so that the same rows make
the same bytes.

hnswlib trusts what it loads: a flipped bit in a file can end the process. So bytes come here only
after their SHA-256 was checked, through a file without a name that nobody else can change, and the
same file, mapped, is where the vectors are read from: they are in memory once.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import Distance
from lakehouse.vectord.adapters.pages import in_large_pages
from lakehouse.vectord.nearest import Matrix, blank
from lakehouse.vectord.ports import Labels, Vectors

__all__ = ["HnswIndex", "build_graph", "grow_graph", "nameless_file"]

Flags = npt.NDArray[np.bool_]

SEED: Final = 100
_EF_MIN: Final = 128
_HEADER: Final = struct.Struct("<6QiIQQQdQ")
_LABEL_BYTES: Final = 8
_ROWS_AT_ONCE: Final = 1_000
_CHUNK: Final = 8 << 20
_THREADS_MAX: Final = 4
_SPARE: Final = 8
# What a search costs, measured at 768 dimensions: microseconds a candidate of the graph, a row that
# is compared in place, and one that is gathered first.
_CANDIDATE_US: Final = 3.0
_ROW_US: Final = 0.3
_GATHERED_US: Final = 1.0
_WIDER: Final = 4


def nameless_file(folder: str) -> IO[bytes]:
    """A file in ``folder`` that goes when it is closed, and that nobody else can open."""
    try:
        os.makedirs(folder, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        raise LakehouseError(
            ErrorKind.UNAVAILABLE,
            "the folder for copies of search structures cannot be written",
            folder=folder,
            reason=str(error)[:200],
            hint="see vectors.cache_dir in the configuration",
        ) from error


def _path(file: IO[bytes]) -> str:
    return f"/dev/fd/{file.fileno()}"


def build_graph(
    vectors: Vectors,
    distance: Distance,
    shape: tuple[int, int],
    folder: str,
    stop: Callable[[], bool] = lambda: False,
) -> HnswIndex:
    """A graph over ``vectors`` in their order, labels from 0 up.

    Args:
        shape: M and ef_construction.
        stop: asked now and then; True ends it with ``unavailable``.
    """
    import hnswlib

    graph = hnswlib.Index(_space(distance), vectors.shape[1])
    with in_large_pages(vectors.nbytes):
        graph.init_index(len(vectors), M=shape[0], ef_construction=shape[1], random_seed=SEED)
    return _filled(graph, vectors, distance, folder, stop)


def grow_graph(
    index: HnswIndex,
    vectors: Vectors,
    folder: str,
    stop: Callable[[], bool] = lambda: False,
) -> HnswIndex:
    """Another graph: ``index``, which stays as it is, and ``vectors`` behind it, in their order.

    Of the same bytes and the same vectors always the same, for it is grown out of the bytes.
    """
    with nameless_file(folder) as file:
        index.copy_to(file)
        graph = _loaded(file, vectors.shape[1], index.distance, index.rows + len(vectors))
    return _filled(graph, vectors, index.distance, folder, stop)


def _filled(
    graph: Any, vectors: Vectors, distance: Distance, folder: str, stop: Callable[[], bool]
) -> HnswIndex:
    """``graph`` with ``vectors`` added to it, and written."""
    there = graph.get_current_count()
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        if stop():
            raise LakehouseError(ErrorKind.UNAVAILABLE, "the build is to end")
        block = np.ascontiguousarray(vectors[start : start + _ROWS_AT_ONCE])
        labels = np.arange(there + start, there + start + len(block))
        graph.add_items(block, labels, num_threads=1)
    with nameless_file(folder) as file:
        try:
            graph.save_index(_path(file))
        except (OSError, RuntimeError) as error:
            raise LakehouseError(
                ErrorKind.EXHAUSTED, "a graph cannot be written", reason=str(error)[:200]
            ) from error
        return HnswIndex(graph, file, distance)


def _loaded(file: IO[bytes], dimensions: int, distance: Distance, most: int = 0) -> Any:
    """The graph in ``file``, with room for ``most`` vectors. Raises ``corrupt``."""
    import hnswlib

    graph = hnswlib.Index(_space(distance), dimensions)
    try:
        with in_large_pages(os.fstat(file.fileno()).st_size):
            graph.load_index(_path(file), max_elements=most)
    except (OSError, RuntimeError) as error:
        raise _corrupt(str(error)) from error
    return graph


def _space(distance: Distance) -> str:
    # Vectors have length 1 for cosine already: then it is one less the product.
    return "l2" if distance is Distance.L2 else "ip"


class HnswIndex:
    """Implements ``ports.SearchIndex``. Any number of threads may search it.

    Args:
        graph: that ``file`` was written from or loaded into.
        file: of ``hnswlib.Index.save_index``, whole; may be closed afterwards.

    Attributes:
        content: the bytes of the file.

    Raises ``corrupt`` for a file that is not laid out as we know it.
    """

    def __init__(self, graph: Any, file: IO[bytes], distance: Distance) -> None:
        self._graph = graph
        self.distance = distance
        self.rows: int = graph.get_current_count()
        self.content = _content(file)
        self._matrix = Matrix(_laid_out(self.content, graph.dim, self.rows), distance)
        self.release_pages()

    @classmethod
    def load(cls, file: IO[bytes], dimensions: int, distance: Distance) -> HnswIndex:
        """From verified bytes. Raises ``corrupt``."""
        _laid_out(_content(file), dimensions, None)
        return cls(_loaded(file, dimensions, distance), file, distance)

    @property
    def shape(self) -> tuple[int, int]:
        """M and ef_construction, which is M at least."""
        return self._graph.M, self._graph.ef_construction

    def search(
        self, queries: Vectors, k: int, ef: int, allowed: Flags | None = None
    ) -> tuple[Labels, Vectors]:
        labels, found = blank(len(queries), k)
        for at, (best, far) in enumerate(self._each(queries, k, ef, allowed)):
            labels[at, : len(best)], found[at, : len(best)] = best, far
        return labels, found

    def nearest(
        self, query: Vectors, k: int, ef: int, allowed: Flags | None = None
    ) -> tuple[Labels, Vectors]:
        """As ``search`` of one query, (1, dimensions), without places for what is not there."""
        return next(self._each(query, k, ef, allowed))

    def _each(
        self, queries: Vectors, k: int, ef: int, allowed: Flags | None
    ) -> Iterator[tuple[Labels, Vectors]]:
        """What is found for each query."""
        total = self.rows if allowed is None else int(np.count_nonzero(allowed))
        wanted = min(k, total)
        fetched = max(ef or max(_EF_MIN, 2 * k), k + _SPARE)
        if 0 < total < self.rows:
            fetched = fetched * self.rows // total
        batch = self._nearest(queries, fetched) if not self._dearer(fetched, total) else None
        for at in range(len(queries)):
            query, best = queries[at : at + 1], None
            if batch is not None:
                best = self._settled(query[0], (batch[0][at], batch[1][at]), wanted, allowed)
            looked_at = fetched * _WIDER
            while batch is not None and best is None and not self._dearer(looked_at, total):
                wider = self._nearest(query, looked_at)
                if wider is None:
                    break
                best = self._settled(query[0], (wider[0][0], wider[1][0]), wanted, allowed)
                looked_at *= _WIDER
            if best is None:
                every, far = next(self._matrix.ranked(query, k, allowed))
                best = every[:k], far[:k]
            yield best

    def compare(
        self, queries: Vectors, k: int, allowed: Flags | None = None
    ) -> tuple[Labels, Vectors]:
        """As ``search``, with every vector compared."""
        return self._matrix.search(queries, k, allowed)

    def told_apart_by(self, rank: Labels) -> None:
        """Of labels that are as near as each other the one with the lower ``rank`` goes first: for
        a graph that has grown, whose labels are in no order of their rows."""
        self._matrix.rank = rank

    def vectors(self, labels: Labels) -> Vectors:
        found: Vectors = self._matrix.vectors[labels]
        return found

    @property
    def every(self) -> Vectors:
        """All vectors in the order of their labels, where they lie."""
        return self._matrix.vectors

    def copy_to(self, file: IO[bytes]) -> None:
        """The whole of ``content`` into ``file``. Raises ``exhausted``."""
        try:
            for start in range(0, len(self.content), _CHUNK):
                file.write(self.content[start : start + _CHUNK])
            file.flush()
        except OSError as error:
            raise LakehouseError(
                ErrorKind.EXHAUSTED, "a graph cannot be written", reason=str(error)[:200]
            ) from error
        self.release_pages()

    def release_pages(self) -> None:
        """The file is mapped, not held: what was read of it all the same is given back."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.content.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """What is mapped is let go when the last search is done."""

    def _dearer(self, fetched: int, total: int) -> bool:
        """True where comparing ``total`` rows one by one costs less than so many candidates."""
        rows_us = min(total * _GATHERED_US, self.rows * _ROW_US)
        return fetched >= self.rows or fetched * _CANDIDATE_US > rows_us

    def _nearest(self, queries: Vectors, fetched: int) -> tuple[Labels, Vectors] | None:
        """As hnswlib knows them: ``fetched`` is how many it looks at, and how many it gives, for
        ``ef`` is a setting of the graph that threads would change beneath each other."""
        threads = 1 if len(queries) == 1 else min(_THREADS_MAX, os.cpu_count() or 1)
        try:
            labels, far = self._graph.knn_query(queries, k=fetched, num_threads=threads)
        except RuntimeError:
            return None  # so many are not connected
        return labels.view(np.int64), far

    def _settled(
        self,
        query: Vectors,
        nearest: tuple[Labels, Vectors],
        wanted: int,
        allowed: Flags | None,
    ) -> tuple[Labels, Vectors] | None:
        """The best of what the graph gave, compared exactly; None where it must be asked for more:
        too few are allowed, or all that are left are as near as the last."""
        near, far = nearest
        furthest = far[-1]
        if allowed is not None:
            kept = allowed[near]
            near, far = near[kept], far[kept]
        if len(near) < wanted:
            return None
        bound = far[wanted - 1] + np.float32(self._matrix.slack(query))
        if furthest <= bound:
            return None
        within = int(far.searchsorted(bound, side="right"))
        best, exact = self._matrix.settle(query, np.sort(near[:within]), wanted)
        return best[:wanted], exact[:wanted]


def _content(file: IO[bytes]) -> mmap.mmap:
    if not os.fstat(file.fileno()).st_size:
        raise _corrupt("it is empty")
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _laid_out(held: mmap.mmap, dimensions: int, rows: int | None) -> Vectors:
    """The vectors in a file of hnswlib, in the order of their labels, where they lie."""
    if len(held) < _HEADER.size:
        raise _corrupt("it is too short")
    _, _, count, stride, label_at, data_at, *_ = _HEADER.unpack_from(held)
    known = (
        label_at == data_at + 4 * dimensions
        and stride == label_at + _LABEL_BYTES
        and _HEADER.size + count * stride <= len(held)
        and count == (rows if rows is not None else count)
    )
    if not known:
        raise _corrupt("it is laid out in another way")
    at = _HEADER.size
    labels = np.ndarray((count,), np.int64, held, at + label_at, (stride,))
    if not np.array_equal(labels, np.arange(count)):
        raise _corrupt("its labels are not in order")
    return np.ndarray((count, dimensions), np.float32, held, at + data_at, (stride, 4))


def _corrupt(reason: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CORRUPT, "a graph cannot be loaded", reason=reason[:200], hint="it is built anew"
    )
