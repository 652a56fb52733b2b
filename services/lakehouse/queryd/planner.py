"""A process that parses and binds what would hold the event loop: large statements, wide datasets.

Started as ``python -m lakehouse.queryd.planner``; reads requests from its standard input and writes
answers to its standard output, pickles of the service's own making behind their length. It knows
no credentials and touches no file; it is killed when it takes too long.
"""

from __future__ import annotations

import pickle
import resource
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from lakehouse.contracts.query import Engine
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.schema import Column
from lakehouse.queryd.bind import BoundColumn, Reference, bind, mentions
from lakehouse.queryd.dialects import engine_sql
from lakehouse.queryd.literals import read_parameters
from lakehouse.queryd.parse import Statement, invalid, parse
from lakehouse.queryd.plan import OutputColumn
from lakehouse.queryd.points import Mention
from lakehouse.queryd.pushdown import terms
from lakehouse.table.stats import Term

LENGTH: Final = struct.Struct("!Q")
ADDRESS_SPACE_BYTES: Final = 3 << 30


@dataclass(frozen=True, slots=True)
class ParseJob:
    """Which relations does ``sql`` read? Answered by their mentions."""

    sql: str
    bytes_max: int
    nesting_max: int


@dataclass(frozen=True, slots=True)
class BindJob:
    """The text of a statement for ``engine``. In it ``mark`` and a slot stand for each relation,
    as ``marked`` writes them; ``mark`` must be unguessable."""

    parse: ParseJob
    params_json: str
    columns: Mapping[str, tuple[BoundColumn, ...]]
    ids: Mapping[str, Mapping[str, Column]]
    engine: Engine
    mark: str


@dataclass(frozen=True, slots=True)
class BoundText:
    """The answer to a ``BindJob``."""

    explain: str
    references: tuple[Reference, ...]
    output: tuple[OutputColumn, ...]
    terms: Mapping[str, list[Term]]
    text: str


Answer = tuple[Mention, ...] | BoundText
Failure = tuple[str, str, dict[str, object]]


def marked(mark: str, slot: str) -> str:
    """The name of a slot in a text; none is the beginning of another."""
    return f"{mark}{slot}_"


class Planner:
    """Answers jobs; remembers the last statement, which is asked for twice."""

    def __init__(self) -> None:
        self._job: ParseJob | None = None
        self._statement: Statement | None = None

    def answer(self, job: ParseJob | BindJob) -> Answer:
        """Raises ``invalid`` and ``forbidden`` as ``parse`` and ``bind``."""
        try:
            if isinstance(job, ParseJob):
                return mentions(self._parsed(job).tree)
            return self._bound(job)
        except (RecursionError, MemoryError):
            raise invalid("the statement is nested too deep or too large") from None

    def _parsed(self, job: ParseJob) -> Statement:
        if self._statement is None or self._job != job:
            self._statement = parse(job.sql, job.bytes_max, job.nesting_max)
            self._job = job
        return self._statement

    def _bound(self, job: BindJob) -> BoundText:
        statement = self._parsed(job.parse)
        parameters = read_parameters(job.params_json, statement)
        bound = bind(statement.tree, job.columns, parameters)
        names = {one.slot: marked(job.mark, one.slot) for one in bound.references}
        known = terms(bound.tree, bound.references, job.ids)
        text = engine_sql(bound.tree, job.engine.value, names)
        return BoundText(statement.explain, bound.references, bound.output, known, text)


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Answer until the other side closes."""
    planner = Planner()
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        job = pickle.loads(source.read(LENGTH.unpack(head)[0]))
        answer: Answer | Failure
        try:
            answer = planner.answer(job)
            good = True
        except LakehouseError as error:
            answer = (error.kind.value, error.message, dict(error.fields))
            good = False
        body = pickle.dumps((good, answer))
        target.write(LENGTH.pack(len(body)) + body)
        target.flush()


def raised(failure: Failure) -> LakehouseError:
    """The error that the planner raised."""
    kind, message, fields = failure
    return LakehouseError(ErrorKind(kind), message, **fields)  # type: ignore[arg-type]


def main() -> None:
    """Serve on the standard streams, within a bound of memory."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    # Under its own name, or its classes would not be those that the service pickles.
    from lakehouse.queryd import planner

    planner.main()
