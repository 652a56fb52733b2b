"""A dataset made what it was: the difference as row changes, or the files of then. One commit."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pyarrow as pa

from lakehouse.contracts.catalog import AsOf, CommitRequest, CommitResult, DatasetSnapshot
from lakehouse.contracts.rows import ChangeRowsReport, RestoreRowsRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.answering import told_again
from lakehouse.ingestd.rows.changing import ATTEMPTS, check_deadline, pause
from lakehouse.ingestd.rows.comparing import compare, pair_of
from lakehouse.ingestd.rows.finding import place
from lakehouse.ingestd.rows.keying import check_live
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.rows.publishing import Told, publish
from lakehouse.ingestd.rows.repeating import answered, asked, recall
from lakehouse.kit import tracing
from lakehouse.kit.blocking import run_in
from lakehouse.model.changes import AddFiles, RowsAt, SchemaIs
from lakehouse.model.dataset import ROWS, Dataset
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import name_key
from lakehouse.table.changes import RowChanges, difference
from lakehouse.table.types import arrow_schema

__all__ = ["RowRestorer"]

_ROUTE: Final = "rows.restore"
_OPERATION: Final = "restore"


class RowRestorer:
    """The use case behind ``contracts.rows.RowsService.restore``."""

    def __init__(self, parts: RowParts) -> None:
        self._parts = parts

    async def restore(self, ctx: Context, request: RestoreRowsRequest) -> ChangeRowsReport:
        """See the contract. Raises ``exhausted`` where the rows that differ do not fit into
        memory."""
        ctx.require(Scope.WRITE)
        if request.as_of == AsOf(min_version=request.as_of.min_version):
            raise LakehouseError(
                ErrorKind.INVALID,
                "a restore needs the version, the time or the tag to go back to",
                dataset=request.dataset,
            )
        with tracing.span("restore rows"):
            return await self._restore(ctx, request)

    async def _restore(self, ctx: Context, request: RestoreRowsRequest) -> ChangeRowsReport:
        parts = self._parts
        commit = asked(ctx, _ROUTE, request)
        conflict: LakehouseError | None = None
        async with parts.turns.of(name_key(request.dataset)):
            for attempt in range(ATTEMPTS):
                await pause(parts, attempt)
                check_deadline(parts, ctx)
                now, version = await parts.reader.snapshot(ctx, request.dataset)
                known = await recall(parts.catalog, ctx, commit)
                if known is not None:
                    return told_again(known.answer_json, known.version)
                check_live(now.dataset)
                then, _ = await parts.reader.snapshot(ctx, request.dataset, request.as_of)
                try:
                    if now.dataset.primary_key:
                        return await self._by_key(ctx, request, (now, then, version), commit)
                    return await self._by_file(ctx, request, (now, then, version), commit)
                except LakehouseError as error:
                    if error.kind is not ErrorKind.CONFLICT:
                        raise
                    conflict = error
        raise conflict or LakehouseError(ErrorKind.INTERNAL, "a restore was never attempted")

    async def _by_key(
        self,
        ctx: Context,
        request: RestoreRowsRequest,
        at: tuple[DatasetSnapshot, DatasetSnapshot, int],
        commit: CommitRequest,
    ) -> ChangeRowsReport:
        now, then, version = at
        changes = await self._changes(now, then)
        _check_count(now.dataset, then.dataset, changes)
        report = ChangeRowsReport(
            now.dataset.name,
            version,
            inserted=changes.inserted,
            updated=changes.updated,
            deleted=changes.deleted,
            no_op=changes.empty,
            dry_run=request.dry_run,
        )
        if request.dry_run or changes.empty:
            return report
        check_deadline(self._parts, ctx)
        told = Told(_OPERATION, ctx.source or "", request.reason)
        result = await publish(
            self._parts, ctx, now.dataset, changes, told, answered(commit, report)
        )
        return _done(report, result)

    async def _changes(self, now: DatasetSnapshot, then: DatasetSnapshot) -> RowChanges:
        """What makes the rows of then of those of now, as one change."""
        pair = pair_of(now, then, now.dataset.name)
        empty = arrow_schema(pair.schema).empty_table()
        before, after = [empty], [empty]
        size = 0
        bound = self._parts.settings.keyed_bytes_max
        async for some in compare(self._parts, pair):
            before.append(some.old)
            after.append(some.rows)
            size += some.old.nbytes + some.rows.nbytes
            if size > bound:
                raise _too_many(now.dataset, bound)
        return await run_in(
            self._parts.jobs,
            difference,
            pa.concat_tables(before),
            pa.concat_tables(after),
            pair.schema,
            pair.key,
        )

    async def _by_file(
        self,
        ctx: Context,
        request: RestoreRowsRequest,
        at: tuple[DatasetSnapshot, DatasetSnapshot, int],
        commit: CommitRequest,
    ) -> ChangeRowsReport:
        """Without a key rows are not told apart: the files of then take the place of all others."""
        now, then, version = at
        dataset = now.dataset
        _check_same(now, then, request)
        here = {place(file): file for file in now.files if file.content == ROWS}
        there = {place(file): file for file in then.files if file.content == ROWS}
        report = ChangeRowsReport(
            dataset.name,
            version,
            inserted=sum(file.rows for at, file in there.items() if at not in here),
            deleted=sum(file.rows for at, file in here.items() if at not in there),
            no_op=here.keys() == there.keys(),
            dry_run=request.dry_run,
        )
        if request.dry_run or report.no_op:
            return report
        add = AddFiles(
            dataset.id,
            tuple(there.values()),
            replace=True,
            operation=_OPERATION,
            source=ctx.source or "",
            workspace=ctx.workspace or "",
            reason=request.reason,
        )
        needs = (
            RowsAt(dataset.id, dataset.rows_version),
            SchemaIs(dataset.id, dataset.fingerprint),
        )
        whole = replace(answered(commit, report), changes=(add,), requirements=needs)
        return _done(report, await self._parts.catalog.commit(ctx, whole))


def _done(report: ChangeRowsReport, result: CommitResult) -> ChangeRowsReport:
    if result.replayed and result.answer_json:
        return told_again(result.answer_json, result.version)
    return replace(report, version=result.version)


def _check_same(now: DatasetSnapshot, then: DatasetSnapshot, request: RestoreRowsRequest) -> None:
    if now.dataset.id != then.dataset.id:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "the name belonged to another dataset then",
            dataset=request.dataset,
            version=then.dataset.version,
        )


def _check_count(now: Dataset, then: Dataset, changes: RowChanges) -> None:
    """Raise unless the changes lead to as many rows as there were: from before the key was declared
    there may be rows without one, which would be lost."""
    if now.row_count is None or then.row_count is None:
        return
    led_to = now.row_count + changes.inserted - changes.deleted
    if led_to == then.row_count:
        return
    keyless = not then.primary_key
    raise LakehouseError(
        ErrorKind.INVALID if keyless else ErrorKind.CORRUPT,
        "the rows of then cannot all be told apart by the primary key"
        if keyless
        else "the rows of then do not number what the catalog says",
        dataset=now.name,
        version=then.version,
        rows=then.row_count,
        found=led_to,
        hint="ingest them as another dataset" if keyless else "run catalog fsck --deep",
    )


def _too_many(dataset: Dataset, maximum: int) -> LakehouseError:
    return LakehouseError(
        ErrorKind.EXHAUSTED,
        "more rows differ than one change may hold in memory",
        dataset=dataset.name,
        limit="ingest.keyed_bytes_max",
        maximum=maximum,
        hint="raise the limit, or go back by way of a version in between",
    )
