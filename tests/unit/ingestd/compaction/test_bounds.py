"""A compaction stays within the memory and the disk that it is given."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import ROWS
from support_ingest import build_lake
from unit.ingestd.compaction.tables import SETTINGS, Table


async def test_too_little_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    settings = replace(SETTINGS, spill_bytes_max=2_000)
    lake = await build_lake(tmp_path, compaction=settings)
    try:
        rows = "".join(f"{at},n{at}\n" for at in range(500))
        await lake.put(f"id,name\n{rows}".encode(), key=("id",))
        table = Table(lake)
        await table.changes(2)
        with pytest.raises(LakehouseError) as caught:
            await table.compact(full=True)
        assert caught.value.kind in (ErrorKind.EXHAUSTED, ErrorKind.UNAVAILABLE)
        assert "compaction.spill_bytes_max" in str(caught.value.fields)
        assert len(await table.seen()) == 500
    finally:
        await lake.close()


class Peak(threading.Thread):
    """The most that Arrow held at once, looked at every millisecond."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_bytes = pa.total_allocated_bytes()
        self.most = 0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.001):
            self.most = max(self.most, pa.total_allocated_bytes() - self.start_bytes)

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._done.set()
        self.join()


async def test_memory_stays_within_a_part_of_the_data(tmp_path: Path) -> None:
    count = 60_000
    ids = pc.sort_indices(pc.random(count, initializer=7)).cast(pa.int64())
    names = pc.binary_join_element_wise(ids.cast(pa.string()), "x" * 200, "-")
    data = pa.table({"id": ids, "name": names})
    body = io.BytesIO()
    pq.write_table(data, body)
    size = data.nbytes
    settings = replace(SETTINGS, memory_bytes=size // 20)
    lake = await build_lake(tmp_path, compaction=settings)
    try:
        await lake.put(body.getvalue(), key=("id",))
        del data, ids, names, body
        table = Table(lake)
        await table.change(5, count + 5, name="new")
        with Peak() as peak:
            report = await table.compact(full=True)
        assert report.rows == count + 1
        # Beside the rows: pages and dictionaries that a Parquet writer has, a MiB or so a column.
        assert peak.most < size // 20 + (3 << 20) < size // 3, f"{peak.most:,} of {size:,}"
        (rows,) = await table.files(ROWS)
        paths = await lake.ingest.parts.reader.local([rows])
        found = pq.read_table(paths[0], columns=["id"]).column("id")
        assert pc.all(pc.less(found[:-1], found[1:])).as_py()
    finally:
        await lake.close()
