"""New columns and wider types: a new version of the schema, and no file is touched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.contracts.ingest import ColumnOverride
from lakehouse.contracts.rows import WidenReport, WidenRequest
from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.ingestd.rows.changing import ATTEMPTS, check_deadline, pause
from lakehouse.ingestd.rows.keying import check_live
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.rows.repeating import answered, asked, recall
from lakehouse.kit import tracing
from lakehouse.model.changes import SchemaIs, SetSchema
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import name_key
from lakehouse.model.schema import Column, ColumnDifference, Schema
from lakehouse.table.diff import schema_diff
from lakehouse.table.fingerprint import fingerprint
from lakehouse.table.types import from_arrow, to_arrow
from lakehouse.table.widening import may_widen

__all__ = ["Widener", "wider_schema"]

_ROUTE: Final = "rows.widen"
_COLUMNS_MAX: Final = 4_096
_NAME_CHARS: Final = 200


class Widener:
    """The use case behind ``contracts.rows.RowsService.widen``."""

    def __init__(self, parts: RowParts) -> None:
        self._parts = parts

    async def widen(self, ctx: Context, request: WidenRequest) -> WidenReport:
        """See the contract. It costs the commit alone, however many rows there are."""
        ctx.require(Scope.WRITE)
        if not (request.add or request.widen):
            raise _refused("", "nothing to add and nothing to widen was named")
        with tracing.span("widen"):
            return await self._widen(ctx, request)

    async def _widen(self, ctx: Context, request: WidenRequest) -> WidenReport:
        parts = self._parts
        commit = asked(ctx, _ROUTE, request)
        conflict: LakehouseError | None = None
        for attempt in range(ATTEMPTS):
            await pause(parts, attempt)
            check_deadline(parts, ctx)
            snapshot, version = await parts.reader.snapshot(ctx, request.dataset)
            known = await recall(parts.catalog, ctx, commit)
            if known is not None:
                return _told_again(known.answer_json, known.version)
            dataset = check_live(snapshot.dataset)
            schema = wider_schema(snapshot, request.add, request.widen)
            differences = schema_diff(dataset.schema, schema)
            report = WidenReport(dataset.name, version, schema.columns, differences)
            if request.dry_run or not differences:
                return replace(report, dry_run=request.dry_run, no_op=not differences)
            change = _change(ctx, request, dataset, schema)
            whole = answered(
                replace(
                    commit,
                    changes=(change,),
                    requirements=(SchemaIs(dataset.id, dataset.fingerprint),),
                ),
                report,
            )
            try:
                result = await parts.catalog.commit(ctx, whole)
            except LakehouseError as error:
                if error.kind is not ErrorKind.CONFLICT:
                    raise
                conflict = error
                continue
            if result.replayed and result.answer_json:
                return _told_again(result.answer_json, result.version)
            return replace(report, version=result.version)
        raise conflict or LakehouseError(ErrorKind.INTERNAL, "a widening was never attempted")


def _change(ctx: Context, request: WidenRequest, dataset: Dataset, schema: Schema) -> SetSchema:
    return SetSchema(
        dataset.id,
        schema,
        fingerprint(schema.columns),
        ctx.source or "",
        ctx.workspace or "",
        request.reason,
    )


def wider_schema(
    snapshot: DatasetSnapshot, add: Sequence[ColumnOverride], widen: Sequence[ColumnOverride]
) -> Schema:
    """The next version of a dataset's schema; its present one if all is so already.

    Raises ``invalid`` for what is no widening.
    """
    dataset = snapshot.dataset
    columns = list(dataset.schema.columns)
    places = {column.name: at for at, column in enumerate(columns)}
    _check_twice(dataset, [*add, *widen])
    for one in widen:
        if one.name not in places:
            raise _refused(
                dataset.name,
                "the column to be widened is not there",
                column=one.name[:_NAME_CHARS],
                columns=list(dataset.schema.names()[:100]),
            )
        at = places[one.name]
        columns[at] = replace(columns[at], type=_wider(dataset, columns[at], one.type))
    folded = {name_key(column.name): column.name for column in columns}
    # Ids are never used again: also those of schemas that only old files have.
    used = [column.id for schema in snapshot.schemas for column in schema.columns]
    free = max([*used, *(column.id for column in columns)]) + 1
    for one in add:
        kind = from_arrow(to_arrow(one.type))
        taken = folded.get(_checked_name(dataset, one.name))
        if taken is None:
            columns.append(Column(free, one.name, kind))
            folded[name_key(one.name)] = one.name
            free += 1
        elif taken != one.name or dataset.schema.columns[places[taken]].type != kind:
            raise _refused(
                dataset.name,
                "a column of this name is there already",
                column=taken,
                hint="to give it a wider type, name it under widen",
            )
    if len(columns) > _COLUMNS_MAX:
        raise _refused(dataset.name, "there would be too many columns", maximum=_COLUMNS_MAX)
    if tuple(columns) == dataset.schema.columns:
        return dataset.schema
    return Schema(dataset.schema.id + 1, tuple(columns))


def _wider(dataset: Dataset, column: Column, stated: str) -> str:
    kind = from_arrow(to_arrow(stated))
    if kind == column.type:
        return kind
    if column.name in dataset.primary_key:
        raise _refused(
            dataset.name,
            "a key column keeps its type",
            column=column.name,
            type_text=column.type,
            wanted=kind,
        )
    if not may_widen(column.type, kind):
        raise _refused(
            dataset.name,
            "not every value of the column is one of that type",
            column=column.name,
            type_text=column.type,
            wanted=kind,
            hint="wider is: string for anything, a decimal that holds all integers or more digits"
            " on both sides, timestamp for date",
        )
    return kind


def _checked_name(dataset: Dataset, name: str) -> str:
    if (
        not name.strip()
        or len(name) > _NAME_CHARS
        or any(char < " " or "\ud800" <= char <= "\udfff" for char in name)
    ):
        raise _refused(
            dataset.name,
            "a column needs a name of printable characters",
            column=ascii(name[:_NAME_CHARS])[1:-1],
            chars_max=_NAME_CHARS,
        )
    return name_key(name)


def _check_twice(dataset: Dataset, named: Sequence[ColumnOverride]) -> None:
    names = [name_key(one.name) for one in named]
    twice = next((one.name for one in named if names.count(name_key(one.name)) > 1), None)
    if twice is not None:
        raise _refused(dataset.name, "a column is named twice", column=twice[:_NAME_CHARS])


def _refused(dataset: str, message: str, **fields: FieldValue) -> LakehouseError:
    named = {"dataset": dataset} if dataset else {}
    return LakehouseError(ErrorKind.INVALID, message, **{**named, **fields})


def _told_again(answer: str, version: int) -> WidenReport:
    kept = json.loads(answer)
    kept["schema"] = tuple(Column(**column) for column in kept["schema"])
    kept["differences"] = tuple(ColumnDifference(**one) for one in kept["differences"])
    return WidenReport(**{**kept, "version": version})
