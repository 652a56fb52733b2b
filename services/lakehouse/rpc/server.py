"""The gRPC server of a node: the contracts it serves, health and reflection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from lakehouse.contracts.readiness import ReadinessSource
from lakehouse.contracts.tokens import Authenticator
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.kit.requests import RequestLog
from lakehouse.rpc.catalog import CatalogServicer
from lakehouse.rpc.counts import CallCounts
from lakehouse.rpc.draining import DrainingServer, Leaving, Reflection
from lakehouse.rpc.health import NAME as HEALTH
from lakehouse.rpc.health import Health
from lakehouse.rpc.ingest import IngestServicer
from lakehouse.rpc.journal import JournalServicer
from lakehouse.rpc.memory import MemoryServicer
from lakehouse.rpc.objects import ObjectsServicer
from lakehouse.rpc.profiles import ProfilesServicer
from lakehouse.rpc.query import QueryServicer
from lakehouse.rpc.rag import RagServicer
from lakehouse.rpc.retrievals import RetrievalsServicer
from lakehouse.rpc.rows import RowsServicer
from lakehouse.rpc.serving import Edge, Servicer
from lakehouse.rpc.storage import StorageServicer
from lakehouse.rpc.tokens import TokensServicer
from lakehouse.rpc.trials import TrialsServicer
from lakehouse.rpc.vectors import VectorsServicer

SERVICERS: Final[Mapping[str, Callable[[Any, Edge], Servicer]]] = {
    "catalog": CatalogServicer,
    "tokens": TokensServicer,
    "ingest": IngestServicer,
    "query": QueryServicer,
    "storage": StorageServicer,
    "objects": ObjectsServicer,
    "rows": RowsServicer,
    "journal": JournalServicer,
    "vectors": VectorsServicer,
    "profiles": ProfilesServicer,
    "retrievals": RetrievalsServicer,
    "trials": TrialsServicer,
    "rag": RagServicer,
    "memory": MemoryServicer,
}
"""Noun to servicer: the same nouns as the files in contracts/."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Attributes:
    request_bytes_max: one message of a caller; bodies come in chunks far below it.
    calls_max: calls at once, streams included; the next is refused as exhausted.
    counts: where calls are counted, for who wants to show it.
    log: told of each call.
    """

    request_bytes_max: int = 64 << 20
    calls_max: int = 1_024
    counts: CallCounts = field(default_factory=CallCounts)
    log: RequestLog = RequestLog()


def build_server(
    services: Mapping[str, object],
    authenticator: Authenticator,
    clock: Clock,
    ids: Ids,
    readiness: ReadinessSource,
    options: ServerOptions | None = None,
) -> grpc.aio.Server:
    """A server, not yet bound nor started, of ``services`` by noun (KeyError for an unknown one).

    Call on the loop that will run it.
    """
    options = options or ServerOptions()
    edge, leaving = Edge(authenticator, clock, ids, options.counts, options.log), Leaving()
    servicers = [SERVICERS[noun](service, edge) for noun, service in services.items()]
    names = tuple(servicer.name for servicer in servicers)
    server = grpc.aio.server(options=_options(options), maximum_concurrent_rpcs=options.calls_max)
    health = Health(readiness, names, clock, leaving)
    server.add_generic_rpc_handlers(
        (*(servicer.handler() for servicer in servicers), health.handler())
    )
    shown = (*names, HEALTH, reflection.SERVICE_NAME)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(Reflection(shown, leaving), server)
    return DrainingServer(server, leaving)


def _options(options: ServerOptions) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", options.request_bytes_max),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would share its callers in silence.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]
