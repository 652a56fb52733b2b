"""A node from its configuration to its last byte: ordered start, running, graceful stop."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lakehouse import __version__
from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.contracts.catalog import StatusRequest
from lakehouse.contracts.tokens import Authenticator
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.acting import act_as
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.kit.supervise import Supervisor
from lakehouse.ledger.ledger import WriterInfo
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.model.refs import PRIMARY
from lakehouse.node.authentication import REMEMBERED_SECONDS, LocalOperator, TokenAuthenticator
from lakehouse.node.buckets import open_buckets
from lakehouse.node.builds import EndingBuilds
from lakehouse.node.config import Config
from lakehouse.node.embedding import EmbeddingProcesses
from lakehouse.node.federation import follow, open_registry
from lakehouse.node.feeds import EndingFeeds
from lakehouse.node.holder import HolderProbe, endpoint_of
from lakehouse.node.journaling import Journaling
from lakehouse.node.late import LateQuery
from lakehouse.node.primary import PositionNote, prepare_primary
from lakehouse.node.reachability import try_again, watch_others
from lakehouse.node.readiness import NodeReadiness
from lakehouse.node.rescuing import Rescue
from lakehouse.node.roles import SERVED_BY
from lakehouse.node.servers import Servers
from lakehouse.node.telemetry import NodeFigures, Traces, make_servers, request_log
from lakehouse.node.wiring import CONTRACTS, Wiring
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.figures import BucketFigures, RescuedReads
from lakehouse.objectstore.identity import recall_position, state_folder

if TYPE_CHECKING:
    from lakehouse.queryd.service import Query

log = logging.getLogger(__name__)

_AUTHORITY_SECONDS: Final = 0.5


def catalog_settings(config: Config, probe: HolderProbe, take_over: bool) -> CatalogSettings:
    """The catalog's settings with what only a node can tell it."""
    # The probe itself asks three times, and need not wait where the answer is certain.
    ledger = replace(config.catalog.ledger, holder_probes=1)
    return replace(config.catalog, ledger=ledger, probe_holder=probe, take_over=take_over)


def state_dir(config: Config) -> Path:
    """Where this machine remembers the stores it has seen."""
    return Path(config.node.state_dir) if config.node.state_dir else state_folder(os.environ)


def _import_edges(with_http: bool) -> None:
    importlib.import_module("lakehouse.rpc.server")
    if with_http:
        importlib.import_module("lakehouse.gateway.app")
        importlib.import_module("uvicorn.protocols.http.httptools_impl")


async def _close(part: Any) -> None:
    try:
        await part.close()
    except LakehouseError as error:
        log.warning("a part did not close cleanly", extra={"reason": str(error)})


