"""Images out of the store: rows through SQL, structures from objects, the rest as the tail."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.identity import Context
from lakehouse.model.vectors import IndexVersion, Structure
from lakehouse.table.keys import match
from lakehouse.vectord.book import KEY, sorted_rows
from lakehouse.vectord.image import Image, Part, matrix_of
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ports import Labels, Vectors
from lakehouse.vectord.reading import VECTOR, VectorReader
from lakehouse.vectord.structures import LABELS, Built, Structures

__all__ = ["Loader", "placed"]

log = logging.getLogger(__name__)


class Loader:
    """Makes images. ``damaged``: structures that could not be used; they are made anew."""

    def __init__(self, parts: VectorParts, structures: Structures) -> None:
        self._parts = parts
        self._structures = structures
        self.reader = VectorReader(parts)
        self.damaged = 0

    async def load(
        self, ctx: Context, version: IndexVersion, at: tuple[int, int], kept: Sequence[Part] = ()
    ) -> Image:
        """The rows of ``version`` at ``at``: a version of the store, and the rows_version there.

        Args:
            kept: structures that are in memory already.
        """
        built = await self._built(version, kept)
        jobs = self._parts.jobs
        table = await self.reader.rows(ctx, version, at[0], vectors=not built)
        shape = (version.dimensions, version.profile.distance)
        if not built:
            return await run_in(jobs, _exact, shape, at[1], table)
        rows, parts, left = await run_in(jobs, _covered, table, built)
        vectors = np.empty((0, version.dimensions), np.float32)
        if len(left):
            since = pc.min(rows.column("version").take(pa.array(left))).as_py()
            some = await self.reader.vectors(ctx, version, at[0], since)
            vectors = await run_in(jobs, _vectors_of, rows, left, some, version.dimensions)
        return await run_in(jobs, Image.of, shape, at[1], rows, parts, lambda _: vectors)

    async def _built(
        self, version: IndexVersion, kept: Sequence[Part]
    ) -> list[tuple[Structure, Built]]:
        there = {part.structure.key: part for part in kept if part.labels is not None}
        found = []
        for structure in version.structures:
            part = there.pop(structure.key, None)
            if part is not None and part.labels is not None:
                found.append((structure, Built(part.index, part.labels, part.size_bytes)))
                continue
            try:
                found.append((structure, await self._structures.load(version, structure)))
            except LakehouseError as error:
                self.damaged += 1
                told = {"key": structure.key, "kind": error.kind.value, "reason": error.message}
                log.warning("a search structure cannot be used and is made anew", extra=told)
        for part in kept:
            if not part.structure.key and part.labels is not None:
                found.append((part.structure, Built(part.index, part.labels, part.size_bytes)))
        return found


def placed(labels: pa.Table, rows: pa.Table) -> Labels:
    """For each label the row that it stands for, -1 where it is another by now, or gone."""
    found = pc.fill_null(match(labels, rows, LABELS), -1)
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    return np.array(found.to_numpy(zero_copy_only=False), np.int64)


def _exact(shape: tuple[int, object], head: int, table: pa.Table) -> Image:
    vectors = matrix_of(table.column(VECTOR), shape[0])
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in KEY]).to_numpy()
    rows = sorted_rows(table)
    return Image.of(shape, head, rows, (), lambda _: vectors[order])  # type: ignore[arg-type]


def _covered(
    table: pa.Table, built: Sequence[tuple[Structure, Built]]
) -> tuple[pa.Table, list[Part], Labels]:
    """Rows by key, the parts that have some of them, and those that none has."""
    rows = sorted_rows(table)
    free = np.ones(rows.num_rows, np.bool_)
    parts = []
    for structure, one in built:
        places = placed(one.labels, rows)
        # A row that two structures have, after a build that ended midway, is in the first.
        places[places >= 0] = np.where(free[places[places >= 0]], places[places >= 0], -1)
        free[places[places >= 0]] = False
        parts.append(Part(structure, one.index, places, one.size_bytes, one.labels))
    return rows, parts, np.flatnonzero(free)


def _vectors_of(rows: pa.Table, left: Labels, some: pa.Table, dimensions: int) -> Vectors:
    """The vectors of the rows ``left``, out of ``some`` that have them all."""
    wanted = rows.select(KEY).take(pa.array(left))
    places = match(wanted, some, KEY)
    if places.null_count:
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "rows of vectors are not where they were",
            rows=int(places.null_count),
            hint="compare the dataset of the vectors with its journal, or build a new version",
        )
    matrix = matrix_of(some.column(VECTOR), dimensions)
    picked: Vectors = matrix[np.asarray(places.to_numpy(zero_copy_only=False))]
    return picked
