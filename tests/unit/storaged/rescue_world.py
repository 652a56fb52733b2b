"""A catalog, two data buckets and a rescue bucket in memory, and a copier that may die anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from lakehouse.catalogd.service import Catalog
from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.contracts import catalog as c
from lakehouse.contracts.inventory import ObjectChangesRequest, ObjectChangesResult
from lakehouse.errors import LakehouseError
from lakehouse.kit.ids import SystemIds
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.model.changes import AddFiles, RemoveFiles
from lakehouse.model.dataset import DataFile
from lakehouse.model.identity import Context
from lakehouse.model.refs import PRIMARY
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.identity import init_store
from lakehouse.objectstore.port import ByteRange, ObjectMeta, ObjectStore
from lakehouse.objectstore.rescue import RescueSettings
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.storaged.copier import Copier
from lakehouse.testing.clocks import ManualClock, SeededIds
from support_catalog import CARD, CTX, House, commit, create

HOME, RESCUE = "client_a", "spare"
RETENTION_SECONDS = 20.0


class Crash(BaseException):
    """The process is gone."""


@dataclass
class Script:
    """What happens to requests; ``log`` has them as (operation, bucket, key)."""

    log: list[tuple[str, str, str]] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    errors: dict[str, LakehouseError] = field(default_factory=dict)
    dies_at: int = -1
    after: bool = False

    def counts(self, bucket: str) -> int:
        return sum(name == bucket for _, name, _ in self.log)


class Scripted(ForwardingStore):
    def __init__(self, inner: ObjectStore, name: str, script: Script) -> None:
        super().__init__(inner)
        self.name = name
        self.script = script

    async def _do(self, operation: str, key: str, call: object) -> object:
        script = self.script
        script.log.append((operation, self.name, key))
        error = script.errors.get(self.name)
        if error is not None:
            raise error
        dies = len(script.log) == script.dies_at
        if dies and not script.after:
            raise Crash
        result = await call()  # type: ignore[operator]
        if dies:
            raise Crash
        return result

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        return await self._do("get", key, lambda: self.inner.get(key, byte_range))  # type: ignore[return-value]

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        return await self._do(  # type: ignore[return-value]
            "put", key, lambda: self.inner.put(key, data, if_absent=if_absent)
        )

    async def head(self, key: str) -> ObjectMeta:
        return await self._do("head", key, lambda: self.inner.head(key))  # type: ignore[return-value]

    async def delete(self, keys: Sequence[str]) -> None:
        await self._do("delete", keys[0], lambda: self.inner.delete(keys))

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        return await self._do(  # type: ignore[return-value]
            "list",
            prefix,
            lambda: self.inner.list(prefix, start_after=start_after, limit=limit),
        )

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        return await self._do("put", key, lambda: self.inner.put_stream(key, chunks))  # type: ignore[attr-defined, return-value]


class ScriptedBuckets(Buckets):
    """As ``Buckets``, with a script between the copier and its stores; no retries."""

    script: Script

    def get(self, name: str) -> ObjectStore:
        return Scripted(self.raw(name), name, self.script)


@dataclass
class World:
    house: House
    catalog: Catalog
    buckets: ScriptedBuckets
    clock: ManualClock
    script: Script
    session: str
    copier: Copier
    settings: RescueSettings

    async def write(self, dataset: str, name: str, data: bytes, bucket: str = HOME) -> DataFile:
        """An object of the live session; not committed yet."""
        key = f"datasets/{self.session}/{dataset}/{name}.parquet"
        await self.buckets.raw(bucket).put(key, data)
        sha = hashlib.sha256(data).hexdigest()
        return DataFile(key, len(data), 1, sha, bucket=bucket)

    async def make(self, dataset: str, count: int, bucket: str = HOME) -> list[DataFile]:
        files = [
            await self.write(dataset, f"f{at}", f"{dataset} {at}".encode(), bucket)
            for at in range(count)
        ]
        made, add = create(dataset, dataset, *files)
        await commit(self.catalog, replace(made, bucket=bucket), add)  # type: ignore[type-var]
        return files

    async def append(self, dataset: str, name: str, data: bytes) -> DataFile:
        file = await self.write(dataset, name, data)
        await commit(self.catalog, AddFiles(dataset, (file,)))
        return file

    async def remove(self, dataset: str, *files: DataFile) -> None:
        await commit(self.catalog, RemoveFiles(dataset, tuple(file.key for file in files)))

    async def purge(self, name: str) -> None:
        """For good, and then collected: the catalog gives the objects up."""
        await self.catalog.drop(CTX, c.DropRequest(name, purge=True))
        await self.renew()
        await self.catalog.collect(CTX, c.PlanRequest())

    async def renew(self) -> None:
        ask = c.SessionRequest("tests", "ingestd", self.session, close=True)
        await self.catalog.session(CTX, ask)
        self.session = (
            await self.catalog.session(CTX, c.SessionRequest("t", "ingestd"))
        ).session_id

    def page_by(self, limit: int) -> None:
        """Let the catalog tell ``limit`` changes at a time."""
        tell = self.catalog.object_changes

        async def few(ctx: Context, request: ObjectChangesRequest) -> ObjectChangesResult:
            return await tell(ctx, replace(request, limit=min(limit, request.limit)))

        self.catalog.object_changes = few

    def restart(self) -> None:
        """Another process: nothing is left but what is in the buckets."""
        self.script.dies_at = -1
        self.copier = Copier(self.settings, self.catalog, self.buckets, self.clock, SeededIds(7))

    async def settle(self, rounds: int = 50) -> None:
        """Rounds until there is nothing to do at once."""
        for _ in range(rounds):
            if not await self.copier.round():
                return
        raise AssertionError(f"never idle: {self.copier.info()}")

    async def copies(self) -> dict[str, bytes]:
        store = self.house.buckets.raw(RESCUE)
        found = await store.list("rescue/")
        return {meta.key: await store.get(meta.key) for meta in found}

    async def expected(self, *files: DataFile) -> dict[str, bytes]:
        return {
            f"rescue/{file.bucket}/{file.key}": await self.buckets.raw(file.bucket).get(file.key)
            for file in files
        }


def _catalog_settings() -> CatalogSettings:
    """Nothing on a timetable: a clock that leaps would run it all."""
    ledger = LedgerSettings(reader_retention_seconds=RETENTION_SECONDS)
    return CatalogSettings(collect_seconds=0, session_seconds=1e6, ledger=ledger)


@asynccontextmanager
async def build_world(
    settings: RescueSettings | None = None, residencies: dict[str, str] | None = None
) -> AsyncIterator[World]:
    clock = ManualClock()
    ids = SystemIds(clock)
    tag = ids.ulid() + ids.token(4)
    labels = residencies or {}
    chosen = [
        BucketSettings(name, f"memory://{tag}-{name}", residency=labels.get(name, ""))
        for name in (PRIMARY, HOME, "client_b", RESCUE)
    ]
    buckets = ScriptedBuckets(chosen, clock, ids)
    buckets.script = Script()
    await init_store(buckets.raw(PRIMARY), clock, ids)
    house = House(buckets, clock, ids, _catalog_settings())
    catalog = await house.open()
    session = (await catalog.session(CTX, c.SessionRequest("t", "ingestd"))).session_id
    rescue = settings or RescueSettings(RESCUE, sweep_seconds=60.0, verify_objects=3600)
    copier = Copier(rescue, catalog, buckets, clock, SeededIds(1))
    try:
        yield World(house, catalog, buckets, clock, buckets.script, session, copier, rescue)
    finally:
        buckets.script.errors.clear()
        buckets.script.dies_at = -1
        await house.close()


__all__ = ["CARD", "HOME", "RESCUE", "Crash", "Script", "Scripted", "World", "build_world"]
