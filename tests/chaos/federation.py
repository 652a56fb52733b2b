"""Four buckets on two S3 servers, each behind a proxy that harms requests; a node over them."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from chaos.fault_proxy import NO_FAULTS, FaultProxy, Injected, WireFaults
from e2e.nodes import Node
from support_s3 import S3Oracle, S3Place

RESCUE: Final = "rescue"
HOMES: Final = ("primary", "client_a", "client_eu")
ATTEMPT_SECONDS: Final = 1.5
# What a method is called in the journal.
JOURNAL: Final = "_errors/"
# The journal reads it to prove that the place is ours, by its own handle, before its first write.
PROOF: Final = "store.json"
OPERATIONS: Final = {"GET": "get", "PUT": "put", "HEAD": "head", "POST": "put", "DELETE": "delete"}


@dataclass
class Federation:
    """``places`` are the buckets as they are, ``proxies`` the node's way to them."""

    node: Node
    places: Mapping[str, S3Place]
    proxies: Mapping[str, FaultProxy]
    acknowledged: dict[str, tuple[str, int]] = field(default_factory=dict)

    def harm(self, faults: WireFaults, *buckets: str) -> None:
        """From now on, on the way to these buckets, or to all."""
        for name in buckets or self.proxies:
            self.proxies[name].faults = faults

    def heal(self) -> None:
        self.harm(NO_FAULTS)

    async def ingest(self, client: httpx.AsyncClient, dataset: str, bucket: str, rows: int) -> bool:
        """Once, with a key of its own, again and again until it is answered; whether it was."""
        body = b"n,s\n" + b"".join(b"%d,row %d of it\n" % (n, n) for n in range(rows))
        until = time.monotonic() + 150
        while time.monotonic() < until:
            answer = await client.post(
                f"/ingest/datasets/{dataset}",
                params={"bucket": bucket},
                content=body,
                headers={"content-type": "text/csv", "idempotency-key": f"key-{dataset}"},
            )
            if answer.status_code in (200, 201):
                self.acknowledged[dataset] = (bucket, rows)
                return True
            assert answer.status_code in (429, 503, 504), answer.text
            await asyncio.sleep(0.1)
        return False

    async def count(self, client: httpx.AsyncClient, dataset: str) -> tuple[int, list[str]]:
        """Rows of a dataset, and which buckets had to be stood in for."""
        sql = f'select count(*), sum(n) from "{dataset}"'
        answer = await client.post("/query/sql", json={"sql": sql})
        if answer.status_code != 200:
            assert answer.status_code in (429, 503, 504), answer.text
            return -1, []
        found = answer.json()
        rows, total = found["rows"][0]
        assert int(total) == rows * (rows - 1) // 2, f"wrong rows: {found}"
        return int(rows), found.get("served_from") or []

    async def errors(self, client: httpx.AsyncClient) -> list[dict[str, Any]]:
        """The whole journal."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            answer = await client.get("/storage/errors", params={"limit": 1000, "cursor": cursor})
            assert answer.status_code == 200, answer.text
            page = answer.json()
            assert page["dropped"] == 0
            found += page["errors"]
            cursor = page.get("next") or ""
            if not cursor:
                return found

    def harmed(self) -> Counter[tuple[str, str, str]]:
        """What was done: by bucket, operation and key. The journal's own requests are not its
        subject, and lists and deletions of many have no key."""
        done: Counter[tuple[str, str, str]] = Counter()
        for name, proxy in self.proxies.items():
            for one in proxy.harmed:
                known = self._known(name, one)
                if known is not None:
                    done[known] += 1
        return done

    def _known(self, name: str, one: Injected) -> tuple[str, str, str] | None:
        root = self.places[name].prefix + "/"
        key, prefix = one.key.removeprefix(root), one.prefix.removeprefix(root)
        if key.startswith(JOURNAL) or prefix.startswith(JOURNAL) or key == PROOF:
            return None
        if not key:
            return (name, "list" if one.method == "GET" else "delete", "")
        return (name, OPERATIONS[one.method], key)

    def faults_at(self, known: tuple[str, str, str]) -> set[str]:
        """What was done to the requests that ``harmed`` counts under ``known``."""
        harmed = self.proxies[known[0]].harmed
        return {one.fault for one in harmed if self._known(known[0], one) == known}

    def objects(self) -> dict[str, set[str]]:
        """The keys of each bucket, as another SDK sees them."""
        return {name: set(S3Oracle(place).keys()) for name, place in self.places.items()}


def told(errors: list[dict[str, Any]]) -> Counter[tuple[str, str, str]]:
    """The journal in the terms of ``Federation.harmed``."""
    found: Counter[tuple[str, str, str]] = Counter()
    for error in errors:
        if error["sent"] and error["key"] != PROOF:
            many = error["operation"] in ("list", "delete")
            found[(error["bucket"], error["operation"], "" if many else error["key"])] += 1
    return found


@asynccontextmanager
async def federation(
    folder: Path, servers: list[S3Place], proxied: tuple[str, ...] = (*HOMES, RESCUE)
) -> AsyncIterator[Federation]:
    """``servers``: a place for each of primary, client_a, client_eu and rescue, in this order."""
    names = (*HOMES, RESCUE)
    places = dict(zip(names, servers, strict=True))
    proxies: dict[str, FaultProxy] = {}
    settings: dict[str, str] = {
        "LAKEHOUSE__STORAGE__ATTEMPT_SECONDS": str(ATTEMPT_SECONDS),
        "LAKEHOUSE__RESCUE__BUCKET": RESCUE,
        "LAKEHOUSE__RESCUE__INTERVAL_SECONDS": "0.3",
        "LAKEHOUSE__RESCUE__PATIENCE_SECONDS": "1",
    }
    for number, (name, place) in enumerate(places.items()):
        endpoint = place.endpoint
        if name in proxied:
            at = urlsplit(endpoint)
            proxies[name] = FaultProxy(at.hostname or "", at.port or 80, number, NO_FAULTS)
            endpoint = await proxies[name].start()
        key = f"LAKEHOUSE__BUCKETS__{name.upper()}"
        secret = {"access_key_id": place.access_key, "secret_access_key": place.secret_key}
        settings |= {
            f"{key}__URL": place.settings().url,
            f"{key}__ENDPOINT": endpoint,
            f"{key}__SECRET_REF": f"env:SECRET_{number}",
            f"SECRET_{number}": json.dumps(secret),
        }
    settings["LAKEHOUSE__BUCKETS__CLIENT_EU__RESIDENCY"] = "eu"
    settings["LAKEHOUSE__BUCKETS__RESCUE__RESIDENCY"] = "eu"
    node = Node(folder / "node", folder / "unused", settings=settings)
    made = Federation(node, places, proxies)
    try:
        done = await asyncio.to_thread(node.cli, "init")
        assert done.returncode == 0, done.stderr.decode()
        await asyncio.to_thread(node.start)
        yield made
    finally:
        await asyncio.to_thread(node.kill)
        for proxy in proxies.values():
            await proxy.close()
