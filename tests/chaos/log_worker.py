"""A process that appends to and offers into one log until it is killed; the test starts several.

Arguments: one JSON object (url, endpoint, access_key, secret_key, name, acks, spool). Each
acknowledged token is noted in the file ``acks`` as ``append token seq`` before the next is asked
for, each offered one as ``offer token`` once it has been in the spool for a while.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass

from lakehouse.appendlog.log import AppendLog, open_log
from lakehouse.appendlog.settings import LogSettings
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.objectstore.buckets import BucketSettings, S3Credentials, open_raw

PREFIX = "_errors/bucket_errors"
CLIENTS = 3
CLOCK = SystemClock()
IDS = SystemIds(CLOCK)


def settings(spool: str = "") -> LogSettings:
    return LogSettings(
        spool_folder=spool,
        append_budget_seconds=3.0,
        backoff_seconds=0.02,
        backoff_seconds_max=0.3,
        flush_seconds=0.2,
        hedge_seconds_min=0.2,
        slots_kept=2,
        merge_fan=4,
        merged_batches_max=256,
    )


@dataclass(slots=True)
class Worker:
    name: str
    acks: int
    log: AppendLog

    def note(self, *words: object) -> None:
        """One write(2) to a file opened for appending: whole, whatever happens next."""
        os.write(self.acks, (" ".join(map(str, words)) + "\n").encode())

    async def append(self, client: int) -> None:
        number = 0
        while True:
            token = f"{self.name}-{client}-{number}"
            number += 1
            try:
                done = await self.log.append([{"token": token}])
            except LakehouseError as error:
                if error.kind in (ErrorKind.CORRUPT, ErrorKind.INTERNAL):
                    raise
                await CLOCK.sleep(0.05)
                continue
            self.note("append", token, done.first_seq)

    async def offer(self) -> None:
        number = 0
        while True:
            token = f"{self.name}-o-{number}"
            number += 1
            accepted = self.log.offer([{"token": token, "id": token}])
            # By then it is in the spool, whatever the bucket does.
            await CLOCK.sleep(0.5)
            if accepted:
                self.note("offer", token)

    async def compact(self) -> None:
        while True:
            await CLOCK.sleep(0.3 + IDS.uniform())
            try:
                await self.log.compact()
            except LakehouseError as error:
                if error.kind in (ErrorKind.CORRUPT, ErrorKind.INTERNAL):
                    raise


async def main(arguments: dict[str, str]) -> None:
    credentials = None
    if arguments["access_key"]:
        credentials = S3Credentials(arguments["access_key"], arguments["secret_key"])
    bucket = BucketSettings(
        "primary", arguments["url"], arguments["endpoint"], credentials=credentials
    )
    acks = os.open(arguments["acks"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    store = open_raw(bucket, CLOCK)
    name = arguments["name"]
    log = await open_log(store, PREFIX, name, CLOCK, IDS, settings(arguments["spool"]))
    worker = Worker(name, acks, log)
    await asyncio.gather(
        worker.offer(), worker.compact(), *(worker.append(place) for place in range(CLIENTS))
    )


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
