"""A client that knows an address and nothing else, against the real roles."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import grpc

from contracts.world import NOUNS, Doorkeeper, make_dataset, world
from lakehouse.queryd.service import Query
from lakehouse.queryd.settings import QuerySettings
from unit.rpc.loopback import loopback
from unit.rpc.test_server import Explorer


async def test_the_catalog_is_listed_and_queried_by_reflection(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        buckets = here.open_buckets()
        catalog = await here.open_catalog()
        settings = QuerySettings(cache_dir=f"{tmp_path}/cache", spill_dir=f"{tmp_path}/spill")
        query = Query(settings, catalog, buckets, here.clock, here.ids)
        await query.start()
        here.stack.push_async_callback(query.close)
        await make_dataset(catalog, "people")
        served = {**dict.fromkeys(NOUNS), "catalog": catalog, "query": query}
        async with (
            loopback(served, Doorkeeper(None)) as there,
            grpc.aio.insecure_channel(there.address) as channel,
        ):
            client = Explorer(channel, "lh_read.test")
            assert {"lakehouse.v1.Catalog", "lakehouse.v1.Query"} <= await client.services()
            (listed,) = await client.call("lakehouse.v1.Catalog", "List", "{}")
            assert [dataset["name"] for dataset in listed["datasets"]] == ["people"]
            assert listed["datasets"][0]["schema"]["columns"][0] == {
                "id": "1",
                "name": "id",
                "type": "int64",
            }
            question = '{"sql": "select 7 / 2 as half", "format": "json"}'
            header, *chunks = await client.call("lakehouse.v1.Query", "Run", question)
            assert header["header"]["columns"] == [{"name": "half", "type": "int64"}]
            document = b"".join(base64.b64decode(part["chunk"]) for part in chunks)
            assert json.loads(document)["rows"] == [[3]]
