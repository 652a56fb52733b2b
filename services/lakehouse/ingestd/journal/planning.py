"""What there is to read of a dataset's journal at one version of the store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from lakehouse.contracts.catalog import CatalogService
from lakehouse.contracts.inventory import JournalRequest, JournalResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import DataFile, Dataset
from lakehouse.model.identity import Context
from lakehouse.table.events import EVENT_SCHEMA, batch_events

__all__ = ["Plan", "plan_of"]

_LIMIT: Final = 1000
_ATTEMPTS_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """All events after some version and up to ``version`` are in ``files`` and ``batches``.

    Attributes:
        files: rising by seq; an event may be in two of them, for a rewrite came in between.
        batches: events of commits that wrote none, under ``EVENT_SCHEMA``.
        horizon: versions of the table below it cannot be read.
    """

    dataset: Dataset
    files: tuple[DataFile, ...]
    batches: pa.Table
    horizon: int
    version: int


async def plan_of(catalog: CatalogService, ctx: Context, name: str, after: int = 0) -> Plan:
    """The journal of ``name`` later than ``after``; of a dropped dataset, too.

    Raises ``not_found``; ``conflict`` if it was folded or renamed again and again while the pages
    were read. What is folded has its new place by the newest of what was folded: where a catalog
    does not hold on to one version it is met again, not missed.
    """
    for _ in range(_ATTEMPTS_MAX):
        pages = await _pages(catalog, ctx, JournalRequest(name, max(0, after), _LIMIT))
        if pages and len({page.dataset.id for page in pages}) == 1:
            return _joined(pages)
    raise LakehouseError(
        ErrorKind.CONFLICT,
        "the name is being moved from one dataset to another",
        dataset=name[:255],
        hint="try again",
    )


async def _pages(
    catalog: CatalogService, ctx: Context, request: JournalRequest
) -> list[JournalResult]:
    """All pages; none if the catalog says that it cannot go on from where it was."""
    pages = [await catalog.journal(ctx, request)]
    while pages[-1].cursor:
        try:
            page = await catalog.journal(ctx, replace(request, cursor=pages[-1].cursor))
        except LakehouseError as error:
            if error.kind in (ErrorKind.CONFLICT, ErrorKind.INVALID):
                return []
            raise
        pages.append(page)
    return pages


def _joined(pages: list[JournalResult]) -> Plan:
    first = pages[0]
    files = {file.key: file for page in pages for file in page.files if file.rows}
    entries = {entry.version: entry for page in pages for entry in page.entries}
    batches = EVENT_SCHEMA.empty_table()
    if entries:
        batches = batch_events(tuple(entries.values()), first.dataset.id)
    # A commit that came after the first page was read is for the next plan: of this one every
    # version up to its own is whole.
    return Plan(first.dataset, tuple(files.values()), batches, first.horizon, first.version)
