"""What the gateway serves: contracts, whoever implements them."""

from __future__ import annotations

from dataclasses import dataclass

from lakehouse.contracts.catalog import CatalogService
from lakehouse.contracts.ingest import IngestService
from lakehouse.contracts.journal import JournalService
from lakehouse.contracts.memory import MemoryService
from lakehouse.contracts.objects import ObjectsService
from lakehouse.contracts.profiles import ProfilesService
from lakehouse.contracts.query import QueryService
from lakehouse.contracts.rag import RagService
from lakehouse.contracts.readiness import ReadinessSource
from lakehouse.contracts.retrievals import RetrievalsService
from lakehouse.contracts.rows import RowsService
from lakehouse.contracts.storage import StorageService
from lakehouse.contracts.tokens import TokenService
from lakehouse.contracts.trials import TrialsService
from lakehouse.contracts.vectors import VectorsService
from lakehouse.kit.figures import FigureSource
from lakehouse.kit.requests import RequestLog


@dataclass(frozen=True, slots=True)
class Services:
    """The implementations themselves or gRPC clients of them; the gateway cannot tell.

    ``figures`` are asked when somebody gets ``/metrics``; ``log`` is told of each request.
    """

    catalog: CatalogService
    tokens: TokenService
    ingest: IngestService
    query: QueryService
    storage: StorageService
    objects: ObjectsService
    rows: RowsService
    journal: JournalService
    vectors: VectorsService
    profiles: ProfilesService
    retrievals: RetrievalsService
    trials: TrialsService
    rag: RagService
    memory: MemoryService
    readiness: ReadinessSource
    figures: tuple[FigureSource, ...] = ()
    log: RequestLog = RequestLog()
