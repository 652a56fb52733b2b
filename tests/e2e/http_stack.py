"""The gateway over the real services in one process, on a local bucket of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
from fastapi import FastAPI

from lakehouse.catalogd.service import Catalog, open_catalog
from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.catalogd.tokens import Tokens
from lakehouse.contracts.tokens import Authenticator, CreateTokenRequest
from lakehouse.gateway.app import create_app
from lakehouse.gateway.services import Services
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.ingestd.journal.service import Journal as RowJournal
from lakehouse.ingestd.rows.service import Rows
from lakehouse.ingestd.service import Ingest
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.clock import Clock, SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.ledger.ledger import WriterInfo
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context, Scope
from lakehouse.node.authentication import LocalOperator, TokenAuthenticator
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.identity import init_store, read_identity
from lakehouse.queryd.service import Query
from lakehouse.queryd.settings import QuerySettings
from lakehouse.storaged.journal import Journal, JournalPlace
from lakehouse.storaged.objects import Objects
from lakehouse.storaged.registry import Registry
from lakehouse.storaged.service import Storage
from lakehouse.storaged.settings import JournalSettings, RegistrySettings
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.profiles import Profiles
from lakehouse.vectord.service import Vectors
from lakehouse.vectord.settings import RetrievalSettings, VectorSettings

OPERATOR = Context(ANONYMOUS_OPERATOR, "tests")


@dataclass(frozen=True)
class Stack:
    """The parts a test may want to look behind the gateway with."""

    app: FastAPI
    catalog: Catalog
    tokens: Tokens
    ids: SystemIds
    services: Services

    def client(self, credential: str | None = None, **more: float) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {credential}"} if credential is not None else {}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url="http://127.0.0.1",
            headers=headers,
            **more,  # type: ignore[arg-type]
        )

    async def token(self, scope: Scope, clock: Clock | None = None) -> str:
        """A new token of that scope, made at ``clock``'s time and good for a minute."""
        tokens = Tokens(self.catalog, clock, self.ids) if clock else self.tokens
        made = await tokens.create(OPERATOR, CreateTokenRequest("test", (scope,), 60))
        return made.token


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits low enough to be met in a test."""

    gateway: GatewaySettings = GatewaySettings()
    query_seconds: float = 10.0


def _vector_parts(folder: Path, ingest: Ingest, query: Query, buckets: Buckets) -> VectorParts:
    own = ingest.parts
    return VectorParts(
        settings=VectorSettings(cache_dir=str(folder / "vectors"), follow_seconds=0.05),
        catalog=own.catalog,
        ingest=ingest,
        rows=Rows(own),
        query=query,
        journal=RowJournal(own),
        buckets=buckets,
        embedder=HashingEmbedder(),
        clock=own.clock,
        ids=own.ids,
        jobs=ThreadPoolExecutor(1, thread_name_prefix="vectors"),
        retrievals=RetrievalSettings(spool_dir=str(folder / "retrievals")),
    )


def _query_settings(folder: Path, limits: Limits) -> QuerySettings:
    return QuerySettings(
        cache_dir=str(folder / "cache"),
        spill_dir=str(folder / "spill"),
        workers_max=1,
        threads=1,
        timeout_seconds=limits.query_seconds,
    )


@contextlib.asynccontextmanager
async def http_stack(
    folder: Path, auth: str = "off", limits: Limits = Limits()
) -> AsyncIterator[Stack]:
    """All of it started; closed again in order. ``auth`` as in the configuration."""
    clock = SystemClock()
    ids = SystemIds(clock)
    journal = Journal(JournalSettings(errors_spool_dir=str(folder / "errors")), clock, ids)
    primary = BucketSettings("primary", (folder / "primary").as_uri())
    buckets = Buckets([primary], clock, ids, journal)
    async with contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(buckets.close)
        store = buckets.unreported("primary")
        place = JournalPlace(
            store, "tests", lambda: buckets.health("primary"), lambda: read_identity(store)
        )
        await journal.start(place)
        closing.push_async_callback(journal.close)
        await init_store(buckets.raw("primary"), clock, ids)
        writer = WriterInfo(ids.ulid(), "127.0.0.1:1")
        catalog = await open_catalog(CatalogSettings(), buckets, writer, clock, ids)
        closing.push_async_callback(catalog.close)
        tokens = Tokens(catalog, clock, ids)
        ingest = Ingest(
            IngestSettings(spool_dir=str(folder / "spool")), catalog, buckets, clock, ids
        )
        await ingest.start()
        closing.push_async_callback(ingest.close)
        added = RegistrySettings(local_root=str(folder / "added"))
        registry = Registry(added, buckets, catalog, clock, ids)
        storage = Storage(buckets, registry, journal, clock, ids)
        query = Query(_query_settings(folder, limits), catalog, buckets, clock, ids)
        query.use_storage(storage)
        await query.start()
        closing.push_async_callback(query.close)
        ingest.parts.query = query
        parts = _vector_parts(folder, ingest, query, buckets)
        vectors = Vectors(parts)
        await vectors.start()
        closing.push_async_callback(vectors.close)
        query.use_vectors(vectors)
        services = Services(
            catalog=catalog,
            tokens=tokens,
            ingest=ingest,
            query=query,
            storage=storage,
            objects=Objects(buckets, catalog, clock),
            rows=parts.rows,
            journal=parts.journal,
            vectors=vectors,
            profiles=Profiles(parts),
            retrievals=vectors.retrievals,
            trials=vectors.trials,
            rag=vectors.rag,
            memory=vectors.memory,
            readiness=catalog,
        )
        authenticator: Authenticator = (
            LocalOperator() if auth == "off" else TokenAuthenticator(tokens, clock, ids)
        )
        app = create_app(services, authenticator, limits.gateway, clock, ids)
        yield Stack(app, catalog, tokens, ids, services)
