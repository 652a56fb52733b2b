"""Reads of the catalog: from memory, each at one version, none in proportion to what is there."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from immutables import Map

from lakehouse.catalogd.core import Core, decode_cursor, encode_cursor
from lakehouse.catalogd.lifecycle import OPERATOR_DOCUMENTS
from lakehouse.catalogd.persistent import NameEntry
from lakehouse.catalogd.state import CatalogState, DatasetState, DocumentState, Revision
from lakehouse.catalogd.views import broken_view, check_readable, dataset_at, version_of
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.model.dataset import CONTENTS, EVENTS, DataFile, Dataset
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import name_key

__all__ = ["Reads"]

_LIMIT_MAX: Final = 1000
_FILES_LIMIT_MAX: Final = 10_000
_INLINE_FILES: Final = 2_000
_YIELD_EVERY: Final = 500
_REMEMBERED: Final = 256  # snapshots, of so many files each at most
_REMEMBERED_FILES: Final = 64
_NO_DOCUMENTS: Final[Map[str, DocumentState]] = Map()


def _limited(limit: int, most: int) -> int:
    if not 1 <= limit <= most:
        raise LakehouseError(
            ErrorKind.INVALID, f"limit must be from 1 to {most}", limit=limit, maximum=most
        )
    return limit


def _matches(state: CatalogState, dataset_id: str, request: c.ListRequest) -> bool:
    if not (request.tag or request.owner or request.query):
        return True
    dataset = state.datasets.get(dataset_id)
    if dataset is None:
        return not (request.tag or request.owner) and (
            request.query.casefold() in state.broken[dataset_id].name.casefold()
        )
    head = dataset.now.head
    card = head.card
    if request.tag and request.tag.casefold() not in (tag.casefold() for tag in card.tags):
        return False
    if request.owner and request.owner.casefold() != card.owner.casefold():
        return False
    words = request.query.casefold().split()
    if not words:
        return True
    names = dataset.schema(head.schema_id).names()
    texts = (head.name, card.description, card.owner, *card.tags, *names)
    haystack = "\n".join(texts).casefold()
    return all(word in haystack for word in words)


def _entries(state: CatalogState, request: c.ListRequest) -> Iterator[NameEntry]:
    after = ("", "")
    if request.cursor:
        name, dataset_id = decode_cursor(request.cursor, (str, str))
        after = (name, dataset_id)
    live = state.names.order.after(after)
    if not request.include_dropped:
        return live
    return heapq.merge(live, state.names.dropped.after(after))


def _shown(state: CatalogState, dataset_id: str) -> Dataset:
    dataset = state.datasets.get(dataset_id)
    if dataset is None:
        return broken_view(dataset_id, state.broken[dataset_id])
    return dataset.view(dataset.now)


async def _visible(
    dataset: DatasetState, revision: Revision, known: _Remembered | None
) -> tuple[DataFile, ...]:
    """The files of a revision; many are made beside the loop. Where files only came since what is
    ``known``, those are all that is looked at."""
    if known is not None and revision is dataset.now and known.has_grown_to(dataset):
        later = dataset.log.visible(after=known.dataset.log.next_ordinal - 1)
        return known.snapshot.files + _known(dataset, later)
    files = dataset.log.visible(None if revision is dataset.now else revision.version)
    if revision.totals.files <= _INLINE_FILES:
        return _known(dataset, files)
    return await run_blocking(_known, dataset, files)


def _known(dataset: DatasetState, visible: Iterator[DataFile]) -> tuple[DataFile, ...]:
    """All of ``visible`` but events. Raises ``conflict`` if one of them is of a kind that only a
    newer version can read: rows without their deltas are other rows."""
    files = tuple(file for file in visible if file.content != EVENTS)
    odd = next((f for f in files if f.content not in CONTENTS or f.encryption), None)
    if odd is not None:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the dataset has files that only a newer version can read",
            dataset=dataset.now.head.name,
            key=odd.key,
            content=odd.content[:40],
            encryption=odd.encryption[:40],
            hint="upgrade this node",
        )
    return files


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A snapshot, and the immutable values that it was made from."""

    dataset: DatasetState
    revision: Revision
    snapshot: c.DatasetSnapshot

    def has_grown_to(self, dataset: DatasetState) -> bool:
        """True if this was the newest, and ``dataset`` has lost no file since."""
        before, now = self.dataset.log, dataset.log
        # A replace takes the first with all others; a collection forgets both it and them.
        first = self.snapshot.files[0].ordinal if self.snapshot.files else None
        return (
            self.revision is self.dataset.now
            and before.removed is now.removed
            and before.clears is now.clears
            and (first is None or (now.segments != () and now.segments[0].first <= first))
            and before.next_ordinal <= now.next_ordinal
        )


