"""Commits by others, and the life of a dataset: card, name, drop, restore, purge."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from lakehouse.catalogd.core import Core, Planned
from lakehouse.catalogd.requirements import check_requirements
from lakehouse.catalogd.rules import CHANGES_MAX
from lakehouse.catalogd.state import CatalogState, DatasetState
from lakehouse.catalogd.tagging import TAG_DOCUMENTS
from lakehouse.catalogd.views import dropped_dataset, live_dataset
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.buckets import BUCKET_DOCUMENTS
from lakehouse.model.changes import (
    AddFiles,
    Change,
    CloseSession,
    Condemn,
    DeleteDocument,
    DropDataset,
    OpenSession,
    PurgeDataset,
    PutDocument,
    QuarantineDataset,
    RenameDataset,
    RestoreDataset,
    RewriteFiles,
    SetCard,
)
from lakehouse.model.dataset import Card, Sensitivity
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import PRIMARY, check_name, name_key

__all__ = ["OPERATOR_DOCUMENTS", "Lifecycle", "parse_sensitivity", "without_foreign_stats"]

_OWN_CALLS = (OpenSession, CloseSession, Condemn)
_DOCUMENT_KIND = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_DOCUMENTS_BYTES_MAX = 8 << 20
OPERATOR_DOCUMENTS = frozenset({"token", BUCKET_DOCUMENTS})
"""Kinds that only operators read and write: who may come in, and where the buckets are."""


def parse_sensitivity(text: str) -> Sensitivity:
    """Raises ``invalid`` naming the values there are."""
    try:
        return Sensitivity(text.strip().casefold())
    except ValueError:
        raise LakehouseError(
            ErrorKind.INVALID,
            "there is no such sensitivity",
            sensitivity=text[:80],
            allowed=[each.value for each in Sensitivity],
        ) from None


def _scope_of(change: Change) -> Scope:
    """What a commit of ``change`` needs; raises for what has a call of its own."""
    if isinstance(change, _OWN_CALLS):
        raise LakehouseError(
            ErrorKind.INVALID,
            "this change has a call of its own",
            change=type(change).__name__,
            hint="use session or collect",
        )
    if isinstance(change, PutDocument | DeleteDocument) and change.kind == TAG_DOCUMENTS:
        raise LakehouseError(
            ErrorKind.INVALID,
            "tags have a call of their own",
            document_kind=change.kind,
            hint="use set_tag",
        )
    if isinstance(change, QuarantineDataset | PurgeDataset):
        return Scope.OPERATOR
    if isinstance(change, PutDocument | DeleteDocument) and change.kind in OPERATOR_DOCUMENTS:
        return Scope.OPERATOR
    return Scope.WRITE


def without_foreign_stats(change: Change) -> Change:
    """For files outside the primary bucket the catalog holds keys, sizes, hashes and counts only:
    values of a tenant's rows do not leave the tenant's bucket."""
    if not isinstance(change, AddFiles | RewriteFiles):
        return change
    if all(file.bucket == PRIMARY for file in change.files):
        return change
    files = tuple(f if f.bucket == PRIMARY else replace(f, stats=()) for f in change.files)
    return replace(change, files=files)


def check_expected(dataset: DatasetState, expected: int | None) -> None:
    """Raise ``conflict`` unless the dataset's last change is ``expected`` (None: any)."""
    if expected is not None and dataset.now.version != expected:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the dataset changed meanwhile",
            name=dataset.now.head.name,
            expected_version=expected,
            version=dataset.now.version,
            hint="read it again and decide anew",
        )


def _patched(card: Card, request: c.UpdateCardRequest) -> Card:
    given: dict[str, object] = {
        name: value
        for name in ("owner", "description", "tags", "freshness_sla_seconds")
        if (value := getattr(request, name)) is not None
    }
    if request.sensitivity is not None:
        given["sensitivity"] = parse_sensitivity(request.sensitivity)
    if request.source_system is not None:
        given["lineage"] = replace(card.lineage, source_system=request.source_system)
    detected = tuple(name for name in card.detected if name not in given)
    return replace(card, **given, detected=detected)  # type: ignore[arg-type]


def _check_documents(changes: Sequence[Change]) -> None:
    """Raise ``invalid`` for a kind of another form, or documents that are too much together: the
    catalog holds them all in memory, and reads them at every start."""
    puts = [change for change in changes if isinstance(change, PutDocument)]
    for put in puts:
        if not _DOCUMENT_KIND.fullmatch(put.kind):
            raise LakehouseError(
                ErrorKind.INVALID,
                "a document's kind has 1 to 64 characters a-z, 0-9, _ and -, a letter first",
                document_kind=put.kind[:80],
                id=put.id[:80],
            )
    # Characters first: what is far too long is not encoded to find that out.
    size = sum(len(put.body) for put in puts)
    if size <= _DOCUMENTS_BYTES_MAX:
        size = sum(len(put.body.encode(errors="replace")) for put in puts)
    if size > _DOCUMENTS_BYTES_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the documents of one commit are too large together",
            size_bytes=size,
            max=_DOCUMENTS_BYTES_MAX,
            hint="commit them in several parts; large things belong into objects",
        )


