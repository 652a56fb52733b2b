"""What all use cases of vectord share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lakehouse.contracts.catalog import CatalogService
from lakehouse.contracts.ingest import IngestService
from lakehouse.contracts.journal import JournalService
from lakehouse.contracts.query import QueryService
from lakehouse.contracts.rows import RowsService
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.objectstore.buckets import Buckets
from lakehouse.vectord.settings import RagSettings, RetrievalSettings, VectorSettings

if TYPE_CHECKING:
    from lakehouse.vectord.ports import Embedder, Generator


@dataclass(slots=True)
class VectorParts:
    """``jobs``: threads for building and searching structures. ``generator``: None where no model
    can be asked to write."""

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
    retrievals: RetrievalSettings = field(default_factory=RetrievalSettings)
    rag: RagSettings = field(default_factory=RagSettings)
    generator: Generator | None = None
    writer: str = "vectord"
