"""What the gateway serves: contracts, whoever implements them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lakehouse.contracts.catalog import CatalogService
from lakehouse.contracts.ingest import IngestService
from lakehouse.contracts.query import QueryService
from lakehouse.contracts.readiness import ReadinessSource
from lakehouse.contracts.storage import StorageService
from lakehouse.contracts.tokens import TokenService
from lakehouse.objectstore.port import StoreFootprint

Footprints = Callable[[], Mapping[str, StoreFootprint]]
RpcCalls = Callable[[], Mapping[tuple[str, str], int]]


@dataclass(frozen=True, slots=True)
class Services:
    """The implementations themselves or gRPC clients of them; the gateway cannot tell.

    For ``/metrics``, ``footprints`` gives the counters of each bucket of this process, and
    ``rpc_calls`` those of its gRPC server: how many calls of a method ended with a status.
    """

    catalog: CatalogService
    tokens: TokenService
    ingest: IngestService
    query: QueryService
    storage: StorageService
    readiness: ReadinessSource
    footprints: Footprints | None = None
    rpc_calls: RpcCalls | None = None
