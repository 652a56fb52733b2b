"""Operator's work on names: importing a catalog written without the gate, and dedupe."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from lakehouse.catalogd.codec import decode, encode
from lakehouse.catalogd.core import Core, Planned
from lakehouse.catalogd.dedupe import DedupePlan, plan_dedupe
from lakehouse.catalogd.inspect import Inspected, Inspector
from lakehouse.catalogd.internal import ImportDataset, StoredChange
from lakehouse.catalogd.lifecycle import without_foreign_stats
from lakehouse.catalogd.registering import data_file
from lakehouse.catalogd.state import CatalogState
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_micros
from lakehouse.ledger.machine import Committed
from lakehouse.model.changes import AddFiles, CreateDataset, QuarantineDataset
from lakehouse.model.dataset import DatasetStatus
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import ObjectRef, check_foreign_key, check_name, name_key
from lakehouse.model.schema import Schema
from lakehouse.table.fingerprint import fingerprint
from lakehouse.table.types import schema_from_arrow

__all__ = ["Importing", "check_plan"]

_DATASETS_MAX = 10_000
_REASON_MAX = 1000


def check_plan(asked: str, found: str) -> None:
    """Raise ``conflict`` if a plan is asked for that is not the one that would be made now."""
    if asked and asked != found:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the plan is out of date",
            plan=asked[:128],
            now=found,
            hint="make a dry run again and look at what changed",
        )


class Importing:
    """``CatalogService.import_datasets`` and ``dedupe``."""

    def __init__(self, core: Core) -> None:
        self._core = core
        settings = core.settings
        self._inspector = Inspector(core.buckets, settings.object_bytes_max, settings.parallel, 0)

    async def import_datasets(self, ctx: Context, request: c.ImportRequest) -> c.ImportReport:
        """Take manifests over as they are; names may repeat. A manifest whose objects are missing
        or damaged is imported quarantined and hides no other. Importing twice imports once."""
        await self._core.read(ctx, Scope.OPERATOR)
        if not 1 <= len(request.datasets) <= _DATASETS_MAX:
            raise LakehouseError(
                ErrorKind.INVALID,
                "an import has 1 to 10,000 manifests",
                datasets=len(request.datasets),
            )
        known = await self._core.recall(ctx, "import_datasets", request)
        if known is not None:
            return _import_report(known)
        await self._core.buckets.find(ctx, {each.bucket for each in request.datasets})
        seen = await self._inspected(request)
        wanted = [(each, self._changes(each, seen)) for each in request.datasets]

        def decide(state: CatalogState) -> Planned:
            changes: list[StoredChange] = []
            taken = {name_key(each.name) for each, _ in wanted if _taken(state, each.name)}
            imported = duplicates = 0
            for manifest, own in wanted:
                if _present(state, manifest):
                    continue
                changes.extend(own)
                imported += 1
                key = name_key(manifest.name)
                duplicates += key in taken
                taken.add(key)
            return changes, {"imported": imported, "duplicates": duplicates}

        done = await self._core.commit(ctx, "import_datasets", request, decide)
        return _import_report(done)

    async def _inspected(self, request: c.ImportRequest) -> dict[ObjectRef, Inspected | str]:
        """Each object once, however many manifests name it; for a bad one, why."""
        refs = {
            ObjectRef(each.bucket, check_foreign_key(key))
            for each in request.datasets
            for key in each.keys
        }
        ordered = sorted(refs, key=lambda ref: (ref.bucket, ref.key))

        async def one(ref: ObjectRef) -> Inspected | str:
            try:
                return (await self._inspector.inspect([ref]))[0]
            except LakehouseError as error:
                if error.kind in (ErrorKind.NOT_FOUND, ErrorKind.INVALID, ErrorKind.CORRUPT):
                    self._core.buckets.get(ref.bucket)
                    return f"{error.message}: {ref.key}"
                raise

        found = await asyncio.gather(*(one(ref) for ref in ordered))
        return dict(zip(ordered, found, strict=True))

    def _changes(
        self, manifest: c.ImportedDataset, seen: dict[ObjectRef, Inspected | str]
    ) -> list[StoredChange]:
        name = check_name(manifest.name)
        good: list[Inspected] = []
        reasons: list[str] = []
        for key in dict.fromkeys(manifest.keys):
            found = seen[ObjectRef(manifest.bucket, key)]
            if isinstance(found, str):
                reasons.append(found)
            else:
                good.append(found)
        columns = schema_from_arrow(good[0].schema).columns if good else ()
        print_ = fingerprint(columns) if columns else ""
        alike = [each for each in good if _print_of(each) == print_]
        reasons += [f"another schema: {each.ref.key}" for each in good if each not in alike]
        if not manifest.keys:
            reasons.append("the manifest names no object")
        schema = Schema(1, columns)
        card = replace(
            manifest.card, lineage=replace(manifest.card.lineage, ingest="import"), detected=()
        )
        dataset_id = self._core.ids.ulid()
        create = CreateDataset(dataset_id, name, print_, schema, card, bucket=manifest.bucket)
        updated_us = to_micros(manifest.updated_at)
        changes: list[StoredChange] = [
            ImportDataset(create, updated_us, rows_known=manifest.row_count is not None)
        ]
        if alike:
            files = tuple(data_file(each, schema) for each in alike)
            add = AddFiles(dataset_id, files, operation="import", source="import")
            changes.append(_cast(without_foreign_stats(add)))
        if reasons:
            changes.append(QuarantineDataset(dataset_id, "; ".join(reasons)[:_REASON_MAX]))
        return changes

    async def dedupe(self, ctx: Context, request: c.PlanRequest) -> c.DedupeReport:
        """Collapse datasets that share a name, in one commit."""
        state = await self._core.read(ctx, Scope.OPERATOR)
        if request.dry_run:
            return _dedupe_report(state, plan_dedupe(state))

        def decide(head: CatalogState) -> Planned:
            plan = plan_dedupe(head)
            check_plan(request.plan, plan.digest)
            report = replace(_dedupe_report(head, plan), applied=bool(plan.changes))
            return plan.changes, encode(report)

        done = await self._core.commit(ctx, "dedupe", request, decide)
        return replace(decode(c.DedupeReport, done.answer), version=done.seq)


def _import_report(done: Committed[CatalogState]) -> c.ImportReport:
    return c.ImportReport(done.answer["imported"], done.answer["duplicates"], done.seq)


def _dedupe_report(state: CatalogState, plan: DedupePlan) -> c.DedupeReport:
    before = len(state.names.order)
    return c.DedupeReport(
        plan=plan.digest,
        applied=False,
        groups=plan.groups,
        skipped=plan.skipped,
        datasets_before=before,
        datasets_after=before - sum(len(group.dropped_ids) for group in plan.groups),
        version=state.version,
    )


def _cast(change: object) -> StoredChange:
    assert isinstance(change, AddFiles)
    return change


def _print_of(found: Inspected) -> str:
    return fingerprint(schema_from_arrow(found.schema).columns)


def _taken(state: CatalogState, name: str) -> bool:
    return bool(state.names.holder(name_key(name)))


def _present(state: CatalogState, manifest: c.ImportedDataset) -> bool:
    """True if this very manifest was imported before."""
    keys = set(manifest.keys)
    for dataset_id in state.names.sharing(name_key(manifest.name)):
        dataset = state.datasets.get(dataset_id)
        if dataset is None or len(dataset.history) == 0:
            continue
        first = dataset.history[dataset.history.start]
        if first.entry.operation != "import" or first.updated_at != manifest.updated_at:
            continue
        found = {file.key for file in dataset.log.visible(first.version)}
        # A torn manifest was taken over without the objects that were not there.
        torn = first.head.status is DatasetStatus.QUARANTINED
        if found == keys or (torn and found < keys):
            return True
    return False
