"""Which events are asked for: as a mask over a table of them, and as files to leave out. Pure."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.kit.clock import to_datetime
from lakehouse.model.dataset import DataFile
from lakehouse.model.events import EventKind
from lakehouse.table.events import EVENT_COLUMNS
from lakehouse.table.stats import Term, prune, stats_table

__all__ = ["VERSION_MAX", "Wanted"]

VERSION_MAX: Final = (1 << 63) - 1
_INSERT: Final = EventKind.INSERT.value
_TEXTS: Final = ("field", "kind", "actor", "workspace", "request_id")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Filters joined by and; "" and None are no filter.

    Attributes:
        entity: canonical text of a key; inserts that name it are wanted, too.
        since_us, until_us: at or after, before.
        after, upto: versions later than, and at or before.
    """

    entity: str = ""
    field: str = ""
    kind: str = ""
    actor: str = ""
    workspace: str = ""
    request_id: str = ""
    since_us: int | None = None
    until_us: int | None = None
    after: int = 0
    upto: int = VERSION_MAX

    @property
    def columns(self) -> tuple[str, ...]:
        """What ``select`` looks at beside the version."""
        names = [name for name in _TEXTS if getattr(self, name)]
        if self.since_us is not None or self.until_us is not None:
            names.append("at")
        return (*names, *(("entity", "entities") if self.entity else ()))

    def select(self, events: pa.Table) -> pa.Table:
        """Those of ``events``, with their versions filled, that are wanted."""
        masks = [pc.greater(events["version"], self.after)]
        if self.upto < VERSION_MAX:
            masks.append(pc.less_equal(events["version"], self.upto))
        masks += [
            pc.equal(events[name], getattr(self, name)) for name in _TEXTS if getattr(self, name)
        ]
        if self.since_us is not None:
            masks.append(pc.greater_equal(events["at"], _time(self.since_us)))
        if self.until_us is not None:
            masks.append(pc.less(events["at"], _time(self.until_us)))
        if self.entity:
            masks.append(_of_entity(events, self.entity))
        return events.filter(functools.reduce(pc.and_, masks))

    def prune(self, files: Sequence[DataFile]) -> list[DataFile]:
        """``files`` but those that surely have no wanted event, by their statistics."""
        common = self._terms()
        # An insert names its entities in a list, of which there are no bounds.
        cases = [common]
        if self.entity:
            cases = [
                [*common, _term("entity", "=", self.entity)],
                [*common, _term("kind", "=", _INSERT)],
            ]
        if not any(cases):
            return list(files)
        stats = stats_table(files, {term.column_id for case in cases for term in case})
        keep = functools.reduce(pc.or_, [prune(stats, case) for case in cases])
        return [file for file, kept in zip(files, keep.to_pylist(), strict=True) if kept]

    def _terms(self) -> list[Term]:
        found = [_term(name, "=", getattr(self, name)) for name in _TEXTS if getattr(self, name)]
        if self.since_us is not None:
            found.append(_term("at", ">=", to_datetime(self.since_us).isoformat()))
        if self.until_us is not None:
            found.append(_term("at", "<", to_datetime(self.until_us).isoformat()))
        return found


def _time(micros: int) -> pa.Scalar:
    return pa.scalar(micros, pa.timestamp("us", tz="UTC"))


def _term(name: str, operator: str, value: str) -> Term:
    column = next(one for one in EVENT_COLUMNS.columns if one.name == name)
    return Term(column.id, operator, (value,), column.type)


def _of_entity(events: pa.Table, entity: str) -> pa.ChunkedArray:
    """Of each event whether it is of ``entity``, or an insert that names it."""
    own = pc.fill_null(pc.equal(events["entity"], entity), False)
    named = pa.chunked_array(
        [_naming(chunk, entity) for chunk in events["entities"].chunks], pa.bool_()
    )
    return pc.or_(own, named)


def _naming(lists: pa.ListArray, entity: str) -> pa.Array:
    hits = pc.filter(
        pc.list_parent_indices(lists), pc.fill_null(pc.equal(pc.list_flatten(lists), entity), False)
    )
    return pc.is_in(pa.arange(0, len(lists)), value_set=hits.cast(pa.int64()))
