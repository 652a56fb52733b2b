"""Lance tables: vectors on the disk beside a small index of theirs in memory, by stock Lance.

A table is made in a folder of this node and searched there; in the bucket it is a copy, which every
Lance client opens as it is. Lance keeps no checksums of what it wrote, so its files come here only
after their SHA-256 was checked (``folders``).

The index keeps a bit a coordinate (RaBitQ). All of its partitions are looked at: that costs less
than it takes to read the candidates' vectors, which are then compared exactly, so what is found
hardly depends on how the vectors lie. What is filtered out is told to Lance by its row addresses
and is no candidate.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import Distance
from lakehouse.objectstore.folders import Claim
from lakehouse.vectord.adapters.stock_lance import stock_lance
from lakehouse.vectord.adapters.translating import translated
from lakehouse.vectord.nearest import Matrix, blank
from lakehouse.vectord.ports import Labels, Vectors

__all__ = ["FOLDER", "LanceIndex", "build_table"]

Flags = npt.NDArray[np.bool_]
_Chosen = dict[str, Any]

FOLDER: Final = "table.lance"
"""Of a table's files, below the folder of the claim."""
_VECTOR: Final = "vector"
_INDEX: Final = "nearest"
_BLOCK_ROWS: Final = 16_384
_INDEXED_ROWS_MIN: Final = 2_048
_PARTITION_ROWS: Final = 4_096
_CODE_BITS: Final = 8
# So few rows are compared one by one faster than they are told to Lance.
_TAKEN_ROWS_MAX: Final = 512
_CANDIDATES_MIN: Final = 64
_CANDIDATES_A_HIT: Final = 4
# What costs as much as two of a graph's, for its vector is read from the disk.
_EF_SHARE: Final = 2
_WIDER: Final = 4
# Lance takes rows of a file for 32 bits, and the rest of them for none.
_ROWS_NO_BOUND: Final = 1 << 31
_BYTES_NO_BOUND: Final = 1 << 50


def build_table(
    vectors: Vectors,
    labels: pa.Table,
    distance: Distance,
    claim: Claim,
    stop: Callable[[], bool] = lambda: False,
) -> LanceIndex:
    """A table of ``labels`` and their ``vectors``, in their order, in the folder of ``claim``.

    Args:
        vectors: float32, (rows, dimensions), of length 1 for cosine.
        labels: columns that say what each row is; kept with it, and given back by ``labels``.
        stop: asked now and then; True ends it with ``unavailable``.

    Raises ``exhausted`` where the table cannot be written.
    """
    lance = stock_lance()
    path = str(claim.path / FOLDER)
    dimensions = vectors.shape[1]
    schema = labels.schema.append(pa.field(_VECTOR, pa.list_(pa.float32(), dimensions)))
    reader = pa.RecordBatchReader.from_batches(schema, _batches(vectors, labels, schema, stop))
    with _stoppable(stop), translated(ErrorKind.EXHAUSTED, "a Lance table cannot be written"):
        # One file: then a row's address is its place.
        one_file = {"max_rows_per_file": _ROWS_NO_BOUND, "max_bytes_per_file": _BYTES_NO_BOUND}
        table = lance.write_dataset(reader, path, schema, **one_file)
        _refuse_stopped(stop)
        if len(vectors) >= _INDEXED_ROWS_MIN:
            table.create_index(
                _VECTOR,
                "IVF_FLAT" if dimensions % _CODE_BITS else "IVF_RQ",
                name=_INDEX,
                metric="l2" if distance is Distance.L2 else "dot",
                num_partitions=max(1, len(vectors) // _PARTITION_ROWS),
            )
        version = int(table.version)
    return LanceIndex(claim, version, dimensions, distance)


def _batches(
    vectors: Vectors, labels: pa.Table, schema: pa.Schema, stop: Callable[[], bool]
) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(vectors), _BLOCK_ROWS):
        _refuse_stopped(stop)
        block = np.ascontiguousarray(vectors[start : start + _BLOCK_ROWS], np.float32)
        some = labels.slice(start, len(block)).combine_chunks()
        columns = [some.column(name).combine_chunks() for name in labels.column_names]
        values = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1])
        yield pa.RecordBatch.from_arrays([*columns, values], schema=schema)


