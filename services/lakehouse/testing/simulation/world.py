"""One simulated history: nodes that fight over a ledger, clients, a reader, trouble, a verdict."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.access import Access
from lakehouse.ledger.layout import Layout, number_of
from lakehouse.ledger.ledger import Ledger, OpenOptions, WriterInfo, open_ledger
from lakehouse.ledger.machine import Proposal
from lakehouse.ledger.opening import read_view
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.objectstore.port import ObjectStore
from lakehouse.testing.clocks import SeededIds
from lakehouse.testing.simulation import clients
from lakehouse.testing.simulation.bucket import NO_FAULTS, Bucket, Faults, SimulatedStore
from lakehouse.testing.simulation.collecting import collect_condemned
from lakehouse.testing.simulation.ledgerbook import Ledgerbook, Violation, check_chain
from lakehouse.testing.simulation.loop import SimulatedLoop, run_simulated
from lakehouse.testing.simulation.machine import World, WorldMachine, add_token
from lakehouse.testing.simulation.process import Process, SimulatedClock

SETTINGS = LedgerSettings(
    fold_records=7,
    unfolded_records_max=14,
    group_commits_max=8,
    queue_max=32,
    inline_bytes_max=150,  # so that groups of three or more go through a body object
    append_budget_seconds=3.0,
    backoff_seconds=0.05,
    backoff_seconds_max=0.5,
    keys_max=1000,
    records_kept=2,
    hedge_seconds_min=0.3,
)

CollectObjects = Callable[["Node", Ledger[World], ObjectStore, SimulatedClock], Awaitable[None]]
MakeProposal = Callable[[str, str, str], Proposal[World]]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a history is made of; times are virtual seconds.

    Attributes:
        trouble_seconds: mean time between a stop or a kill of some node.
        propose: makes the proposal of (token, key hash, body hash).
        collect_objects: how nodes collect data objects; None if they do not.
    """

    nodes: int = 3
    clients: int = 3
    tokens_each: int = 5
    file_writers: int = 2
    seconds: float = 36.0
    trouble_seconds: float = 3.0
    stop_seconds: float = 15.0
    collect_seconds: float = 2.0
    faults: Faults = Faults()
    settings: LedgerSettings = SETTINGS
    propose: MakeProposal = add_token
    collect_objects: CollectObjects | None = collect_condemned


@dataclass(slots=True)
class Simulation:
    """What all parts of one history share."""

    loop: SimulatedLoop
    rng: random.Random
    profile: Profile
    bucket: Bucket = field(default_factory=Bucket)
    book: Ledgerbook = field(default_factory=Ledgerbook)
    nodes: list[Node] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    over: bool = False

    def store(self, process: Process, faults: Faults | None = None) -> SimulatedStore:
        rng = random.Random(self.rng.getrandbits(64))
        return SimulatedStore(self.bucket, process, rng, faults or self.profile.faults)

    def access(self, process: Process, faults: Faults | None = None) -> Access:
        """A way to the ledger for a reader."""
        clock = SimulatedClock(self.loop, process)
        ids = SeededIds(self.rng.getrandbits(32))
        return Access(self.store(process, faults), Layout(), clock, ids, self.profile.settings)

    def on_delete(self, key: str) -> None:
        """Note what the newest record was when an object went."""
        slots = self.bucket.list("_catalog/c/", "", 1)
        self.book.delete(key, number_of(slots[0].key, ".json") if slots else -1)

    async def pause(self, mean_seconds: float) -> None:
        """Wait for about ``mean_seconds``."""
        await asyncio.sleep(self.rng.random() * 2 * mean_seconds)


