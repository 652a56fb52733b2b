"""What all use cases of vectord share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakehouse.contracts.catalog import CatalogService
from lakehouse.contracts.ingest import IngestService
from lakehouse.contracts.journal import JournalService
from lakehouse.contracts.query import QueryService
from lakehouse.contracts.rows import RowsService
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.objectstore.buckets import Buckets
from lakehouse.vectord.settings import VectorSettings

if TYPE_CHECKING:
    from lakehouse.vectord.ports import Embedder


@dataclass(slots=True)
class VectorParts:
    """``jobs``: threads for building and searching structures."""

    settings: VectorSettings
    catalog: CatalogService
    ingest: IngestService
    rows: RowsService
    query: QueryService
    journal: JournalService
    buckets: Buckets
    embedder: Embedder
    clock: Clock
    ids: Ids
    jobs: ThreadPoolExecutor
