"""A process that commits tokens to a ledger until it is killed; the test starts several.

Arguments: one JSON object (url, endpoint, access_key, secret_key, name, acks). Each acknowledged
token is appended to the file ``acks`` as ``token seq epoch`` before the next is asked for.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.ledger.ledger import Ledger, OpenOptions, WriterInfo, open_ledger
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.objectstore.buckets import BucketSettings, S3Credentials, open_raw
from lakehouse.testing.simulation.machine import World, WorldMachine, add_token

SETTINGS = LedgerSettings(
    fold_records=8,
    unfolded_records_max=64,
    records_kept=4,
    append_budget_seconds=3.0,
    backoff_seconds=0.02,
    backoff_seconds_max=0.3,
    fence_check_seconds=0.3,
    hedge_seconds_min=0.2,
)
CLIENTS = 3
CLOCK = SystemClock()
IDS = SystemIds(CLOCK)


@dataclass(slots=True)
class Worker:
    """Its clients survive the ledger being fenced: they go on with the next one."""

    name: str
    acks: int
    ledger: Ledger[World] | None = None

    def note(self, token: str, seq: int, epoch: int) -> None:
        """One write(2) to a file opened for appending: whole, whatever happens next."""
        os.write(self.acks, f"{token} {seq} {epoch}\n".encode())

    async def client(self, client: int) -> None:
        number = 0
        while True:
            token = f"{self.name}-{client}-{number}"
            while not await self._commit(token):
                await CLOCK.sleep(0.02 + IDS.uniform() / 20)
            number += 1

    async def _commit(self, token: str) -> bool:
        ledger = self.ledger
        if ledger is None:
            return False
        try:
            done = await ledger.commit(add_token(token, f"key-{token}", "body"))
        except LakehouseError as error:
            if error.kind in (ErrorKind.CORRUPT, ErrorKind.INTERNAL):
                raise
            return False
        self.note(token, done.seq, -1 if done.replayed else ledger.epoch)
        return True

    async def collect(self, ledger: Ledger[World]) -> None:
        while True:
            await CLOCK.sleep(0.3 + IDS.uniform())
            try:
                await ledger.collect_records()
            except LakehouseError as error:
                if error.kind in (ErrorKind.CORRUPT, ErrorKind.INTERNAL):
                    raise

    async def hold(self, settings: BucketSettings) -> None:
        """Take the ledger over, keep it until somebody else does, again and again."""
        store = open_raw(settings, CLOCK)
        options = OpenOptions(settings=SETTINGS)
        writer = WriterInfo(self.name)
        while True:
            try:
                ledger = await open_ledger(store, WorldMachine(), writer, CLOCK, IDS, options)
            except LakehouseError as error:
                if error.kind is ErrorKind.CORRUPT:
                    raise
                await CLOCK.sleep(IDS.uniform() / 2)
                continue
            self.ledger = ledger
            collecting = asyncio.ensure_future(self.collect(ledger))
            while True:
                await CLOCK.sleep(0.05)
                try:
                    await ledger.check_authority()
                except LakehouseError as error:
                    if error.kind is ErrorKind.FENCED:
                        break
                if collecting.done():
                    collecting.result()
            self.ledger = None
            collecting.cancel()
            await ledger.close()
            await CLOCK.sleep(0.3 + IDS.uniform() * 1.5)


async def main(arguments: dict[str, str]) -> None:
    credentials = None
    if arguments["access_key"]:
        credentials = S3Credentials(arguments["access_key"], arguments["secret_key"])
    settings = BucketSettings(
        "primary", arguments["url"], arguments["endpoint"], credentials=credentials
    )
    acks = os.open(arguments["acks"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    worker = Worker(arguments["name"], acks)
    await asyncio.gather(worker.hold(settings), *(worker.client(i) for i in range(CLIENTS)))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
