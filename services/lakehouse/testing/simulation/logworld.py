"""One simulated history of an append log: writers, compactors, retention, a reader, a verdict."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lakehouse.appendlog.compaction import Compactor
from lakehouse.appendlog.event import micros_of
from lakehouse.appendlog.layout import LogLayout
from lakehouse.appendlog.log import AppendLog, open_log
from lakehouse.appendlog.objects import LogObjects
from lakehouse.appendlog.reading import Damage, LogReader, Window
from lakehouse.appendlog.settings import LogSettings, SpoolBounds
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger import floor
from lakehouse.ledger.access import Access
from lakehouse.objectstore.port import ObjectMeta
from lakehouse.testing.clocks import SeededIds
from lakehouse.testing.simulation.bucket import NO_FAULTS, Bucket, Faults, SimulatedStore
from lakehouse.testing.simulation.ledgerbook import Violation
from lakehouse.testing.simulation.logbook import Logbook
from lakehouse.testing.simulation.loop import SimulatedLoop, run_simulated
from lakehouse.testing.simulation.process import Process, SimulatedClock

PREFIX = "_errors/log"
SETTINGS = LogSettings(
    batch_events_max=3,
    append_budget_seconds=3.0,
    flush_seconds=0.4,
    spool=SpoolBounds(segment_events_max=3),
    ring_batches=2,
    slots_kept=1,
    merge_fan=2,
    merged_batches_max=16,
    backoff_seconds_max=0.5,
    hedge_seconds_min=0.3,
)


@dataclass(frozen=True, slots=True)
class LogProfile:
    """What a history is made of; times are virtual seconds.

    Attributes:
        spooled_seconds: an offered event whose process lives on that long must not be lost.
        retain_seconds: mean time between two runs of retention; 0 for none.
        doze_seconds: for so long at most a compactor is stopped between planning and reading, in
            every second run: where it hurts most.
    """

    nodes: int = 2
    compactors: int = 2
    appends_each: int = 8
    seconds: float = 25.0
    trouble_seconds: float = 2.5
    stop_seconds: float = 15.0
    compact_seconds: float = 1.0
    retain_seconds: float = 8.0
    doze_seconds: float = 0.0
    spooled_seconds: float = 0.25
    faults: Faults = Faults()
    settings: LogSettings = SETTINGS


class WatchedBucket(Bucket):
    """Tells the book of each object that is made."""

    def __init__(self, book: Logbook) -> None:
        super().__init__()
        self._book = book

    def put(self, key: str, data: bytes, if_absent: bool) -> ObjectMeta:
        meta = super().put(key, data, if_absent)
        self._book.put(key, data)
        return meta


@dataclass(slots=True)
class LogSimulation:
    """What all parts of one history share."""

    loop: SimulatedLoop
    rng: random.Random
    profile: LogProfile
    folder: Path
    layout: LogLayout = field(default_factory=lambda: LogLayout(PREFIX))
    book: Logbook = field(init=False)
    bucket: WatchedBucket = field(init=False)
    alive: list[Process] = field(default_factory=list)
    watching: list[asyncio.Future[None]] = field(default_factory=list)
    over: bool = False

    def __post_init__(self) -> None:
        self.book = Logbook(self.layout)
        self.bucket = WatchedBucket(self.book)

    def access(self, process: Process, faults: Faults | None = None) -> Access:
        clock = SimulatedClock(self.loop, process, self.rng.uniform(-20, 20))
        rng = random.Random(self.rng.getrandbits(64))
        store = SimulatedStore(self.bucket, process, rng, faults or self.profile.faults)
        ids = SeededIds(self.rng.getrandbits(64))
        return Access(store, self.layout, clock, ids, self.profile.settings.chain())

    async def pause(self, mean_seconds: float) -> None:
        await asyncio.sleep(self.rng.random() * 2 * mean_seconds)

    async def live(self, name: str, life: Callable[[Process], Awaitable[None]]) -> None:
        """Run ``life`` again and again, each time in a process that may die at any request."""
        number = 0
        while not self.over:
            number += 1
            process = Process(self.loop, f"{name}-{number}")
            self.alive.append(process)
            task = asyncio.ensure_future(life(process))
            try:
                await asyncio.wait([task, process.died], return_when=asyncio.FIRST_COMPLETED)
                if process.alive:
                    await task
            finally:
                self.alive.remove(process)
                process.kill()
                task.cancel()  # it may have been about to open its log
            await self.pause(1.0)


async def _write(simulation: LogSimulation, name: str, process: Process) -> None:
    """One life of a writer: open, append and offer, close."""
    access, rng = simulation.access(process), simulation.rng
    settings = replace(simulation.profile.settings, spool_folder=str(simulation.folder / name))
    log = await open_log(access.store, PREFIX, process.name, access.clock, access.ids, settings)
    process.died.add_done_callback(lambda _: log.abandon())
    workers = [
        asyncio.ensure_future(_append(simulation, process, log, f"{process.name}-{place}"))
        for place in range(2)
    ]
    workers.append(asyncio.ensure_future(_offer(simulation, process, log)))
    await asyncio.wait(workers)
    for worker in workers:
        worker.result()
    await log.close(rng.random() * 3)


async def _append(simulation: LogSimulation, process: Process, log: AppendLog, name: str) -> None:
    rng, book = simulation.rng, simulation.book
    for number in range(simulation.profile.appends_each):
        tokens = [f"{name}-{number}-{place}" for place in range(rng.choice((1, 1, 2, 5)))]
        newest = book.newest
        try:
            done = await log.append([{"token": token} for token in tokens])
        except LakehouseError as error:
            if process.alive and error.kind is not ErrorKind.UNKNOWN:
                book.absent.update(tokens)
            if error.kind in (ErrorKind.CORRUPT, ErrorKind.INTERNAL, ErrorKind.FENCED):
                book.violate(f"append: {error} {error.fields}")
        else:
            if done.first_seq // 65_536 <= newest:
                book.violate(f"{tokens[0]} was put before what was there when it came")
            book.acknowledged[tokens[0]] = done.first_seq
            book.acknowledged[tokens[-1]] = done.last_seq
        await simulation.pause(0.3)


async def _offer(simulation: LogSimulation, process: Process, log: AppendLog) -> None:
    rng, book = simulation.rng, simulation.book
    for number in range(simulation.profile.appends_each):
        token = f"o-{process.name}-{number}"
        accepted = log.offer([{"token": token, "id": token}])
        if rng.random() < 0.2:
            log.offer([{"token": token, "id": token}])
        if accepted:
            book.offered[token] = False
            simulation.watching.append(
                asyncio.ensure_future(_must_be_there(simulation, process, token))
            )
        await simulation.pause(0.3)


async def _must_be_there(simulation: LogSimulation, process: Process, token: str) -> None:
    """An offered event must not be lost once its process has run on for a while."""
    clock = SimulatedClock(simulation.loop, process)
    # Twice: whoever was stopped in one half runs through the other.
    await clock.sleep(simulation.profile.spooled_seconds)
    await clock.sleep(simulation.profile.spooled_seconds)
    simulation.book.offered[token] = True


class DozingCompactor(Compactor):
    """Stopped for a while when it is about to read what it planned to merge."""

    doze_seconds = 0.0

    async def _read_slots(self, numbers: Sequence[int]) -> list[bytes]:
        if self.doze_seconds:
            await self._access.clock.sleep(self.doze_seconds)
        return await super()._read_slots(numbers)


async def _compact(simulation: LogSimulation, process: Process) -> None:
    """One life of a compactor, which retains now and then."""
    access, profile, rng = simulation.access(process), simulation.profile, simulation.rng
    while not simulation.over:
        await access.clock.sleep(rng.random() * 2 * profile.compact_seconds)
        compactor = DozingCompactor(access, simulation.layout, profile.settings)
        compactor.doze_seconds = rng.choice((0.0, rng.random() * profile.doze_seconds))
        share = profile.compact_seconds / profile.retain_seconds if profile.retain_seconds else 0.0
        try:
            if rng.random() < share:
                await compactor.retain(access.clock.now_us() - int(rng.random() * 20e6))
            else:
                report = await compactor.compact(dry_run=rng.random() < 0.1)
                if report.damaged:
                    simulation.book.violate(f"a compactor found damage: {report.damaged}")
        except LakehouseError as error:
            if error.kind in (ErrorKind.CORRUPT, ErrorKind.INTERNAL):
                simulation.book.violate(f"compacting: {error} {error.fields}")


async def _read(simulation: LogSimulation) -> None:
    access = simulation.access(Process(simulation.loop, "reader"))
    settings, book = simulation.profile.settings, simulation.book

    def damaged(damage: Damage) -> None:
        book.violate(f"a reader found damage: {damage}")

    reader = LogReader(access, simulation.layout, settings, damaged)
    while not simulation.over:
        await simulation.pause(2.0)
        first = simulation.rng.randrange(book.newest + 2) if simulation.rng.random() < 0.3 else 0
        backwards = simulation.rng.random() < 0.3
        last, shown = book.newest, []
        try:
            window = Window(after_seq=first * 65_536, newest_first=backwards)
            async for one in reader.scan(window):
                shown.append((one.seq, str(one.event["token"])))
        except LakehouseError as error:
            if error.kind in (ErrorKind.CORRUPT, ErrorKind.INTERNAL):
                book.violate(f"reading: {error} {error.fields}")
            continue
        book.read.append((first, last, shown[::-1] if backwards else shown))


async def _trouble(simulation: LogSimulation) -> None:
    rng, profile = simulation.rng, simulation.profile
    while not simulation.over:
        await simulation.pause(profile.trouble_seconds)
        if not simulation.alive:
            continue
        process = rng.choice(simulation.alive)
        if rng.random() < 0.4:
            process.kill()
        else:
            process.stop()
            simulation.loop.call_later(rng.random() * profile.stop_seconds, process.wake)


async def _history(simulation: LogSimulation) -> None:
    profile = simulation.profile

    def writer(name: str) -> Callable[[Process], Awaitable[None]]:
        return lambda process: _write(simulation, name, process)

    tasks = [
        asyncio.ensure_future(simulation.live(f"w{i}", writer(f"w{i}")))
        for i in range(profile.nodes)
    ]
    tasks += [
        asyncio.ensure_future(simulation.live(f"k{i}", lambda p: _compact(simulation, p)))
        for i in range(profile.compactors)
    ]
    tasks += [asyncio.ensure_future(_read(simulation)), asyncio.ensure_future(_trouble(simulation))]
    await asyncio.wait(tasks, timeout=profile.seconds)
    simulation.over = True
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()
        task.cancel()
    # What is still under way arrives; a process that was stopped never wakes.
    await asyncio.sleep(profile.faults.late_seconds + profile.faults.slow_seconds)


async def judge(simulation: LogSimulation) -> None:
    """The last to start takes over every spool; then what is there is compared with what was told,
    and what a search by time shows with what there is."""
    process = Process(simulation.loop, "judge")
    access, settings = simulation.access(process, NO_FAULTS), simulation.profile.settings
    for name in sorted(path.name for path in simulation.folder.iterdir()):
        spooled = replace(settings, spool_folder=str(simulation.folder / name))
        log = await open_log(access.store, PREFIX, "judge", access.clock, access.ids, spooled)
        await log.flush()
        await log.close()
    await Compactor(access, simulation.layout, settings).compact(dry_run=False)
    damages: list[Damage] = []
    reader = LogReader(access, simulation.layout, settings, damages.append)
    shown = [one async for one in reader.scan(Window())]
    retained = await LogObjects(access, simulation.layout).retained()
    if damages:
        simulation.book.violate(f"damage at the end: {damages[:3]}")
    simulation.book.check(retained, shown)
    if await floor.read_floor(access) < retained:
        raise Violation("slots that were given up are above the floor")
    times = sorted(str(one.event["at"]) for one in shown)
    for _ in range(3 if times else 0):
        since, until = sorted(simulation.rng.choice(times) for _ in range(2))
        window = Window(micros_of(since), micros_of(until))
        found = [one.seq async for one in reader.scan(window)]
        if found != [one.seq for one in shown if since <= str(one.event["at"]) < until]:
            raise Violation(f"a search from {since} to {until} is wrong")


def simulate_log(seed: int, folder: Path, profile: LogProfile = LogProfile()) -> LogSimulation:
    """Play the history of ``seed``, with spools below ``folder`` (empty), and judge it; raises
    ``Violation``, or whatever a part of it raised that it should not have."""

    async def main(loop: SimulatedLoop) -> LogSimulation:
        simulation = LogSimulation(loop, random.Random(seed), profile, folder)
        await _history(simulation)
        await judge(simulation)
        return simulation

    # Tasks of dead processes wait for ever; when they are collected must not depend on chance.
    gc.disable()
    try:
        return run_simulated(seed, main)
    finally:
        gc.enable()
