"""More rows than one query may give, read by several of them: each in a range of the key."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

import orjson
import pyarrow as pa

from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.query import QueryRequest, ResultFormat
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context
from lakehouse.table.cells import flat
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.spool import Spool

__all__ = ["RangeReader", "Scan", "cut_by", "pieces_of", "quoted"]

Value = str | int | bool
_CUT_TYPES: Final = frozenset({"string", "int64"})
_ROWS_AT_ONCE: Final = 10_000_000
_BYTES_AT_ONCE: Final = 1 << 30
# A range that one query could not give is read by so many.
_CUT_INTO: Final = 4
# So many keys, drawn at random, say where the ranges end.
_SAMPLE: Final = 10_000


@dataclass(frozen=True, slots=True)
class Bound:
    """A range ends here: the values of ``column`` are ``<=`` or ``>`` than ``value``."""

    column: str
    operator: str
    value: Value


@dataclass(frozen=True, slots=True)
class Scan:
    """Rows of a dataset that are wanted, as SQL.

    Attributes:
        columns: what stands between SELECT and FROM.
        cut_by: columns by whose values they may be read in parts; their values are never null. Of
            some of them alone no row may be made of rows in two parts.
        condition: of all rows; may be "".
        rest: what stands after the condition, as GROUP BY.
    """

    dataset: str
    columns: str
    cut_by: tuple[str, ...]
    condition: str = ""
    rest: str = ""
    bounds: tuple[Bound, ...] = ()

    def sql(self) -> tuple[str, list[Value]]:
        """The statement and its parameters, whose text is one for all ranges of a depth."""
        where = [f"{quoted(b.column)} {b.operator} ${n}" for n, b in enumerate(self.bounds, 1)]
        if self.condition:
            where.append(f"({self.condition})")
        conditions = f" WHERE {' AND '.join(where)}" if where else ""
        text = f"SELECT {self.columns} FROM {quoted(self.dataset)}{conditions}{self.rest}"
        return text, [bound.value for bound in self.bounds]

    def within(self, column: str, ends: Sequence[Value]) -> list[Scan]:
        """Its parts, whose last values of ``column`` are ``ends``, rising, and all others."""
        parts = []
        for after, last in zip([None, *ends], [*ends, None], strict=True):
            bounds = {(bound.column, bound.operator): bound for bound in self.bounds}
            for operator, value in ((">", after), ("<=", last)):
                if value is not None:
                    # The new one is the narrower one.
                    bounds[column, operator] = Bound(column, operator, value)
            parts.append(replace(self, bounds=tuple(bounds.values())))
        return parts


class RangeReader:
    """Reads what is asked for; what is too much for one query by several."""

    def __init__(self, parts: VectorParts) -> None:
        self._parts = parts

    async def read(
        self, ctx: Context, sql: str, version: int, params: Sequence[Value] = ()
    ) -> Spool:
        """The answer to ``sql`` at ``version`` of the store; the caller closes it, in a thread."""
        parts = self._parts
        request = QueryRequest(
            sql,
            params_json=orjson.dumps(list(params)).decode() if params else "",
            as_of=AsOf(version=version),
            format=ResultFormat.ARROW,
        )
        spool = await run_in(parts.jobs, Spool, parts.settings.cache_dir)
        try:
            stream = await parts.query.run(ctx, request)
            async for chunk in stream.chunks:
                await run_in(parts.jobs, spool.write, chunk)
        except BaseException:
            spool.close()
            raise
        return spool

    async def rows(
        self, ctx: Context, sql: str, version: int, params: Sequence[Value] = ()
    ) -> pa.Table:
        """The answer to ``sql``, whole."""
        spool = await self.read(ctx, sql, version, params)
        return await run_in(self._parts.jobs, _whole, spool)

    async def spools(
        self, ctx: Context, scan: Scan, version: int, pieces: int = 1
    ) -> AsyncGenerator[Spool, None]:
        """All of ``scan``, part by part, at least one; each is closed before the next is read.

        ``pieces``: of how many parts it will be, about. One that is over a limit of queries all the
        same is cut again. Raises what queries raise, also that limit where a range has one key.
        """
        waiting = [scan]
        if pieces > 1:
            waiting = await self._cut(ctx, scan, version, pieces) or waiting
        waiting.reverse()
        while waiting:
            part = waiting.pop()
            sql, params = part.sql()
            try:
                spool = await self.read(ctx, sql, version, params)
            except LakehouseError as error:
                if error.kind not in (ErrorKind.EXHAUSTED, ErrorKind.TIMEOUT):
                    raise
                smaller = await self._cut(ctx, part, version, _CUT_INTO)
                if not smaller:
                    raise
                waiting += reversed(smaller)
                continue
            try:
                yield spool
            finally:
                await run_in(self._parts.jobs, spool.close)

    async def whole(self, ctx: Context, scan: Scan, version: int, pieces: int = 1) -> pa.Table:
        """All of ``scan``, in memory."""
        found = []
        async with aclosing(self.spools(ctx, scan, version, pieces)) as spools:
            async for spool in spools:
                found.append(await run_in(self._parts.jobs, spool.whole))
        return found[0] if len(found) == 1 else pa.concat_tables(found)

    async def _cut(self, ctx: Context, scan: Scan, version: int, pieces: int) -> list[Scan]:
        """About ``pieces`` parts of ``scan``, of about as many rows each; none where all its rows
        have one key, as far as can be seen."""
        sql, params = replace(scan, columns="count(*)", rest="").sql()
        count = (await self.rows(ctx, sql, version, params)).column(0)[0].as_py()
        drawn = "" if count <= _SAMPLE else f"random() < {_SAMPLE / count:.12f}"
        both = " AND ".join(each for each in (scan.condition, drawn) if each)
        for column in scan.cut_by:
            some = replace(scan, columns=quoted(column), condition=both, rest="")
            sql, params = some.sql()
            keys = await self.rows(ctx, sql, version, params)
            ends = await run_in(self._parts.jobs, _ends, keys, pieces)
            if ends:
                return scan.within(column, ends)
        return []


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def cut_by(dataset: Dataset) -> tuple[str, ...]:
    """The parts of the key of ``dataset`` by which it may be read in ranges."""
    kinds = {column.name: column.type for column in dataset.schema.columns}
    return tuple(name for name in dataset.primary_key if kinds[name] in _CUT_TYPES)


def pieces_of(rows: int, size_bytes: int) -> int:
    """By how many queries so much is read: one where it is not much."""
    return 1 + max(rows // _ROWS_AT_ONCE, size_bytes // _BYTES_AT_ONCE)


def _whole(spool: Spool) -> pa.Table:
    try:
        return spool.whole()
    finally:
        spool.close()


def _ends(keys: pa.Table, pieces: int) -> list[Value]:
    """The last keys of all parts but the last one; none where there is one key."""
    # Code points have the order of their bytes in UTF-8, which is that of the engines.
    values = sorted(flat(keys.column(0)).to_pylist())
    if not values or values[0] == values[-1]:
        return []
    picked = [values[at * len(values) // pieces] for at in range(1, pieces)]
    ends = [each for each in dict.fromkeys(picked) if each != values[-1]]
    # Where most rows have the last key, it is read alone.
    return ends or [max(each for each in values if each != values[-1])]
