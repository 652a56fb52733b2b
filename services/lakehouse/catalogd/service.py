"""The catalog as a service: opens the ledger and joins the use cases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lakehouse.catalogd.collect import Collecting
from lakehouse.catalogd.core import Core
from lakehouse.catalogd.fsck import Fsck
from lakehouse.catalogd.importing import Importing
from lakehouse.catalogd.inventory import Inventory
from lakehouse.catalogd.lifecycle import Lifecycle
from lakehouse.catalogd.machine import CatalogMachine
from lakehouse.catalogd.reads import Reads
from lakehouse.catalogd.registering import Registering
from lakehouse.catalogd.sessions import Sessions
from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.catalogd.tags import Tags
from lakehouse.catalogd.timetable import Timetable
from lakehouse.catalogd.usage import Usage
from lakehouse.contracts import catalog as c
from lakehouse.contracts.readiness import Readiness
from lakehouse.kit.clock import Clock
from lakehouse.kit.figures import Figure, Kind, Readout, alone
from lakehouse.kit.ids import Ids
from lakehouse.ledger.ledger import OpenOptions, WriterInfo, open_ledger
from lakehouse.model.identity import Context
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.identity import check_writer, read_identity
from lakehouse.objectstore.scoped import ScopedStore

__all__ = ["Catalog", "open_catalog"]

_QUEUE_FULL = 0.9
_DATASETS: Final = Figure("lakehouse_datasets", Kind.GAUGE, "datasets in the catalog")
_DOCUMENTS: Final = Figure("lakehouse_documents", Kind.GAUGE, "documents in the catalog")


class Catalog:
    """Implements ``contracts.catalog.CatalogService`` and ``contracts.readiness``'s source.

    Made by ``open_catalog``; belongs to one event loop.
    """

    def __init__(self, core: Core, store_id: str, writer: WriterInfo) -> None:
        self._core = core
        self._store_id = store_id
        self._writer = writer
        self._closing = False
        sessions = Sessions(core)
        reads, lifecycle = Reads(core), Lifecycle(core)
        registering, importing = Registering(core, sessions), Importing(core)
        self._sessions = sessions
        self.session = sessions.session
        self.get = reads.get
        self.list = reads.list
        self.snapshot = reads.snapshot
        self.files = reads.files
        self.versions = reads.versions
        self.documents = reads.documents
        self.usage = Usage(core).usage
        inventory = Inventory(core)
        self.object_changes = inventory.object_changes
        self.object_states = inventory.object_states
        self.commit = lifecycle.commit
        self.update_card = lifecycle.update_card
        self.rename = lifecycle.rename
        self.drop = lifecycle.drop
        self.restore = lifecycle.restore
        self.register = registering.register
        self.import_datasets = importing.import_datasets
        self.dedupe = importing.dedupe
        self.fsck = Fsck(core).fsck
        tags = Tags(core)
        self.journal, self.set_tag, self.tags = tags.journal, tags.set_tag, tags.tags
        collecting = Collecting(core)
        self.collect = collecting.collect
        self._timetable = Timetable(core, collecting)

    async def status(self, ctx: Context, request: c.StatusRequest) -> c.CatalogStatus:
        """Who holds the store, and how it fares."""
        state, ledger = await self._core.read(ctx), self._core.ledger
        settings = self._core.settings.ledger
        return c.CatalogStatus(
            store_id=self._store_id,
            version=ledger.seq,
            record=ledger.record,
            epoch=ledger.epoch,
            writer=self._writer.writer_id,
            endpoint=self._writer.endpoint,
            datasets=len(state.names.order),
            documents=state.document_count(),
            queued=self._core.pending,
            idempotency_keys=ledger.keys_remembered,
            idempotency_seconds=settings.keys_seconds,
            horizon=state.objects.horizon,
        )

    @property
    def position(self) -> tuple[int, str]:
        """Number and SHA-256 of the newest record: a later opening must find it in the chain."""
        return self._core.ledger.position

    def readiness(self) -> Readiness:
        """Ready unless fenced, closing, settling an unknown commit, unable to write checkpoints,
        or with a full queue."""
        ledger, core = self._core.ledger, self._core
        records_max = core.settings.ledger.unfolded_records_max
        reasons: list[str] = []
        if self._closing:
            reasons.append("the catalog is closing")
        if ledger.settling:
            reasons.append("the outcome of a commit is being settled")
        if core.fenced is not None:
            reasons.append("another writer has taken over the catalog")
        failure = ledger.fold_failure
        if failure is not None and ledger.unfolded_records >= records_max:
            reasons.append("the catalog cannot write a checkpoint and has no room for commits")
        if core.pending >= core.settings.ledger.queue_max * _QUEUE_FULL:
            reasons.append("the commit queue is full")
        details = {
            "version": str(ledger.seq),
            "epoch": str(ledger.epoch),
            "queued": str(core.pending),
            "idempotency_keys": str(ledger.keys_remembered),
            "idempotency_seconds": str(core.settings.ledger.keys_seconds),
            "unfolded_records": str(ledger.unfolded_records),
        }
        if ledger.damage:
            details["repaired"] = ledger.damage
        if failure is not None:
            details["fold_failure"] = str(failure)[:200]
        return Readiness(not reasons, tuple(reasons), details)

    def figures(self) -> Iterator[Readout]:
        """The ledger's figures, and how much the catalog holds."""
        state = self._core.ledger.state
        yield from self._core.ledger.figures()
        yield alone(_DATASETS, len(state.names.order))
        yield alone(_DOCUMENTS, state.document_count())

    async def close(self) -> None:
        """Finish the commits under way, end our session, fold and seal. Idempotent."""
        if self._closing:
            return
        self._closing = True
        await self._timetable.stop()
        await self._sessions.stop()
        await self._core.drain()
        await self._core.ledger.close()


async def open_catalog(
    settings: CatalogSettings, buckets: Buckets, writer: WriterInfo, clock: Clock, ids: Ids
) -> Catalog:
    """Take the store's catalog over and replay it.

    Raises ``not_found`` for a bucket that is no store (nothing is written to it), and all that
    ``ledger.open_ledger`` raises.
    """
    store_id = settings.store_id
    if not store_id:
        bucket = buckets.get(settings.bucket)
        identity = await read_identity(bucket)
        check_writer(identity, bucket.url)
        store_id = identity.store_id
    store = ScopedStore(buckets.raw(settings.bucket), (f"{settings.prefix}/",))
    options = OpenOptions(
        prefix=settings.prefix,
        settings=settings.ledger,
        probe_holder=settings.probe_holder,
        take_over=settings.take_over,
        objects="datasets/",
        seen=settings.seen,
    )
    ledger = await open_ledger(store, CatalogMachine(), writer, clock, ids, options)
    return Catalog(Core(settings, buckets, ledger, clock, ids), store_id, writer)