class Node:
    """A machine that starts the ledger's process again and again."""

    def __init__(self, simulation: Simulation, name: str) -> None:
        self.simulation = simulation
        self.name = name
        self.process = Process(simulation.loop, name)
        self.clock = SimulatedClock(simulation.loop, self.process)
        self.ledger: Ledger[World] | None = None
        self._incarnation = 0

    async def run(self) -> None:
        """Live, die, start again."""
        while not self.simulation.over:
            self._incarnation += 1
            self.process = Process(self.simulation.loop, self.name)
            self.simulation.processes.append(self.process)
            skew = self.simulation.rng.uniform(-30, 30)
            self.clock = SimulatedClock(self.simulation.loop, self.process, skew)
            life = asyncio.ensure_future(self._live(self.process, self.clock))
            await asyncio.wait([life, self.process.died], return_when=asyncio.FIRST_COMPLETED)
            self.ledger = None
            await self.simulation.pause(1.5)

    async def _live(self, process: Process, clock: SimulatedClock) -> None:
        simulation = self.simulation
        store = simulation.store(process)
        ids = SeededIds(simulation.rng.getrandbits(64))
        while process.alive:
            writer = WriterInfo(f"{self.name}-{self._incarnation}", "simulated")
            options = OpenOptions(settings=simulation.profile.settings)
            try:
                ledger = await open_ledger(store, WorldMachine(), writer, clock, ids, options)
            except LakehouseError as error:
                if error.kind is ErrorKind.CORRUPT:
                    simulation.book.violate(f"opening found damage: {error} {error.fields}")
                await clock.sleep(simulation.rng.random() * 4)
                continue
            self.ledger = ledger
            collecting = asyncio.ensure_future(self._collect(ledger, store, clock))
            await self._watch(ledger, clock)
            self.ledger = None
            collecting.cancel()
            await ledger.close()
            await clock.sleep(3 + simulation.rng.random() * 14)

    async def _watch(self, ledger: Ledger[World], clock: SimulatedClock) -> None:
        """Until the ledger is another's; now and then stop of one's own will."""
        while True:
            await clock.sleep(0.7)
            try:
                await ledger.check_authority()
            except LakehouseError as error:
                if error.kind is ErrorKind.FENCED:
                    return
                continue
            self.simulation.book.observe(ledger.seq, ledger.state.digest)
            if self.simulation.rng.random() < 0.01:
                return

    async def _collect(
        self, ledger: Ledger[World], store: ObjectStore, clock: SimulatedClock
    ) -> None:
        profile, rng = self.simulation.profile, self.simulation.rng
        while True:
            await clock.sleep(rng.random() * 2 * profile.collect_seconds)
            try:
                if profile.collect_objects is not None and rng.random() < 0.5:
                    await profile.collect_objects(self, ledger, store, clock)
                else:
                    await ledger.collect_records()
            except LakehouseError as error:
                if error.kind in (ErrorKind.CORRUPT, ErrorKind.INTERNAL):
                    self.simulation.book.violate(f"collecting: {error} {error.fields}")


async def _trouble(simulation: Simulation) -> None:
    rng, profile = simulation.rng, simulation.profile
    while True:
        await simulation.pause(profile.trouble_seconds)
        holders = [node for node in simulation.nodes if node.ledger]
        node = rng.choice(holders if holders and rng.random() < 0.6 else simulation.nodes)
        process, dice = node.process, rng.random()
        if dice < 0.35:
            process.kill()
        elif dice < 0.9:
            process.stop()
            simulation.loop.call_later(rng.random() * profile.stop_seconds, process.wake)
        else:
            node.clock.skew_seconds += rng.uniform(-60, 60)


async def _read(simulation: Simulation) -> None:
    """A person with a script, again and again."""
    process = Process(simulation.loop, "reader")
    access = simulation.access(process)
    while not simulation.over:
        await simulation.pause(8.0)
        before = simulation.book.durable_seq
        try:
            view = await read_view(access, WorldMachine())
        except LakehouseError as error:
            if error.kind is ErrorKind.CORRUPT:
                simulation.book.violate(f"a reader found damage: {error} {error.fields}")
            continue
        simulation.book.observe(view.head.seq, view.head.state.digest, before)


async def _history(simulation: Simulation) -> int:
    profile = simulation.profile
    simulation.bucket.on_delete = simulation.on_delete
    simulation.nodes = [Node(simulation, f"node{i}") for i in range(profile.nodes)]
    running = [asyncio.ensure_future(node.run()) for node in simulation.nodes]
    running += [asyncio.ensure_future(_trouble(simulation))]
    running += [asyncio.ensure_future(_read(simulation))]
    work = [
        asyncio.ensure_future(clients.commit_tokens(simulation, f"c{i}"))
        for i in range(profile.clients)
    ]
    work += [
        asyncio.ensure_future(clients.write_files(simulation, f"f{i}"))
        for i in range(profile.file_writers)
    ]
    await asyncio.wait(work, timeout=profile.seconds)
    simulation.over = True
    for task in (*running, *work):
        if task.done() and not task.cancelled():
            task.result()
        task.cancel()
    for node in simulation.nodes:
        node.process.kill()
    await asyncio.sleep(profile.faults.late_seconds + profile.faults.slow_seconds)
    access = simulation.access(Process(simulation.loop, "judge"), NO_FAULTS)
    try:
        head = await check_chain(simulation.book, access, simulation.bucket)
    except LakehouseError as error:
        raise Violation(f"the chain cannot be read: {error} {error.fields}") from error
    return head.seq


def simulate(seed: int, profile: Profile = Profile()) -> Simulation:
    """Play the history of ``seed`` and judge it; raises ``Violation``, or whatever a part of it
    raised that it should not have."""

    async def main(loop: SimulatedLoop) -> Simulation:
        simulation = Simulation(loop, random.Random(seed), profile)
        await _history(simulation)
        return simulation

    return run_simulated(seed, main)