class Reads:
    """The reading half of ``contracts.catalog.CatalogService``."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._snapshots: OrderedDict[str, _Remembered] = OrderedDict()

    async def get(self, ctx: Context, request: c.GetRequest) -> c.DatasetResult:
        state = await self._core.read(ctx)
        version = version_of(state, request.as_of)
        dataset, revision = dataset_at(
            state, request.name, version, include_dropped=request.include_dropped
        )
        return c.DatasetResult(
            dataset.view(revision), state.version if version is None else version
        )

    async def list(self, ctx: Context, request: c.ListRequest) -> c.ListResult:
        state = await self._core.read(ctx)
        limit = _limited(request.limit, _LIMIT_MAX)
        found: list[Dataset] = []
        last: NameEntry = ("", "")
        for count, entry in enumerate(_entries(state, request)):
            if count % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
            if not _matches(state, entry[1], request):
                continue
            if len(found) == limit:
                return c.ListResult(tuple(found), state.version, encode_cursor(*last))
            found.append(_shown(state, entry[1]))
            last = entry
        return c.ListResult(tuple(found), state.version)

    async def snapshot(self, ctx: Context, request: c.SnapshotRequest) -> c.SnapshotResult:
        state = await self._core.read(ctx)
        version = version_of(state, request.as_of)
        pins = {name_key(pin.name): version_of(state, pin.as_of) for pin in request.pins}
        found: list[c.DatasetSnapshot] = []
        for name in request.names:
            at = pins.get(name_key(name), version)
            dataset, revision = dataset_at(state, name, at)
            check_readable(revision)
            found.append(await self._snapshot(dataset, revision))
        return c.SnapshotResult(tuple(found), state.version if version is None else version)

    async def _snapshot(self, dataset: DatasetState, revision: Revision) -> c.DatasetSnapshot:
        """The last one of each dataset is remembered, for as long as that very state is asked."""
        known = self._snapshots.get(dataset.id)
        if known is not None and known.dataset is dataset and known.revision is revision:
            self._snapshots.move_to_end(dataset.id)
            return known.snapshot
        files = await _visible(dataset, revision, known)
        ids = sorted({revision.head.schema_id, *(file.schema_id for file in files)})
        schemas = tuple(dataset.schema(schema_id) for schema_id in ids)
        snapshot = c.DatasetSnapshot(dataset.view(revision), files, schemas)
        if len(files) <= _REMEMBERED_FILES:
            self._snapshots[dataset.id] = _Remembered(dataset, revision, snapshot)
            self._snapshots.move_to_end(dataset.id)
            while len(self._snapshots) > _REMEMBERED:
                self._snapshots.popitem(last=False)
        return snapshot

    async def files(self, ctx: Context, request: c.PageRequest) -> c.FilesResult:
        state = await self._core.read(ctx)
        limit = _limited(request.limit, _FILES_LIMIT_MAX)
        version, after, dataset_id = version_of(state, request.as_of), 0, ""
        if request.cursor:
            # The version is that of the first page: a walk sees one state however long it takes.
            version, after, dataset_id = decode_cursor(request.cursor, (int, int, str))
            version_of(state, c.AsOf(version=version))
        at = state.version if version is None else version
        dataset, revision = dataset_at(state, request.name, version, include_dropped=True)
        if dataset_id not in ("", dataset.id):
            raise LakehouseError(
                ErrorKind.INVALID, "the cursor is of another dataset", name=request.name
            )
        seen = dataset.log.visible(revision.version, after)
        files = tuple(itertools.islice(seen, limit + 1))
        if len(files) <= limit:
            return c.FilesResult(files, at)
        page = files[:limit]
        return c.FilesResult(page, at, encode_cursor(at, page[-1].ordinal, dataset.id))

    async def versions(self, ctx: Context, request: c.PageRequest) -> c.VersionsResult:
        state = await self._core.read(ctx)
        limit = _limited(request.limit, _LIMIT_MAX)
        version = version_of(state, request.as_of)
        dataset, _ = dataset_at(state, request.name, version, include_dropped=True)
        at = state.version if version is None else version
        (last,) = decode_cursor(request.cursor, (int,)) if request.cursor else (at,)
        history = dataset.history
        end = history.bisect(last, lambda revision: revision.version)
        start = max(history.start, end - limit)
        entries = tuple(history[place].entry for place in range(end - 1, start - 1, -1))
        cursor = encode_cursor(entries[-1].version - 1) if start > history.start else ""
        return c.VersionsResult(entries, at, cursor)

    async def documents(self, ctx: Context, request: c.DocumentsRequest) -> c.DocumentsResult:
        secret = request.kind in OPERATOR_DOCUMENTS
        state = await self._core.read(ctx, Scope.OPERATOR if secret else Scope.READ)
        kind = state.documents.get(request.kind) or _NO_DOCUMENTS
        if request.id:
            document = kind.get(request.id)
            if document is None:
                raise LakehouseError(
                    ErrorKind.NOT_FOUND,
                    "there is no such document",
                    document_kind=request.kind[:255],
                    id=request.id[:255],
                )
            found = [(request.id, document)]
        else:
            found = sorted(kind.items())
        return c.DocumentsResult(
            tuple(c.Document(request.kind, id_, each.body, each.version) for id_, each in found),
            state.version,
        )
