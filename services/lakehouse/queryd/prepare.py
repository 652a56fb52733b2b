"""From text and a snapshot to what an engine runs; everything that can be remembered is. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sqlglot import exp

from lakehouse.contracts.query import Engine
from lakehouse.model.dataset import DataFile
from lakehouse.queryd.bind import Bound, Reference, bind
from lakehouse.queryd.dialects import engine_sql
from lakehouse.queryd.literals import read_parameters
from lakehouse.queryd.parse import Statement, invalid
from lakehouse.queryd.plan import TableScan
from lakehouse.queryd.planner import BoundText
from lakehouse.queryd.pushdown import terms
from lakehouse.queryd.scan import Relation, make_scan, place
from lakehouse.table.stats import Term

V = TypeVar("V")
Files = tuple[tuple[str, Relation, tuple[DataFile, ...]], ...]


class Lru(Generic[V]):
    """The values of the last ``bound`` keys."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def peek(self, key: Hashable) -> V | None:
        """The value of ``key`` if it is there."""
        return self._values.get(key)

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value of ``key``, made now if it is not there; a failure is not remembered."""
        try:
            self._values.move_to_end(key)
            return self._values[key]
        except KeyError:
            value = self._values[key] = make()
            while len(self._values) > self._bound:
                self._values.popitem(last=False)
            return value


@dataclass(slots=True)
class Prepared:
    """A bound statement with the files each mention of a relation needs.

    ``written``: the text for each engine where it was made elsewhere, with marks for the slots;
    then ``bound.tree`` says nothing.
    """

    bound: Bound
    explain: str
    files: Files
    objects: tuple[DataFile, ...]
    texts: dict[str, tuple[str, tuple[TableScan, ...]]] = field(default_factory=dict)
    written: Mapping[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)

    def text(
        self, engine: Engine, paths: Mapping[tuple[str, str], str]
    ) -> tuple[str, tuple[TableScan, ...]]:
        """The statement for ``engine`` and its scans; ``paths`` by ``scan.place``."""
        known = self.texts.get(engine)
        if known is None:
            scans = {slot: make_scan(source, kept, paths) for slot, source, kept in self.files}
            names = {slot: scan.name for slot, scan in scans.items()}
            try:
                sql = self._sql(engine, names)
            except RecursionError:
                raise invalid("the statement is nested too deep") from None
            if self.explain:
                sql = f"{self.explain} {sql}"
            different = {scan.name: scan for scan in scans.values()}
            known = self.texts[engine] = (sql, tuple(different.values()))
        return known

    def _sql(self, engine: Engine, names: Mapping[str, str]) -> str:
        if not self.written:
            return engine_sql(self.bound.tree, engine.value, names)
        sql, slots = self.written[engine]
        for mark, slot in slots.items():
            sql = sql.replace(mark, names[slot])
        return sql


def prepare(statement: Statement, params_json: str, relations: Mapping[str, Relation]) -> Prepared:
    """Bind, and keep only the files whose statistics do not rule them out.

    Raises ``invalid`` as ``bind`` and ``read_parameters``.
    """
    parameters = read_parameters(params_json, statement)
    columns = {name: relation.columns for name, relation in relations.items()}
    try:
        bound = bind(statement.tree, columns, parameters)
        ids = {name: relation.ids for name, relation in relations.items()}
        known = terms(bound.tree, bound.references, ids)
    except RecursionError:
        raise invalid("the statement is nested too deep") from None
    files = _files(bound.references, known, relations)
    return Prepared(bound, statement.explain, files, _objects(files))


def prepare_text(
    answer: BoundText, slots: Mapping[str, str], relations: Mapping[str, Relation], engine: Engine
) -> Prepared:
    """What a planner bound for ``engine``; ``slots`` by their marks in its text."""
    files = _files(answer.references, answer.terms, relations)
    bound = Bound(exp.Null(), answer.references, answer.output)
    written = {engine.value: (answer.text, slots)}
    return Prepared(bound, answer.explain, files, _objects(files), written=written)


def _files(
    references: Sequence[Reference],
    known: Mapping[str, Sequence[Term]],
    relations: Mapping[str, Relation],
) -> Files:
    return tuple(
        (
            reference.slot,
            relations[reference.table],
            relations[reference.table].prune(known.get(reference.slot, ())),
        )
        for reference in references
    )


def _objects(files: Files) -> tuple[DataFile, ...]:
    return tuple({place(file): file for _, _, kept in files for file in kept}.values())
