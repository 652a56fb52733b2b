"""Queries over a bucket that does not answer: the same rows from its copies, and a reply that says
so; and no request at all where everything is at hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from lakehouse.contracts.query import QueryHeader, QueryRequest, ResultFormat
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.objectstore.local import LocalStore
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.port import ByteRange, ObjectStore
from lakehouse.objectstore.rescue import KnownReads, RescueSettings
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.queryd.service import Query
from lakehouse.queryd.settings import QuerySettings
from unit.queryd.fake_catalog import CTX, FakeCatalog

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
SQL = "select count(*) as n, sum(id) as s from people"
FORMATS = (ResultFormat.NDJSON, ResultFormat.CSV, ResultFormat.PARQUET, ResultFormat.ARROW)


class Failing(ForwardingStore):
    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.error: LakehouseError | None = None
        self.reads = 0

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        self.reads += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return await super().get(key, byte_range)


class House:
    """Two data buckets and a rescue bucket; ``people`` is in both."""

    def __init__(self, folder: Path, home: ObjectStore | None = None) -> None:
        self.catalog = FakeCatalog(folder / "files")
        self.home = Failing(home or MemoryStore("home", CLOCK))
        self.rescue = Failing(MemoryStore("rescue", CLOCK))
        settings = QuerySettings(
            cache_dir=str(folder / "cache"), spill_dir=str(folder / "spill"), workers_max=2
        )
        known = KnownReads(self, CLOCK, IDS, RescueSettings("rescue"))
        self.query = Query(settings, self.catalog, self, CLOCK, IDS, known)  # type: ignore[arg-type]

    def get(self, name: str) -> ObjectStore:
        return {"primary": self.home, "rescue": self.rescue}[name]

    async def find(self, ctx: object, names: object) -> None:
        """All buckets are known."""

    async def fill(self, name: str, ids: list[int], copied: bool = True) -> None:
        made = self.catalog.put(name, pa.table({"id": ids[:1]}), pa.table({"id": ids[1:]}))
        for file in made.files:
            data = (self.catalog.root / file.key).read_bytes()
            await self.home.put(file.key, data)
            if copied:
                await self.rescue.put(f"rescue/primary/{file.key}", data)

    async def ask(self, form: ResultFormat = ResultFormat.JSON) -> tuple[QueryHeader, bytes]:
        stream = await self.query.run(CTX, QueryRequest(SQL, format=form))
        return stream.header, b"".join([chunk async for chunk in stream.chunks])

    async def json(self) -> dict[str, Any]:
        header, body = await self.ask()
        document: dict[str, Any] = orjson.loads(body)
        assert document["served_from"] == list(header.served_from)
        assert document["rows"] == [[3, 6]]
        return document


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.fill("people", [1, 2, 3])
    await made.query.start()
    yield made
    await made.query.close()


DOWN = LakehouseError(ErrorKind.UNAVAILABLE, "connection refused")


async def test_a_reply_says_that_copies_were_read_once_and_a_warm_one_asks_nobody(
    house: House,
) -> None:
    house.home.error = DOWN
    assert (await house.json())["served_from"] == ["rescue/primary"]
    reads = house.home.reads, house.rescue.reads
    assert reads == (2, 2)
    assert (await house.json())["served_from"] == []
    assert (house.home.reads, house.rescue.reads) == reads


async def test_from_home_nothing_is_said(house: House) -> None:
    assert (await house.json())["served_from"] == []
    assert (house.home.reads, house.rescue.reads) == (2, 0)


@pytest.mark.parametrize("form", FORMATS)
async def test_every_format_carries_it_in_the_header(house: House, form: ResultFormat) -> None:
    house.home.error = DOWN
    header, body = await house.ask(form)
    assert header.served_from == ("rescue/primary",)
    assert b"served_from" not in body


async def test_all_that_wait_for_one_read_are_told(house: House) -> None:
    house.home.error = DOWN
    found = await asyncio.gather(house.ask(), house.ask())
    assert [header.served_from for header, _ in found] == [("rescue/primary",)] * 2
    assert house.rescue.reads == 2


async def test_what_is_gone_is_not_rescued_in_a_query_either(house: House) -> None:
    for meta in await house.home.list():
        await house.home.delete([meta.key])
    with pytest.raises(LakehouseError) as caught:
        await house.ask()
    assert (caught.value.kind, caught.value.message) == (
        ErrorKind.CORRUPT,
        "an object that the catalog names is missing",
    )
    assert house.rescue.reads == 0


async def test_without_copies_the_bucket_s_own_error_is_told(house: House) -> None:
    await house.fill("people", [4, 5, 6], copied=False)
    house.home.error = DOWN
    with pytest.raises(LakehouseError) as caught:
        await house.ask()
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    told: Any = caught.value.fields["rescue"]
    assert told["kind"] == "not_found"


async def test_a_folder_whose_disk_is_gone_is_rescued_too(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    local = LocalStore(disk, CLOCK)
    house = House(tmp_path, local)
    await house.fill("people", [1, 2, 3])
    await house.query.start()
    try:
        disk.rename(tmp_path / "unmounted")
        disk.mkdir()
        assert (await house.json())["served_from"] == ["rescue/primary"]
        disk.rmdir()
        (tmp_path / "unmounted").rename(disk)
        await house.fill("people", [1, 2, 3])
        assert (await house.json())["served_from"] == []
    finally:
        await house.query.close()
        await local.close()
