"""What came in since: turns in the order in which they were remembered, page by page."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.memory import CatchUpRequest, CatchUpResult
from lakehouse.kit.blocking import run_in
from lakehouse.kit.clock import to_datetime, to_micros
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context, Scope
from lakehouse.vectord.memory.conditions import after, conditions, joined, literal, moment
from lakehouse.vectord.memory.reading import TurnReader, names
from lakehouse.vectord.memory.spaces import Spaces
from lakehouse.vectord.memory.turns import TIME_US_MAX, bad, check_time, checked_names, turns_of
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ranges import quoted

__all__ = ["Catcher", "Position"]

_LIMIT_MAX: Final = 1_000
_PAGE_BYTES: Final = 8 << 20
_ORDER: Final = '"remembered_at", "id"'


@dataclass(frozen=True, slots=True)
class Position:
    """Behind the turn ``id`` that was remembered at ``us``, microseconds since the epoch."""

    us: int = 0
    id: str = ""

    @property
    def cursor(self) -> str:
        """As callers keep it."""
        return base64.urlsafe_b64encode(orjson.dumps([self.us, self.id])).decode()

    @classmethod
    def of(cls, cursor: str) -> Position:
        """Raises ``invalid``."""
        try:
            us, turn_id = orjson.loads(base64.b64decode(cursor.encode(), b"-_", validate=True))
        except (binascii.Error, UnicodeError, ValueError, TypeError):
            raise _odd(cursor) from None
        if type(us) is not int or type(turn_id) is not str or not 0 <= us <= TIME_US_MAX:
            raise _odd(cursor)
        return cls(us, turn_id)

    @property
    def condition(self) -> str:
        """Of what comes behind it."""
        return after(to_datetime(self.us), self.id)


class Catcher:
    """The use case behind ``MemoryService.catch_up``."""

    def __init__(self, parts: VectorParts, spaces: Spaces, reader: TurnReader) -> None:
        self._parts = parts
        self._spaces = spaces
        self._reader = reader

    async def catch_up(self, ctx: Context, request: CatchUpRequest) -> CatchUpResult:
        """See the contract. A page has as many turns as fit into some megabytes, at least one."""
        ctx.require(Scope.READ)
        _check(request)
        since = _start(request)
        wanted = conditions(request.session, request.who, request.tags)
        if request.since is not None:
            wanted.append(f'"remembered_at" >= {moment(request.since)}')
        opened = await self._spaces.find(ctx, request.memory)
        dataset, version = opened.dataset, opened.version
        sizes = await self._sizes(ctx, dataset, version, [*wanted, since.condition], request.limit)
        count = _page(sizes, request.limit)
        if not count:
            return CatchUpResult(dataset.name, (), version, since.cursor)
        last = _position(sizes, count - 1)
        page = [*wanted, since.condition, _up_to(last)]
        sql = f"SELECT {names()} FROM {quoted(dataset.name)} WHERE {joined(page)} ORDER BY {_ORDER}"
        table = await self._reader.rows(ctx, sql, version)
        turns = await run_in(self._parts.jobs, turns_of, table)
        more = sizes.num_rows > count
        return CatchUpResult(dataset.name, tuple(turns), version, last.cursor, more)

    async def _sizes(
        self, ctx: Context, dataset: Dataset, version: int, wanted: list[str], limit: int
    ) -> pa.Table:
        """When, id and bytes of the next turns, one more than ``limit``."""
        columns = '"remembered_at", "id", octet_length("text")'
        sql = (
            f"SELECT {columns} FROM {quoted(dataset.name)} WHERE {joined(wanted)}"
            f" ORDER BY {_ORDER} LIMIT {limit + 1}"
        )
        return await self._reader.rows(ctx, sql, version)


def _check(request: CatchUpRequest) -> None:
    checked_names(request.session, request.who, request.tags)
    if not 1 <= request.limit <= _LIMIT_MAX:
        raise bad("limit is out of range", limit=request.limit, minimum=1, maximum=_LIMIT_MAX)
    check_time(request.since, "since")


def _start(request: CatchUpRequest) -> Position:
    """Behind which it begins: the cursor, or just before ``since``; ids are never empty."""
    if request.cursor:
        return Position.of(request.cursor)
    if request.since is None:
        return Position()
    early = request.since < datetime(1970, 1, 1, tzinfo=UTC)
    return Position() if early else Position(min(to_micros(request.since), TIME_US_MAX))


def _up_to(last: Position) -> str:
    then = moment(to_datetime(last.us))
    return (
        f'("remembered_at" < {then} OR ("remembered_at" = {then} AND "id" <= {literal(last.id)}))'
    )


def _page(sizes: pa.Table, limit: int) -> int:
    """How many of them are told."""
    if not sizes.num_rows:
        return 0
    sofar = pc.cumulative_sum(pc.fill_null(sizes.column(2).cast(pa.int64()), 0))
    fitting = int(pc.sum(pc.less_equal(sofar, _PAGE_BYTES)).as_py() or 0)
    return min(limit, max(1, fitting))


def _position(sizes: pa.Table, row: int) -> Position:
    micros = sizes.column(0).cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    return Position(micros[row].as_py(), sizes.column(1)[row].as_py())


def _odd(cursor: str) -> Exception:
    return bad("the cursor is not one of ours", cursor=cursor[:80])
