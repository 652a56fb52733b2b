"""One run of a plan: its inputs read, checked and made into outputs that lie in the bucket."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, ParamSpec, Protocol, TypeVar

from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.compaction.balance import Balance, check_same, same_values, told
from lakehouse.ingestd.compaction.events import fold_events
from lakehouse.ingestd.compaction.folding import fold_stretch
from lakehouse.ingestd.compaction.inputs import Input
from lakehouse.ingestd.compaction.planning import (
    EVENTS_RUN,
    FILES,
    MAJOR,
    MINOR,
    Run,
    decoded_bytes,
)
from lakehouse.ingestd.compaction.rewriting import Concatenation, Rewrite, Scratch
from lakehouse.ingestd.compaction.spilling import Budget
from lakehouse.ingestd.compaction.uploading import upload
from lakehouse.ingestd.parquet_out import LocalParquet
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.rows.writing import Piece
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import EVENTS, KEYS, ROWS, DataFile, Dataset, VersionEntry
from lakehouse.model.identity import Context
from lakehouse.model.schema import Schema
from lakehouse.objectstore.readcache import ReadCache
from lakehouse.table.events import EVENT_COLUMNS

__all__ = ["Runner", "Stand"]

P = ParamSpec("P")
R = TypeVar("R")
_FETCHES_MAX: Final = 16
_TOGETHER_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Stand:
    """What a compaction starts from. ``entries``: version entries that no event object tells yet,
    to be told by the first run of events; ``session_id``: what is written under."""

    ctx: Context
    snapshot: DatasetSnapshot
    session_id: str
    entries: tuple[VersionEntry, ...] = ()

    @property
    def dataset(self) -> Dataset:
        return self.snapshot.dataset


class _Taking(Protocol):
    def take(self, inputs: Sequence[Input]) -> None: ...

    def finish(self) -> list[LocalParquet]: ...

    def abandon(self) -> None: ...


@dataclass(slots=True)
class _Made:
    """Finished files of a run on their way into the bucket, for as long as one is missing."""

    folder: Path
    locals: list[LocalParquet]
    uploaded: list[DataFile] = field(default_factory=list)


class Runner:
    """Does the runs of one dataset; ``close`` lets all scratch go.

    What a run has come to is kept for the session under which it was written, so that another
    attempt with the same inputs goes on from there.

    Args:
        folder: for this runner alone; made when it is needed.
        jobs: threads for the work; ``stop``: set when it is to end soon.
    """

    def __init__(
        self, parts: RowParts, folder: Path, jobs: ThreadPoolExecutor, stop: threading.Event
    ) -> None:
        self._parts = parts
        self._settings = parts.settings.compaction
        self._folder = folder
        self._jobs = jobs
        self._stop = stop
        half = self._settings.spill_bytes_max // 2
        self._budget = Budget(half, self._check)
        # Copies of the inputs, as much again as what is made of them.
        self._cache = ReadCache(
            folder / "inputs",
            half,
            parts.buckets,
            _FETCHES_MAX,
            parts.known,
            "compaction.spill_bytes_max",
        )
        self._kept: dict[tuple[str, ...], tuple[DataFile, ...]] = {}
        self._made: dict[tuple[str, ...], _Made] = {}
        self.bytes_read = 0
        self.bytes_written = 0

    def close(self) -> None:
        """Let go of all that lies on disk; idempotent."""
        self._cache.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def run(self, stand: Stand, run: Run) -> tuple[DataFile, ...]:
        """The outputs of ``run``, in the bucket. Raises ``corrupt`` where rows do not balance,
        ``exhausted`` where the disk is full, ``unavailable`` where a bucket does not answer."""
        told_now = [str(entry.version) for entry in stand.entries]
        schema = str(stand.dataset.schema.id)
        known = (run.strategy, stand.session_id, schema, *told_now, *run.keys)
        if known not in self._kept:
            work = {
                MINOR: self._minor,
                EVENTS_RUN: self._events,
                MAJOR: self._rewritten,
                FILES: self._rewritten,
            }[run.strategy]
            files = await work(stand, run, known)
            self.bytes_written += sum(file.size_bytes for file in files)
            # Events are found by the seq of their object: it is that of the newest of them.
            seq = max([run.seq, *(entry.version for entry in stand.entries)])
            self._kept[known] = tuple(replace(file, seq=seq) for file in files)
        return self._kept[known]

    async def _minor(self, stand: Stand, run: Run, known: tuple[str, ...]) -> Sequence[DataFile]:
        dataset = stand.dataset
        async with self._inputs(stand, run.inputs) as inputs:
            rows, keys = await self._in_thread(fold_stretch, dataset, inputs)
        # Keys tell hashes of rows as they were when they were hidden: under the oldest schema.
        hashed = min((one.written for one in inputs if one.file.content == KEYS), key=_by_id)
        pieces = [
            Piece(content, table, schema)
            for content, table, schema in ((ROWS, rows, dataset.schema), (KEYS, keys, hashed))
            if table.num_rows
        ]
        files = await self._parts.writer.put_all(stand.ctx, dataset, stand.session_id, pieces)
        self._balanced(stand, run.inputs, files)
        return files

    async def _events(self, stand: Stand, run: Run, known: tuple[str, ...]) -> Sequence[DataFile]:
        dataset = stand.dataset
        async with self._local(run.inputs) as paths:
            pairs = list(zip(run.inputs, paths, strict=True))
            table = await self._in_thread(fold_events, dataset.id, pairs, stand.entries)
        piece = Piece(EVENTS, table, EVENT_COLUMNS)
        files = await self._parts.writer.put_all(stand.ctx, dataset, stand.session_id, [piece])
        told_before = run.rows + len(stand.entries)
        check_same(dataset.name, "events are missing", Balance(told_before), _count(files))
        return files

    async def _rewritten(
        self, stand: Stand, run: Run, known: tuple[str, ...]
    ) -> Sequence[DataFile]:
        dataset = stand.dataset
        await self._parts.buckets.find(stand.ctx, (dataset.bucket,))
        made = self._made.get(known)
        if made is None:
            folder = self._folder / f"run-{len(self._made)}"
            folder.mkdir(parents=True)
            try:
                locals_ = await self._write(stand, run, self._scratch(folder))
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            self._made[known] = made = _Made(folder, locals_)
        for local in made.locals[len(made.uploaded) :]:
            made.uploaded.append(await upload(self._parts, dataset, stand.session_id, local))
        shutil.rmtree(made.folder, ignore_errors=True)
        self._budget.give_back(sum(local.size_bytes for local in made.locals))
        self._balanced(stand, run.inputs, made.uploaded)
        return made.uploaded

    def _scratch(self, folder: Path) -> Scratch:
        return Scratch(folder, self._settings, self._parts.settings, self._budget)

    async def _write(self, stand: Stand, run: Run, scratch: Scratch) -> list[LocalParquet]:
        taking: _Taking
        if run.strategy == MAJOR:
            taking = rewrite = Rewrite(scratch, stand.dataset, run.inputs)
            for file in _largest(run.inputs):
                async with self._inputs(stand, [file]) as inputs:
                    await self._in_thread(rewrite.sample, inputs[0])
            await self._in_thread(rewrite.begin)
        else:
            taking = Concatenation(scratch, stand.dataset)
        try:
            for files in _together(run.inputs, self._settings.memory_bytes // 8):
                async with self._inputs(stand, files) as inputs:
                    await self._in_thread(taking.take, inputs)
            return await self._in_thread(taking.finish)
        except BaseException:
            taking.abandon()
            raise

    def _balanced(
        self, stand: Stand, inputs: Sequence[DataFile], outputs: Sequence[DataFile]
    ) -> None:
        """What the manifest will say after is what it says now."""
        before, after = told(inputs), told(outputs)
        written = {schema.id: schema for schema in stand.snapshot.schemas}
        current = stand.dataset.schema
        exact = all(same_values(written.get(f.schema_id, current), current) for f in inputs)
        if before is None or after is None or not exact:
            before, after = _count(inputs), _count(outputs)
        check_same(stand.dataset.name, "the catalog's sums would change", before, after)

    @asynccontextmanager
    async def _inputs(self, stand: Stand, files: Sequence[DataFile]) -> AsyncIterator[list[Input]]:
        current = stand.dataset.schema
        written = {schema.id: schema for schema in stand.snapshot.schemas}
        async with self._local(files) as paths:
            yield [
                Input(file, path, written.get(file.schema_id, current), current)
                for file, path in zip(files, paths, strict=True)
            ]

    @asynccontextmanager
    async def _local(self, files: Sequence[DataFile]) -> AsyncIterator[list[str]]:
        (self._folder / "inputs").mkdir(parents=True, exist_ok=True)
        with self._cache.held(files):
            paths = (await self._cache.paths(files)).paths
            self.bytes_read += sum(file.size_bytes for file in files)
            yield paths

    async def _in_thread(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        self._check()
        future = asyncio.ensure_future(run_in(self._jobs, function, *args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # The thread stops at its next batch; its files wait for it.
            self._stop.set()
            with contextlib.suppress(Exception):
                await asyncio.wait([future])
            raise

    def _check(self) -> None:
        if self._stop.is_set():
            raise LakehouseError(ErrorKind.UNAVAILABLE, "the compaction was given up")


def _by_id(schema: Schema) -> int:
    return schema.id


def _largest(files: Sequence[DataFile]) -> list[DataFile]:
    """Files with nine tenths of the rows: whose keys tell how all are spread."""
    rows = sorted((file for file in files if file.content == ROWS), key=lambda file: -file.rows)
    missing = sum(file.rows for file in rows) * 9 // 10
    found: list[DataFile] = []
    for file in rows:
        if missing <= 0:
            break
        found.append(file)
        missing -= file.rows
    return found


def _together(files: Sequence[DataFile], bytes_max: int) -> Iterator[list[DataFile]]:
    """Rows, then keys, in their order; small ones side by side, as far as they fit."""
    group: list[DataFile] = []
    size = 0
    for file in sorted(files, key=lambda file: file.content, reverse=True):
        decoded = decoded_bytes(file)
        fits = size + decoded <= bytes_max and len(group) < _TOGETHER_MAX
        if group and not (fits and group[0].content == file.content):
            yield group
            group, size = [], 0
        group.append(file)
        size += decoded
    if group:
        yield group


def _count(files: Sequence[DataFile]) -> Balance:
    return Balance(sum(-file.rows if file.content == KEYS else file.rows for file in files))
