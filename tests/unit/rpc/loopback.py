"""A server on a free port and a channel to it; services that record what reaches them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from lakehouse.contracts.readiness import Readiness
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.rpc.catalog import CatalogClient
from lakehouse.rpc.channel import open_channel
from lakehouse.rpc.ingest import IngestClient
from lakehouse.rpc.journal import JournalClient
from lakehouse.rpc.memory import MemoryClient
from lakehouse.rpc.methods import methods_of
from lakehouse.rpc.objects import ObjectsClient
from lakehouse.rpc.profiles import ProfilesClient
from lakehouse.rpc.query import QueryClient
from lakehouse.rpc.rag import RagClient
from lakehouse.rpc.retrievals import RetrievalsClient
from lakehouse.rpc.rows import RowsClient
from lakehouse.rpc.server import ServerOptions, build_server
from lakehouse.rpc.storage import StorageClient
from lakehouse.rpc.tokens import TokensClient
from lakehouse.rpc.trials import TrialsClient
from lakehouse.rpc.vectors import VectorsClient
from unit.rpc.samples import SERVICES, sample

CLIENTS = {
    "Catalog": CatalogClient,
    "Tokens": TokensClient,
    "Ingest": IngestClient,
    "Query": QueryClient,
    "Storage": StorageClient,
    "Objects": ObjectsClient,
    "Rows": RowsClient,
    "Journal": JournalClient,
    "Vectors": VectorsClient,
    "Profiles": ProfilesClient,
    "Retrievals": RetrievalsClient,
    "Trials": TrialsClient,
    "Rag": RagClient,
    "Memory": MemoryClient,
}
CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
ANNA = Principal("anna", (Scope.WRITE,))


class KeyRing:
    """Knows some credentials; all others are refused."""

    def __init__(self, principals: Mapping[str | None, Principal] | None = None) -> None:
        self.principals = dict(principals or {"lh_anna.secret": ANNA})

    async def authenticate(self, credential: str | None) -> Principal:
        if credential not in self.principals:
            raise LakehouseError(ErrorKind.UNAUTHENTICATED, "no valid token", hint="make one")
        return self.principals[credential]


@dataclass
class Ready:
    """Readiness to be set by a test."""

    ready: bool = True

    def readiness(self) -> Readiness:
        return Readiness(self.ready, () if self.ready else ("opening",))


@dataclass
class Recorder:
    """A service that keeps what it was asked and gives the answer, or the error, it was told."""

    protocol: object
    calls: list[tuple[str, Context, Any]] = field(default_factory=list)
    answer: Any = None

    def __getattr__(self, name: str) -> Any:
        method = methods_of("Any", self.protocol)[name]

        async def called(ctx: Context, request: Any) -> Any:
            self.calls.append((name, ctx, request))
            if callable(self.answer):
                return await self.answer(ctx, request)
            if isinstance(self.answer, Exception):
                raise self.answer
            return sample(method.answer)

        return called


@dataclass
class Loopback:
    """What a test of the wire holds in its hands."""

    server: grpc.aio.Server
    channel: grpc.aio.Channel
    address: str
    services: dict[str, Any]
    ready: Ready

    def client(self, noun: str) -> Any:
        return CLIENTS[noun](self.channel, CLOCK)


def recorders() -> dict[str, Any]:
    return {noun.lower(): Recorder(protocol) for noun, protocol in SERVICES.items()}


@asynccontextmanager
async def loopback(
    services: Mapping[str, Any] | None = None,
    authenticator: Any = None,
    options: ServerOptions | None = None,
    port: int = 0,
) -> AsyncIterator[Loopback]:
    """Serve ``services`` on 127.0.0.1: recorders where none are given, None is not served."""
    named = {**recorders(), **(services or {})}
    served = {noun: service for noun, service in named.items() if service is not None}
    ready = Ready()
    server = build_server(
        served, authenticator or KeyRing(), CLOCK, IDS, ready, options or ServerOptions()
    )
    address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    await server.start()
    channel = open_channel(address)
    try:
        yield Loopback(server, channel, address, served, ready)
    finally:
        await channel.close()
        await server.stop(0)


def context(**fields: Any) -> Context:
    """Anna's context, unless told otherwise."""
    return Context(
        **{"principal": ANNA, "request_id": "r-1", "credential": "lh_anna.secret", **fields}
    )