class Lifecycle:
    """The changing half of ``contracts.catalog.CatalogService``, but for registration."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def commit(self, ctx: Context, request: c.CommitRequest) -> c.CommitResult:
        for change in request.changes:
            ctx.require(_scope_of(change))
        ctx.require(Scope.WRITE)
        method = f"commit {request.route}".rstrip()
        if request.request_sha256 and not request.changes:
            return await self._recalled(ctx, method, request)
        if not 1 <= len(request.changes) <= CHANGES_MAX:
            raise LakehouseError(
                ErrorKind.INVALID,
                "a commit has 1 to 10,000 changes",
                changes=len(request.changes),
            )
        _check_documents(request.changes)
        changes = [without_foreign_stats(change) for change in request.changes]

        def decide(state: CatalogState) -> Planned:
            check_requirements(state, request.requirements)
            return changes, {"json": request.answer_json} if request.answer_json else {}

        asked = request.request_sha256 or request
        done = await self._core.commit(ctx, method, asked, decide)
        return c.CommitResult(done.seq, done.replayed, str(done.answer.get("json", "")))

    async def _recalled(
        self, ctx: Context, method: str, request: c.CommitRequest
    ) -> c.CommitResult:
        state = await self._core.read(ctx, Scope.WRITE)
        done = await self._core.recall(ctx, method, request.request_sha256)
        if done is None:
            return c.CommitResult(state.version)
        return c.CommitResult(done.seq, True, str(done.answer.get("json", "")))

    async def update_card(self, ctx: Context, request: c.UpdateCardRequest) -> c.DatasetResult:
        ctx.require(Scope.WRITE)

        def decide(state: CatalogState) -> Planned:
            dataset = live_dataset(state, request.name)
            check_expected(dataset, request.expected_version)
            old = dataset.now.head.card
            card = _patched(old, request)
            changes = [SetCard(dataset.id, card)] if card != old else []
            return changes, {"dataset_id": dataset.id}

        done = await self._core.commit(ctx, "update_card", request, decide)
        return self._core.result(done, str(done.answer["dataset_id"]))

    async def rename(self, ctx: Context, request: c.RenameRequest) -> c.DatasetResult:
        ctx.require(Scope.WRITE)
        name = check_name(request.new_name)

        def decide(state: CatalogState) -> Planned:
            dataset = live_dataset(state, request.name)
            check_expected(dataset, request.expected_version)
            same = dataset.now.head.name == name
            changes = [] if same else [RenameDataset(dataset.id, name)]
            return changes, {"dataset_id": dataset.id}

        done = await self._core.commit(ctx, "rename", request, decide)
        return self._core.result(done, str(done.answer["dataset_id"]))

    async def drop(self, ctx: Context, request: c.DropRequest) -> c.CommitResult:
        ctx.require(Scope.OPERATOR if request.purge else Scope.WRITE)

        def decide(state: CatalogState) -> Planned:
            if not request.purge:
                dataset = live_dataset(state, request.name)
                check_expected(dataset, request.expected_version)
                return [DropDataset(dataset.id)], {}
            return _purge(state, request), {}

        done = await self._core.commit(ctx, "drop", request, decide)
        return c.CommitResult(done.seq, done.replayed)

    async def restore(self, ctx: Context, request: c.RestoreRequest) -> c.DatasetResult:
        ctx.require(Scope.WRITE)
        name = check_name(request.new_name) if request.new_name else ""

        def decide(state: CatalogState) -> Planned:
            dataset = dropped_dataset(state, request.name)
            return [RestoreDataset(dataset.id, name)], {"dataset_id": dataset.id}

        done = await self._core.commit(ctx, "restore", request, decide)
        return self._core.result(done, str(done.answer["dataset_id"]))


def _purge(state: CatalogState, request: c.DropRequest) -> list[Change]:
    """A live dataset is dropped first; a dropped one is purged as it is."""
    holder = state.names.holder(name_key(request.name))
    if holder in state.broken:
        return [PurgeDataset(holder)]
    live = state.datasets.get(holder)
    dataset = live or dropped_dataset(state, request.name)
    check_expected(dataset, request.expected_version)
    purge = PurgeDataset(dataset.id)
    return [purge] if live is None else [DropDataset(dataset.id), purge]
