"""Random row changes, compacted at random points with commits in between, against a dict: the rows,
what they were at every version, their events and their hash stay what they are."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import pytest

from lakehouse.contracts import catalog as c
from lakehouse.contracts.as_of import AsOf
from lakehouse.contracts.ingest import IngestOptions, SourceFormat
from lakehouse.contracts.inventory import JournalRequest
from lakehouse.contracts.rows import ChangeRowsRequest, CompactReport, CompactRequest, RowChange
from lakehouse.ingestd.compaction.balance import told
from lakehouse.ingestd.compaction.running import Runner, Stand
from lakehouse.ingestd.compaction.settings import CompactionSettings
from lakehouse.ingestd.rows.service import Rows
from lakehouse.model.dataset import KEYS, ROWS, DataFile
from lakehouse.table.rowhash import format_hash, rows_hash
from support_ingest import CTX, Lake, build_lake

SEEDS: Final = range(3)
STEPS: Final = 20
NOW: Final = AsOf()
# So small that every strategy, several ranges and ranges that are put apart again are met.
SETTINGS: Final = CompactionSettings(
    deltas_max=3, delta_share=0.5, rows_max=100, memory_bytes=65_536, file_bytes_target=40_000
)
Model = dict[tuple[str, int], dict[str, Any]]


class World:
    """A keyed dataset beside the dict that it must equal."""

    def __init__(self, lake: Lake, rng: random.Random) -> None:
        self.lake = lake
        self.rng = rng
        self.rows = Rows(lake.ingest.parts)
        lake.ingest.parts.compaction_wanted = lambda name: None
        self.model: Model = {}
        self.past: dict[int, Model] = {}
        self.events = 0

    def row(self, place: str, number: int) -> dict[str, Any]:
        score = self.rng.choice([None, 1.5, float(self.rng.randrange(9))])
        text = self.rng.choice([None, "", "é", "x" * self.rng.randrange(30)])
        return {"place": place, "n": number, "score": score, "text": text}

    def key(self) -> tuple[str, int]:
        return self.rng.choice(["a", "b", "ÿ", ""]), self.rng.randrange(-9, 15)

    async def create(self) -> None:
        rows = [self.row("a", number) for number in range(-20, 20)]
        # A first value of each type settles the schema.
        rows[0] |= {"score": 0.5, "text": "first"}
        body = json.dumps(rows).encode()
        report = await self.lake.put(body, key=("place", "n"), format=SourceFormat.JSON)
        self.model = {(row["place"], row["n"]): row for row in rows}
        self.past[report.version] = dict(self.model)

    async def change(self) -> None:
        if self.model and self.rng.random() < 0.3:
            keys = self.rng.sample(
                sorted(self.model), min(len(self.model), self.rng.randrange(1, 6))
            )
            gone = [{"place": place, "n": number} for place, number in keys]
            report = await self._send(RowChange.DELETE, gone)
            for key in keys:
                del self.model[key]
        else:
            keys = sorted({self.key() for _ in range(self.rng.randrange(1, 12))})
            rows = [self.row(*key) for key in keys]
            report = await self._send(RowChange.UPSERT, rows)
            self.model |= dict(zip(keys, rows, strict=True))
        self.past[report] = dict(self.model)

    async def _send(self, change: RowChange, rows: list[dict[str, Any]]) -> int:
        body = json.dumps(rows).encode()
        options = IngestOptions(format=SourceFormat.JSON)
        report = await self.rows.change(CTX, ChangeRowsRequest("t", change, body, options))
        return report.version

    async def compact(self, **how: bool) -> CompactReport:
        return await self.rows.compact(CTX, CompactRequest("t", **how))

    async def seen(self, as_of: AsOf = NOW) -> Model:
        reader = self.lake.ingest.parts.reader
        snapshot, _ = await reader.snapshot(CTX, "t", as_of)
        table = await reader.read(snapshot)
        files = [file for file in snapshot.files if file.content in (ROWS, KEYS)]
        balance = told(files)
        assert balance is not None
        assert balance.hash_text == format_hash(rows_hash(table, snapshot.dataset.schema))
        assert snapshot.dataset.row_count == table.num_rows == balance.rows
        rows = table.to_pylist()
        found = {(row["place"], row["n"]): row for row in rows}
        assert len(found) == len(rows), "a key can be seen twice"
        return found

    async def journal(self) -> list[dict[str, Any]]:
        """All events, each with its version, in their order."""
        result = await self.lake.catalog.journal(CTX, JournalRequest("t"))
        found = []
        for file in result.files:
            for event in (await read(self.lake, file)).to_pylist():
                found.append(event | {"version": event["version"] or file.seq})
        told_ = {event["version"] for event in found}
        assert not told_ & {entry.version for entry in result.entries}
        return sorted(found, key=lambda event: (event["version"], event["ordinal"]))


async def read(lake: Lake, file: DataFile) -> Any:
    paths = await lake.ingest.parts.reader.local([file])
    return pq.read_table(paths[0])


@pytest.fixture
async def lake(tmp_path: Path) -> AsyncIterator[Lake]:
    built = await build_lake(tmp_path, compaction=SETTINGS)
    yield built
    await built.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_rows_their_past_and_their_events_survive(
    seed: int, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    world = World(lake, rng)
    await world.create()
    run = Runner.run

    async def with_others(self: Runner, stand: Stand, one: Any) -> tuple[DataFile, ...]:
        """Others commit while a run is made."""
        made = await run(self, stand, one)
        if rng.random() < 0.5:
            await world.change()
        return made

    monkeypatch.setattr(Runner, "run", with_others)
    strategies = set()
    for _ in range(STEPS):
        await world.change()
        if rng.random() < 0.3:
            before = await world.journal()
            report = await world.compact(full=rng.random() < 0.3)
            strategies |= set(report.strategy.split("+"))
            after = await world.journal()
            kept = [event for event in after if event["version"] <= before[-1]["version"]]
            kept = [event for event in kept if event["kind"] != "batch"]
            assert kept == [event for event in before if event["kind"] != "batch"]
            assert await world.seen() == world.model
    report = await world.compact(full=True)
    assert await world.seen() == world.model, f"seed {seed}"
    for version, model in world.past.items():
        assert await world.seen(AsOf(version=version)) == model, f"seed {seed}, version {version}"
    assert strategies - {"nothing"}, "nothing was ever compacted"


async def test_every_strategy_is_met(lake: Lake) -> None:
    """Or the test above would prove less than it says."""
    world = World(lake, random.Random(1))
    await world.create()
    met = set()
    for step in range(14):
        await world.change()
        if step % 5 == 4:
            met |= set((await world.compact()).strategy.split("+"))
    met |= set((await world.compact(full=True)).strategy.split("+"))
    assert {"minor", "major", "events"} <= met
    assert await world.seen() == world.model
    dataset = (await lake.catalog.get(CTX, c.GetRequest("t"))).dataset
    assert dataset.key_files == 0
    # Folded events are smaller than what they were made of, and may go together once more.
    left = [(await world.compact(full=True)).strategy for _ in range(4)]
    assert left[-1] == "nothing"
    assert set(left) <= {"events", "nothing"}
