"""Upsert, patch, delete by key or by predicate: read, decide, write, commit; lost races again."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Final

import pyarrow as pa

from lakehouse.contracts.catalog import CommitRequest, DatasetSnapshot
from lakehouse.contracts.rows import CHANGE_BYTES_MAX, ChangeRowsReport, ChangeRowsRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.convert import Work
from lakehouse.ingestd.rows.answering import told_again
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.rows.planning import (
    Batch,
    batch_of_body,
    batch_of_predicate,
    check_request,
)
from lakehouse.ingestd.rows.predicates import keys_where
from lakehouse.ingestd.rows.publishing import Told, publish
from lakehouse.ingestd.rows.refusals import no_key
from lakehouse.ingestd.rows.repeating import answered, asked, recall
from lakehouse.kit import tracing
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import Dataset, DatasetStatus
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import name_key
from lakehouse.table.changes import RowChanges
from lakehouse.table.types import arrow_schema

__all__ = ["ATTEMPTS", "RowChanger", "check_changeable", "check_deadline", "pause"]

ATTEMPTS: Final = 8
_ROUTE: Final = "rows"
_PAUSE_SECONDS: Final = 0.05
_LOOKED_UP: Final = 100_000
_DECODED_BYTES_MAX: Final = 8 * CHANGE_BYTES_MAX


class RowChanger:
    """The use case behind ``contracts.rows.RowsService.change``."""

    def __init__(self, parts: RowParts) -> None:
        self._parts = parts

    async def change(self, ctx: Context, request: ChangeRowsRequest) -> ChangeRowsReport:
        """See the contract. A batch costs a PUT each for rows, keys and events, and the commit's
        own; what it does not have (no row replaced, none written) is not put."""
        ctx.require(Scope.WRITE)
        check_request(request)
        with tracing.span("change rows", attributes={"lakehouse.change": request.change.value}):
            return await self._change(ctx, request)

    async def _change(self, ctx: Context, request: ChangeRowsRequest) -> ChangeRowsReport:
        parts = self._parts
        body_sha256 = hashlib.sha256(request.body).hexdigest() if request.body else ""
        # A body is as good as its digest, and shorter.
        commit = asked(ctx, _ROUTE, replace(request, body=body_sha256.encode()))
        told = Told(request.change.value, ctx.source or "", request.reason, body_sha256)
        if request.dry_run:
            return await self._dry_run(ctx, request)
        batch: Batch | None = None
        if not request.where:
            # Read before the turn: others go ahead meanwhile. What this very call did when it was
            # made before comes first, for the schema may be another by now.
            snapshot, _ = await parts.reader.snapshot(ctx, request.dataset)
            replay = await self._recall(ctx, commit)
            if replay is not None:
                return replay
            batch = await self._read(ctx, request, check_changeable(snapshot.dataset))
        conflict: LakehouseError | None = None
        async with parts.turns.of(name_key(request.dataset)):
            for attempt in range(ATTEMPTS):
                await pause(parts, attempt)
                check_deadline(parts, ctx)
                snapshot, version = await parts.reader.snapshot(ctx, request.dataset)
                # After the look at what is there: that may be what this very call did before.
                replay = await self._recall(ctx, commit)
                if replay is not None:
                    return replay
                dataset = check_changeable(snapshot.dataset)
                batch, changes = await self._plan(ctx, request, (snapshot, version), batch)
                report = _report(dataset, changes, version)
                if changes.empty:
                    return replace(report, no_op=True)
                whole = answered(commit, report)
                try:
                    result = await publish(parts, ctx, dataset, changes, told, whole)
                except LakehouseError as error:
                    if error.kind is not ErrorKind.CONFLICT:
                        raise
                    conflict = error
                    continue
                if result.replayed and result.answer_json:
                    return told_again(result.answer_json, result.version)
                return replace(report, version=result.version)
        raise _contended(request.dataset, conflict)

    async def _dry_run(self, ctx: Context, request: ChangeRowsRequest) -> ChangeRowsReport:
        snapshot, version = await self._parts.reader.snapshot(ctx, request.dataset)
        dataset = check_changeable(snapshot.dataset)
        _, changes = await self._plan(ctx, request, (snapshot, version), None)
        report = _report(dataset, changes, version)
        return replace(report, dry_run=True, no_op=changes.empty)

    async def _plan(
        self,
        ctx: Context,
        request: ChangeRowsRequest,
        at: tuple[DatasetSnapshot, int],
        batch: Batch | None,
    ) -> tuple[Batch, RowChanges]:
        """The batch, read again only if it has to be, against the rows that are there now."""
        parts = self._parts
        snapshot, version = at
        dataset = snapshot.dataset
        _check_version(request, dataset)
        if request.where:
            bound = parts.settings.keyed_bytes_max
            keys = await keys_where(ctx, parts.query, dataset, request.where, (version, bound))
            work = self._work(ctx)
            batch = await run_in(parts.jobs, batch_of_predicate, request, dataset, keys, work)
        elif batch is None or not batch.fits(dataset):
            batch = await self._read(ctx, request, dataset)
        if 0 < batch.keys.num_rows <= _LOOKED_UP:
            changes = await parts.reader.found(snapshot, batch.keys, batch.plan)
        else:
            current = await self._find(snapshot, batch.keys)
            changes = await run_in(parts.jobs, batch.plan, current)
        check_deadline(parts, ctx)
        return batch, changes

    async def _find(self, snapshot: DatasetSnapshot, keys: pa.Table) -> pa.Table:
        """The rows that are there with ``keys``. Raises ``exhausted`` where they are too many."""
        parts = self._parts
        found = [arrow_schema(snapshot.dataset.schema).empty_table()]
        size, bound = 0, parts.settings.keyed_bytes_max
        for start in range(0, keys.num_rows, _LOOKED_UP):
            some = keys.slice(start, _LOOKED_UP).combine_chunks()
            found.append(await parts.reader.find(snapshot, some))
            size += found[-1].nbytes
            if size > bound:
                raise _too_many(snapshot.dataset.name, bound)
        return pa.concat_tables(found).combine_chunks()

    async def _read(self, ctx: Context, request: ChangeRowsRequest, dataset: Dataset) -> Batch:
        return await run_in(self._parts.jobs, batch_of_body, request, dataset, self._work(ctx))

    def _work(self, ctx: Context) -> Work:
        parts = self._parts
        decoded = min(parts.settings.decoded_bytes_max, _DECODED_BYTES_MAX)
        settings = replace(parts.settings, decoded_bytes_max=decoded)
        return Work(Path(), settings, parts.jobs, lambda: check_deadline(parts, ctx), "", 0)

    async def _recall(self, ctx: Context, commit: CommitRequest) -> ChangeRowsReport | None:
        known = await recall(self._parts.catalog, ctx, commit)
        return None if known is None else told_again(known.answer_json, known.version)


def _report(dataset: Dataset, changes: RowChanges, version: int) -> ChangeRowsReport:
    return ChangeRowsReport(
        dataset=dataset.name,
        version=version,
        inserted=changes.inserted,
        updated=changes.updated,
        deleted=changes.deleted,
        unchanged=changes.unchanged,
        missing=changes.missing,
    )


async def pause(parts: RowParts, attempt: int) -> None:
    """Before another attempt after a lost race: not all at the same moment."""
    if attempt:
        await parts.clock.sleep(_PAUSE_SECONDS * attempt * parts.ids.uniform())


def check_deadline(parts: RowParts, ctx: Context) -> None:
    """Raise ``timeout`` if it has passed; call it before the commit only."""
    if ctx.deadline is not None and parts.clock.monotonic() > ctx.deadline:
        raise LakehouseError(
            ErrorKind.TIMEOUT,
            "the deadline passed before anything was committed",
            hint="allow more time, or send a smaller batch",
        )


def check_changeable(dataset: Dataset) -> Dataset:
    """Raise ``invalid`` for a dataset without a key, ``conflict`` for one that is not live."""
    if dataset.status is not DatasetStatus.LIVE:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            f"the dataset is {dataset.status.value}",
            dataset=dataset.name,
            hint="have an operator look at it before rows are changed",
        )
    if not dataset.primary_key:
        raise no_key(dataset.name)
    return dataset


def _check_version(request: ChangeRowsRequest, dataset: Dataset) -> None:
    expected = request.expected_version
    if expected is not None and expected != dataset.rows_version:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the rows changed since the version that was expected",
            dataset=dataset.name,
            expected_version=expected,
            version=dataset.rows_version,
            hint="read them again and decide anew",
        )


def _too_many(name: str, bound: int) -> LakehouseError:
    return LakehouseError(
        ErrorKind.EXHAUSTED,
        "the rows to change are more than one batch may hold in memory",
        dataset=name,
        limit="ingest.keyed_bytes_max",
        maximum=bound,
        hint="change them in several steps, or ingest a file with mode=upsert",
    )


def _contended(name: str, last: LakehouseError | None) -> LakehouseError:
    """Every attempt lost a race: nothing was changed, and it may be sent again."""
    fields = {} if last is None else {"cause": str(last)}
    return LakehouseError(
        ErrorKind.CONFLICT,
        "others went on changing the dataset, so nothing of the batch was applied",
        dataset=name,
        attempts=ATTEMPTS,
        hint="send it again",
        **fields,
    )