class Node:
    """All roles of one process.

    ``start`` returns when the node answers; ``serve_forever`` returns after ``request_stop`` and
    raises ``fenced`` when another node took the store over; ``stop`` drains and seals, always.
    """

    def __init__(self, config: Config, *, take_over: bool = False) -> None:
        self._config = config
        self._take_over = take_over
        self._clock = SystemClock()
        self._ids = SystemIds(self._clock)
        self._readiness = NodeReadiness()
        self._figures = NodeFigures(config.node.roles)
        self._supervisor = Supervisor()
        self._wiring = Wiring()
        self._closing: list[Any] = []
        self._stopping = asyncio.Event()
        self._servers: Servers | None = None
        self._late: LateQuery | None = None
        self._feeds: EndingFeeds | None = None
        self._builds: EndingBuilds | None = None
        self._rescue: Rescue | None = None
        self._note: PositionNote | None = None

    @property
    def http_address(self) -> str:
        """``host:port`` of HTTP once started; "" if this node has no gateway."""
        return self._servers.http_address if self._servers else ""

    @property
    def grpc_address(self) -> str:
        return self._servers.grpc_address if self._servers else ""

    async def start(self) -> None:
        """Open what this node needs, in order; on failure everything is closed again.

        Raises what the parts raise: ``unavailable`` (a port, a bucket), ``conflict`` (a holder
        that answers, another store), ``invalid`` (a missing peer), ``forbidden`` (an unfit bucket).
        """
        try:
            with act_as("node"):
                await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        config = self._config
        roles = config.node.roles
        self._wiring.peers(config, self._clock)
        traces = Traces(config)
        self._closing.append(traces)
        self._figures.add(traces)
        self._servers = make_servers(config)
        journaling = Journaling(config, self._wiring, self._clock, self._ids)
        buckets = open_buckets(config, self._clock, self._ids, journaling.sink)
        self._figures.add(BucketFigures(buckets))
        watch_others(self._readiness, buckets, config.node.peers, self._wiring.channels)
        self._supervisor.start("lost buckets", lambda: try_again(buckets, self._clock))
        self._rescue = rescue = Rescue(config, buckets, self._clock, self._ids)
        # A journal's figures are the storage service's; those of who forwards to one are its own.
        self._figures.add(journaling.sink, RescuedReads(rescue.reads))
        self._closing += [buckets, journaling]
        await journaling.start(buckets)
        self._readiness.note("release", __version__)
        if "catalogd" in roles:
            with act_as("catalogd"):
                await self._start_catalogd(buckets)
        catalog = self._wiring.contracts.get("catalog")
        registry = await open_registry(config, buckets, catalog, self._clock, self._ids)
        follow(registry, self._supervisor, self._readiness)
        if "storaged" in roles:
            from lakehouse.storaged.objects import Objects
            from lakehouse.storaged.service import Storage

            journal = journaling.own()
            copier = rescue.copier(self._wiring.contracts["catalog"], self._supervisor)
            storage = Storage(buckets, registry, journal, self._clock, self._ids, copier)
            self._wiring.contracts["storage"] = storage
            inventory = self._wiring.contracts["catalog"]
            self._wiring.contracts["objects"] = Objects(buckets, inventory, self._clock)
        self._add_queryd(buckets)
        await asyncio.gather(
            self._start_ingestd(buckets),
            run_blocking(_import_edges, bool(self._servers.http_address)),
        )
        if "vectord" in roles:
            await self._start_vectord(buckets)
        if "janitor" in roles:
            self._start_janitor()
        await self._serve()
        if self._late is not None:
            self._supervisor.start("query", self._late.load)
        self._readiness.enter("running")
        log.info(
            "the node is ready",
            extra={"http": self.http_address, "grpc": self.grpc_address, "roles": ",".join(roles)},
        )

    async def serve_forever(self) -> None:
        """Run until ``request_stop``, or raise what a part of the node failed of."""
        failed = asyncio.ensure_future(self._supervisor.failed())
        stopping = asyncio.ensure_future(self._stopping.wait())
        done, waiting = await asyncio.wait({failed, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if failed in done:
            raise failed.result()

    def request_stop(self) -> None:
        """End ``serve_forever``; safe to call from a signal handler of the loop."""
        self._stopping.set()

    async def stop(self) -> None:
        """Refuse new work, finish what runs, seal the ledger, free everything; idempotent."""
        self._readiness.enter("stopping")
        if self._feeds is not None:
            self._feeds.end()
        if self._builds is not None:
            self._builds.end()
        drain = self._config.node.drain_seconds
        await self._supervisor.stop()
        if self._servers is not None:
            await self._servers.stop(drain)
        closing, self._closing = self._closing, []
        # Each is closed whatever another raises: the journal has events to keep.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._wiring.close)
            for part in closing:
                stack.push_async_callback(_close, part)

    async def _start_catalogd(self, buckets: Buckets) -> None:
        from lakehouse.catalogd.service import open_catalog
        from lakehouse.catalogd.tokens import Tokens

        assert self._servers is not None
        node = self._config.node
        identity = await prepare_primary(
            buckets, self._clock, self._ids, state_dir(self._config), node.store_id
        )
        self._readiness.note("store_id", identity.store_id)
        grpc_address = self._servers.grpc_address
        writer = WriterInfo(self._ids.ulid(), endpoint_of(node.advertise, grpc_address))
        settings = catalog_settings(
            self._config, HolderProbe(grpc_address, self._clock, self._ids), self._take_over
        )
        state, url = state_dir(self._config), buckets.get(PRIMARY).url
        if not node.accept_older:
            settings = replace(settings, seen=recall_position(state, url, identity.store_id))
        catalog = await open_catalog(settings, buckets, writer, self._clock, self._ids)
        self._note = PositionNote(state, url, identity.store_id, lambda: catalog.position)
        # The catalog closes first, with a record of its own that is to be noted.
        self._closing += [self._note, catalog]
        await self._note.refresh()
        self._wiring.contracts["catalog"] = catalog
        self._wiring.contracts["tokens"] = Tokens(catalog, self._clock, self._ids)
        self._readiness.add("catalogd", catalog)
        self._supervisor.start("authority", self._watch_authority)

    async def _watch_authority(self) -> None:
        """End with ``fenced`` when another node holds the store; nothing else is fatal here."""
        catalog = self._wiring.contracts["catalog"]
        while True:
            await self._clock.sleep(_AUTHORITY_SECONDS)
            try:
                await catalog.status(self._own_context(), StatusRequest())
                if self._note is not None:
                    await self._note.refresh()
            except LakehouseError as error:
                if error.kind is ErrorKind.FENCED:
                    raise

    def _own_context(self) -> Context:
        return Context(ANONYMOUS_OPERATOR, self._ids.ulid(), source="node")

    async def _start_ingestd(self, buckets: Buckets) -> None:
        if "ingestd" in self._config.node.roles:
            from lakehouse.ingestd.journal.service import Journal
            from lakehouse.ingestd.rows.service import Rows
            from lakehouse.ingestd.service import Ingest

            catalog = self._wiring.contracts["catalog"]
            assert self._rescue is not None
            ingest = Ingest(
                self._config.ingest, catalog, buckets, self._clock, self._ids, self._rescue.reads
            )
            ingest.parts.query = self._wiring.contracts.get("query")
            with act_as("ingestd"):
                await ingest.start()
            self._closing.append(ingest)
            self._wiring.contracts["ingest"] = ingest
            self._wiring.contracts["rows"] = Rows(ingest.parts)
            self._wiring.contracts["journal"] = Journal(ingest.parts)
            self._readiness.add("ingestd", ingest)

    async def _start_vectord(self, buckets: Buckets) -> None:
        from lakehouse.vectord.adapters.sidecar import SidecarEmbedder
        from lakehouse.vectord.adapters.writer import SidecarGenerator
        from lakehouse.vectord.parts import VectorParts
        from lakehouse.vectord.profiles import Profiles
        from lakehouse.vectord.service import Vectors

        config, contracts = self._config, self._wiring.contracts
        processes = EmbeddingProcesses(config.embedding)
        generator = SidecarGenerator(config.rag, processes.url)
        parts = VectorParts(
            settings=config.vectors,
            catalog=contracts["catalog"],
            ingest=contracts["ingest"],
            rows=contracts["rows"],
            query=contracts["query"],
            journal=contracts["journal"],
            buckets=buckets,
            embedder=SidecarEmbedder(config.embedding, processes.url),
            clock=self._clock,
            ids=self._ids,
            jobs=ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="vectors"),
            retrievals=config.retrievals,
            rag=config.rag,
            generator=generator,
            writer=self._ids.ulid(),
        )
        vectors = Vectors(parts)
        with act_as("vectord"):
            await vectors.start()
        self._closing += [processes, generator, vectors]
        contracts["vectors"], contracts["profiles"] = vectors, Profiles(parts)
        contracts["retrievals"], contracts["trials"] = vectors.retrievals, vectors.trials
        contracts["rag"], contracts["memory"] = vectors.rag, vectors.memory

    def _start_janitor(self) -> None:
        from lakehouse.janitor.service import Janitor

        contracts = self._wiring.contracts
        catalog, rows = contracts["catalog"], contracts["rows"]
        settings = self._config.janitor
        janitor = Janitor(settings, catalog, rows, self._clock, self._ids)
        janitor.start()
        self._closing.append(janitor)
        self._figures.add(janitor)

    def _add_queryd(self, buckets: Buckets) -> None:
        if "queryd" in self._config.node.roles:
            self._late = LateQuery(lambda: self._load_query(buckets))
            self._closing.append(self._late)
            self._wiring.contracts["query"] = self._late

    async def _load_query(self, buckets: Buckets) -> Query:
        service = await run_blocking(importlib.import_module, "lakehouse.queryd.service")
        catalog = self._wiring.contracts["catalog"]
        assert self._rescue is not None
        query: Query = service.Query(
            self._config.query, catalog, buckets, self._clock, self._ids, self._rescue.reads
        )
        query.use_storage(self._wiring.contracts.get("storage"))
        query.use_journal(self._wiring.contracts.get("journal"))
        query.use_vectors(self._wiring.contracts.get("vectors"))
        query.use_retrievals(self._wiring.contracts.get("retrievals"))
        try:
            with act_as("queryd"):
                await query.start()
        except BaseException:
            await query.close()
            raise
        return query

    def _authenticator(self) -> Authenticator:
        if self._config.listen.auth == "off":
            return LocalOperator()
        near = SERVED_BY["tokens"] in self._config.node.roles
        tokens = self._wiring.contracts["tokens"]
        seconds = 0.0 if near else REMEMBERED_SECONDS
        return TokenAuthenticator(tokens, self._clock, self._ids, seconds)

    async def _serve(self) -> None:
        from lakehouse.rpc.counts import CallCounts
        from lakehouse.rpc.server import ServerOptions, build_server

        assert self._servers is not None
        counts = CallCounts()
        gateway = "gateway" in self._config.node.roles
        authenticator = self._authenticator()
        if "journal" in self._wiring.contracts:
            self._feeds = EndingFeeds(self._wiring.contracts["journal"])
            self._wiring.contracts["journal"] = self._feeds
        vectors = self._wiring.contracts.get("vectors")
        if vectors is not None:
            self._figures.add(vectors)
            self._builds = EndingBuilds(vectors)
            self._wiring.contracts["vectors"] = self._builds
        served = [c for c in CONTRACTS if gateway or SERVED_BY[c] in self._config.node.roles]
        services = {contract: self._wiring.contracts[contract] for contract in served}
        options = ServerOptions(counts=counts, log=request_log(self._config.telemetry))
        server = build_server(
            services, authenticator, self._clock, self._ids, self._readiness, options
        )
        await self._servers.start_grpc(server)
        self._figures.add(counts, *services.values())
        self._supervisor.start("loop lag", lambda: self._figures.watch_loop(self._clock))
        if self._servers.http_address:
            app = self._app(authenticator)
            await self._servers.start_http(app, self._config.node.drain_seconds)

    def _app(self, authenticator: Authenticator) -> Any:
        """What HTTP serves: the gateway, or a door for this process's own health and figures."""
        settings, clock, ids = self._config.gateway, self._clock, self._ids
        if "gateway" in self._config.node.roles:
            from lakehouse.gateway.app import create_app

            log = request_log(self._config.telemetry)
            services = self._wiring.services(self._readiness, self._figures, log)
            return create_app(services, authenticator, settings, clock, ids)
        from lakehouse.gateway.door import Shown, create_door

        shown = Shown(self._readiness, self._figures, request_log(self._config.telemetry))
        return create_door(shown, authenticator, settings, clock, ids)
