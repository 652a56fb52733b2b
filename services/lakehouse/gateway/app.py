"""The HTTP application: routes over contracts, and the edge around them."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from pydantic import BaseModel
from starlette.types import ASGIApp

from lakehouse import __version__
from lakehouse.contracts.tokens import Authenticator
from lakehouse.gateway import (
    bodies,
    given_vectors,
    memory_bodies,
    openapi,
    retrieval_bodies,
    row_bodies,
    vector_bodies,
)
from lakehouse.gateway.edge import Edge
from lakehouse.gateway.metrics import Metrics
from lakehouse.gateway.routes import (
    catalog,
    health,
    ingest,
    journal,
    maintenance,
    memory,
    objects,
    profiles,
    query,
    rag,
    retrievals,
    rows,
    storage,
    tags,
    tokens,
    trials,
    vectors,
)
from lakehouse.gateway.services import Services
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids

_MODELS: list[type[BaseModel]] = [
    bodies.RegisterBody,
    bodies.PatchBody,
    bodies.RestoreBody,
    bodies.ImportBody,
    bodies.BucketBody,
    bodies.TokenBody,
    row_bodies.KeyBody,
    row_bodies.SchemaBody,
    row_bodies.RestoreRowsBody,
    row_bodies.TagBody,
    query.SqlBody,
    vector_bodies.SearchBody,
    vector_bodies.CreateIndexBody,
    vector_bodies.BuildBody,
    vector_bodies.CutOverBody,
    vector_bodies.CompareBody,
    vector_bodies.ProfileBody,
    vector_bodies.IdsBody,
    given_vectors.GivenVectorsBody,
    retrieval_bodies.PinBody,
    retrieval_bodies.EvalBody,
    retrieval_bodies.EvaluateBody,
    retrieval_bodies.AutotuneBody,
    retrieval_bodies.PromoteBody,
    retrieval_bodies.RagBody,
    memory_bodies.TurnBody,
    memory_bodies.TurnsBody,
    memory_bodies.RecallBody,
]


class Gateway(FastAPI):
    """FastAPI with one layer around its router, in which every error becomes an answer."""

    def __init__(
        self,
        authenticator: Authenticator,
        settings: GatewaySettings,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
    ) -> None:
        super().__init__(
            title="lakehouse",
            version=__version__,
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            # Traces and figures are ours (``kit.tracing``); to ask whether FastAPI has any would
            # be part of every request.
            telemetry={"tracing": False, "metrics": False, "logs": False},
        )
        self._edge = (authenticator, settings, clock, ids, metrics)

    def build_middleware_stack(self) -> ASGIApp:
        # Not FastAPI's own stack: it would answer some errors by itself, with bodies that are
        # no problem documents and in debug with a stack trace.
        return Edge(AsyncExitStackMiddleware(self.router), *self._edge)


def create_app(
    services: Services,
    authenticator: Authenticator,
    settings: GatewaySettings,
    clock: Clock,
    ids: Ids,
) -> FastAPI:
    """The whole of HTTP over ``services``; holds no state but its counters."""
    metrics = Metrics(services.figures, services.log)
    app = Gateway(authenticator, settings, clock, ids, metrics)
    for router in (
        health.routes(services.readiness, metrics),
        query.routes(services.query, settings),
        vectors.routes(services.vectors, settings),
        retrievals.routes(services.retrievals, settings, clock),
        rag.routes(services.rag, settings),
        memory.routes(services.memory, settings, clock),
        trials.routes(services.trials, settings, clock),
        catalog.routes(services.catalog, settings),
        ingest.routes(services.ingest, settings),
        rows.routes(services.rows, settings),
        journal.routes(services.journal, clock),
        tags.routes(services.catalog, settings),
        maintenance.routes(services.catalog, settings),
        storage.routes(services.storage, settings, clock),
        objects.routes(services.objects, settings),
        profiles.routes(services.profiles, settings),
        tokens.routes(services.tokens, settings),
    ):
        # Not include_router: it keeps routers nested, and matches each request twice.
        app.router.routes.extend(router.routes)
    openapi.install(app, _MODELS)
    return app