@contextmanager
def _stoppable(stop: Callable[[], bool]) -> Iterator[None]:
    """What Lance hands on from a source that stopped is an error of its own."""
    try:
        yield
    except LakehouseError:
        _refuse_stopped(stop)
        raise


def _refuse_stopped(stop: Callable[[], bool]) -> None:
    if stop():
        raise LakehouseError(ErrorKind.UNAVAILABLE, "the node stops")


class LanceIndex:
    """Implements ``ports.SearchIndex``. Any number of threads may search it.

    Args:
        claim: whose folder has the table's files, as they were put or as they were checked.
        version: of the table; what came later is not looked at.

    The folder goes with this value. Raises ``corrupt`` for a table that cannot be read, or is not
    one that ``build_table`` made.
    """

    def __init__(self, claim: Claim, version: int, dimensions: int, distance: Distance) -> None:
        self.folder = claim.path / FOLDER
        self.version = version
        weakref.finalize(self, claim.release)
        self._distance = distance
        self._dimensions = dimensions
        self._chosen: tuple[Flags, _Chosen] | None = None
        lance = stock_lance()
        with _reading():
            self._table = lance.dataset(str(self.folder), version=version)
            vectors = self._table.schema.field(_VECTOR).type
            files = [fragment.fragment_id for fragment in self._table.get_fragments()]
            self.rows = int(self._table.count_rows())
            indexed = any(each.name == _INDEX for each in self._table.describe_indices())
            if indexed:
                self._table.prewarm_index(_INDEX)
        if vectors != pa.list_(pa.float32(), dimensions) or files not in ([0], []):
            raise _corrupt("it is laid out in another way")
        self._partitions = max(1, self.rows // _PARTITION_ROWS) if indexed else 0

    @property
    def memory_bytes(self) -> int:
        """Of the index, about; vectors stay on the disk."""
        bits = 32 if self._dimensions % _CODE_BITS else 1
        return self.rows * (self._dimensions * bits // 8 + 32) if self._partitions else 0

    def labels(self) -> pa.Table:
        """The columns that say what each row is, in the order of the labels."""
        names = [name for name in self._table.schema.names if name != _VECTOR]
        with _reading():
            return self._table.to_table(columns=names, scan_in_order=True)

    def search(
        self, queries: Vectors, k: int, ef: int, allowed: Flags | None = None
    ) -> tuple[Labels, Vectors]:
        total = self.rows if allowed is None else int(np.count_nonzero(allowed))
        wanted = min(k, total)
        if total <= _TAKEN_ROWS_MAX or not self._partitions:
            return self.compare(queries, k, allowed)
        labels, found = blank(len(queries), k)
        chosen: _Chosen = {} if allowed is None else self._told(allowed)
        fetched = max(ef // _EF_SHARE, _CANDIDATES_MIN, _CANDIDATES_A_HIT * k)
        left = np.arange(len(queries))
        while len(left) and fetched < total:
            unsettled = []
            for at in left:
                best = self._nearest(queries[at], wanted, fetched, chosen)
                if best is None:
                    unsettled.append(at)
                else:
                    labels[at, :wanted], found[at, :wanted] = best
            left, fetched = np.array(unsettled, np.int64), fetched * _WIDER
        if len(left):
            labels[left], found[left] = self.compare(queries[left], k, allowed)
        return labels, found

    def compare(
        self, queries: Vectors, k: int, allowed: Flags | None = None
    ) -> tuple[Labels, Vectors]:
        """As ``search``, with every vector compared."""
        best, apart = blank(len(queries), k)
        for places, vectors in self._blocks(allowed):
            near, far = Matrix(vectors, self._distance).search(queries, k)
            near = np.where(near < 0, near, places[near])
            far = np.concatenate([apart, far], axis=1)
            # Places rise from block to block: of those as near as each other the first stay first.
            order = np.argsort(far, axis=1, kind="stable")[:, :k]
            best = np.take_along_axis(np.concatenate([best, near], axis=1), order, axis=1)
            apart = np.take_along_axis(far, order, axis=1)
        return best, apart

    def vectors(self, labels: Labels) -> Vectors:
        places, back = np.unique(labels, return_inverse=True)
        if not len(places):
            return np.empty((0, self._dimensions), np.float32)
        with _reading():
            found = self._table.take(pa.array(places), columns=[_VECTOR])
        return self._matrix(found.column(_VECTOR))[back]

    def close(self) -> None:
        """The folder is let go when the last search is done."""
        self._chosen = None

    def _told(self, allowed: Flags) -> _Chosen:
        """``allowed`` as Lance reads it: who is, or who is not, whichever are fewer. The same flags
        come again and again where it is about rows that are gone."""
        from lance.dataset import serialize_row_addrs

        known = self._chosen
        if known is None or known[0] is not allowed:
            few = 2 * np.count_nonzero(allowed) <= len(allowed)
            places = np.flatnonzero(allowed if few else ~allowed)
            name = "row_addr_allowlist" if few else "row_addr_blocklist"
            known = (allowed, {name: serialize_row_addrs(places.tolist()), "prefilter": True})
            self._chosen = known
        return known[1]

    def _nearest(
        self, query: Vectors, wanted: int, fetched: int, chosen: _Chosen
    ) -> tuple[Labels, Vectors] | None:
        """The best of ``fetched`` candidates, compared exactly; None where there must be more: too
        few came, or all that came are as near as the last."""
        near = {"column": _VECTOR, "q": query, "k": fetched, "nprobes": self._partitions}
        with _reading():
            found = self._table.scanner(
                [_VECTOR],
                nearest=near,
                with_row_id=True,
                disable_scoring_autoprojection=True,
                **chosen,
            ).to_table()
        places = found.column("_rowid").to_numpy().astype(np.int64)
        if len(places) < wanted:
            return None
        order = np.argsort(places)
        matrix = Matrix(self._matrix(found.column(_VECTOR))[order], self._distance)
        best, far = matrix.settle(query, np.arange(len(order)), wanted)
        if len(best) == len(order):
            return None
        return places[order][best[:wanted]], far[:wanted]

    def _blocks(self, allowed: Flags | None) -> Iterator[tuple[Labels, Vectors]]:
        """Places and vectors of all rows that are allowed, rising."""
        if allowed is not None and 4 * np.count_nonzero(allowed) < self.rows:
            places = np.flatnonzero(allowed)
            for start in range(0, len(places), _BLOCK_ROWS):
                block = places[start : start + _BLOCK_ROWS]
                yield block, self.vectors(block)
            return
        start = 0
        with _reading():
            batches = self._table.to_batches([_VECTOR], batch_size=_BLOCK_ROWS, scan_in_order=True)
            for batch in batches:
                places = np.arange(start, start + len(batch))
                vectors, start = self._matrix(batch.column(0)), start + len(batch)
                if allowed is not None:
                    kept = allowed[places]
                    places, vectors = places[kept], vectors[kept]
                yield places, vectors

    def _matrix(self, column: pa.Array | pa.ChunkedArray) -> Vectors:
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        values = np.asarray(column.flatten(), np.float32)
        return values.reshape(len(column), self._dimensions)


def _reading() -> Any:
    return translated(ErrorKind.CORRUPT, "a Lance table cannot be read")


def _corrupt(reason: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CORRUPT,
        "a Lance table cannot be read",
        reason=reason,
        hint="it is built anew from the rows",
    )
