"""A whole store behind its contracts: the real roles over a bucket of their own, either called
directly or through gRPC on a loopback socket, where callers prove who they are by a token."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lakehouse.catalogd.service import Catalog, open_catalog
from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.contracts.catalog import CommitRequest, DatasetResult, GetRequest, SessionRequest
from lakehouse.contracts.tokens import TokenService, VerifyTokenRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.ledger.ledger import WriterInfo
from lakehouse.model.changes import AddFiles, CreateDataset
from lakehouse.model.dataset import Card, DataFile
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.model.schema import Column, Schema
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.failures import FailureSink, NoSink
from lakehouse.objectstore.identity import init_store
from lakehouse.table.fingerprint import fingerprint
from unit.rpc.loopback import loopback

NOUNS = (
    "catalog",
    "tokens",
    "ingest",
    "query",
    "storage",
    "objects",
    "rows",
    "journal",
    "vectors",
    "profiles",
)
COLUMNS = (Column(1, "id", "int64"), Column(2, "name", "string"))


class ShiftedClock(SystemClock):
    """The machine's wall clock, ``ahead_us`` ahead."""

    def __init__(self) -> None:
        self.ahead_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.ahead_us


PEOPLE = {f"lh_{scope.value}.test": Principal(scope.value, (scope,)) for scope in Scope}


def caller(scope: Scope, **fields: Any) -> Context:
    """The context of someone who holds ``scope``, the same on both transports."""
    credential = f"lh_{scope.value}.test"
    return Context(PEOPLE[credential], "request-1", **{"credential": credential, **fields})


READER, WRITER, OPERATOR = (caller(scope) for scope in Scope)


class Doorkeeper:
    """Knows the people of the tests; everybody else is the token service's to judge."""

    def __init__(self, tokens: TokenService | None) -> None:
        self._tokens = tokens

    async def authenticate(self, credential: str | None) -> Principal:
        if credential in PEOPLE:
            return PEOPLE[credential]
        if self._tokens is None:
            raise LakehouseError(ErrorKind.UNAUTHENTICATED, "nobody knows this token")
        nobody = Context(Principal("", ()), "request-1", credential=credential)
        return await self._tokens.verify(nobody, VerifyTokenRequest())


@dataclass
class World:
    """The roles as they are, by noun, over buckets of their own."""

    folder: Path
    clock: ShiftedClock = field(default_factory=ShiftedClock)
    near: dict[str, Any] = field(default_factory=dict)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def __post_init__(self) -> None:
        self.ids = SystemIds(self.clock)

    def open_buckets(self, url: str = "", failures: FailureSink | None = None) -> Buckets:
        # A folder, not memory: query workers are processes of their own.
        places = [("primary", url or f"file://{self.folder}/primary"), ("extra", "")]
        settings = [
            BucketSettings(name, place or f"memory://{self.ids.ulid()}", bucket_class=name)
            for name, place in places
        ]
        self.buckets = Buckets(settings, self.clock, self.ids, failures or NoSink())
        self.stack.push_async_callback(self.buckets.close)
        return self.buckets

    async def open_catalog(self) -> Catalog:
        await init_store(self.buckets.raw("primary"), self.clock, self.ids)
        writer = WriterInfo(self.ids.ulid(), "127.0.0.1:1")
        catalog = await open_catalog(CatalogSettings(), self.buckets, writer, self.clock, self.ids)
        self.stack.push_async_callback(catalog.close)
        self.near["catalog"] = catalog
        return catalog

    async def connect(self, transport: str, noun: str) -> Any:
        """``noun`` as the tests call it: the role itself, or a client of a server of it."""
        role = self.near[noun]
        if transport == "direct":
            return role
        only = {**dict.fromkeys(NOUNS), noun: role}
        doorkeeper = Doorkeeper(self.near.get("tokens"))
        there = await self.stack.enter_async_context(loopback(only, doorkeeper))
        return there.client(noun.title())


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    here = World(folder)
    async with here.stack:
        yield here


def data_file(session: str, dataset_id: str, name: str, rows: int = 10) -> DataFile:
    """A file as ingest would commit it (its bytes are nobody's business here)."""
    key = f"datasets/{session}/{dataset_id}/{name}.parquet"
    return DataFile(key, 100, rows, hashlib.sha256(key.encode()).hexdigest())


def create(dataset_id: str, name: str, **fields: Any) -> CreateDataset:
    card = Card(owner="anna", description="made by a test", tags=("test", dataset_id))
    given = {"card": card, "schema": Schema(1, COLUMNS), **fields}
    return CreateDataset(dataset_id, name, fingerprint(COLUMNS), **given)


async def make_dataset(catalog: Any, name: str, files: int = 1) -> DatasetResult:
    """A dataset with ``files`` files, committed in one."""
    opened = await catalog.session(WRITER, SessionRequest("tests", "ingestd"))
    dataset_id = f"id-{name}"
    added = tuple(data_file(opened.session_id, dataset_id, f"f{n}") for n in range(files))
    changes = (create(dataset_id, name), AddFiles(dataset_id, added))
    await catalog.commit(WRITER, CommitRequest(changes))
    result: DatasetResult = await catalog.get(READER, GetRequest(name))
    return result


async def open_ingestd(here: World, folder: Path) -> None:
    """Ingest, rows and journal of one process, near, over a catalog that is opened if none is."""
    from lakehouse.ingestd.journal.service import Journal as RowJournal
    from lakehouse.ingestd.rows.service import Rows
    from lakehouse.ingestd.service import Ingest
    from lakehouse.ingestd.settings import IngestSettings

    if "catalog" not in here.near:
        here.open_buckets(f"memory://{here.ids.ulid()}")
        await here.open_catalog()
    settings = IngestSettings(spool_dir=str(folder / "spool"))
    role = Ingest(settings, here.near["catalog"], here.buckets, here.clock, here.ids)
    await role.start()
    here.stack.push_async_callback(role.close)
    here.near["ingest"] = role
    here.near["rows"] = Rows(role.parts)
    here.near["journal"] = RowJournal(role.parts)
