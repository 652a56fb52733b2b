"""Ingest on S3 servers: all of a file or nothing, once, whoever else is at it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from lakehouse.contracts.ingest import IngestRequest
from support_ingest import CTX, Lake, build_lake
from support_s3 import S3Place

ROWS = 1_000
BODY = b"n,s\n" + b"".join(b"%d,row %d\n" % (n, n) for n in range(ROWS))


class IngestOnS3:
    """Subclasses say on which server."""

    @pytest.fixture
    def place(self) -> S3Place:
        raise NotImplementedError

    @pytest.fixture
    async def lake(self, place: S3Place, tmp_path: Path) -> AsyncIterator[Lake]:
        lake = await build_lake(tmp_path, replace(place.settings(), name="primary"))
        yield lake
        await lake.close()

    async def test_ten_at_once_are_one(self, lake: Lake) -> None:
        reports = await asyncio.gather(*(lake.put(BODY, mode="append") for _ in range(10)))
        assert {report.version for report in reports} == {max(r.version for r in reports)}
        assert sum(not report.no_op for report in reports) == 1
        assert (await lake.table())["n"].to_pylist() == list(range(ROWS))

    async def test_ten_different_at_once_all_count(self, lake: Lake) -> None:
        bodies = [BODY + b"%d,extra\n" % n for n in range(10)]
        await asyncio.gather(*(lake.put(body, mode="append") for body in bodies))
        assert (await lake.table()).num_rows == 10 * (ROWS + 1)

    async def test_a_file_of_several_parts_comes_back_as_it_was(self, lake: Lake) -> None:
        lines = random.Random(1).randbytes(9 << 20).hex(" ", 40).split(" ")
        report = await lake.put("\n".join(["s", *lines]).encode())
        assert report.rows == len(lines)
        assert (await lake.table())["s"].to_pylist() == lines

    async def test_a_caller_that_goes_away_leaves_nothing(self, lake: Lake) -> None:
        half_sent = asyncio.Event()

        async def half() -> AsyncIterator[bytes]:
            yield BODY * 50
            half_sent.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(lake.ingest.ingest(CTX, IngestRequest("t"), half()))
        await half_sent.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        report = await lake.put(BODY)
        assert (report.created, (await lake.table()).num_rows) == (True, ROWS)

    async def test_whenever_a_caller_goes_away_it_is_all_or_nothing(self, lake: Lake) -> None:
        """The commit may be out already: sending the same again settles it, once."""
        for number, delay in enumerate((0.0, 0.01, 0.02, 0.04, 0.08)):
            name = f"t{number}"
            task = asyncio.create_task(lake.put(BODY, name))
            await asyncio.wait([task], timeout=delay)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await lake.put(BODY, name)
            assert (await lake.table(name))["n"].to_pylist() == list(range(ROWS))


class TestMoto(IngestOnS3):
    @pytest.fixture
    def place(self, moto_place: S3Place) -> S3Place:
        return moto_place


@pytest.mark.s3
class TestReal(IngestOnS3):
    @pytest.fixture
    def place(self, real_place: S3Place) -> S3Place:
        return real_place
