"""Clients of the simulated nodes: they ask, wait, lose patience, ask another, and take notes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.ledger import Ledger
from lakehouse.ledger.machine import Committed, JsonObject, Proposal
from lakehouse.testing.simulation.machine import World, change_files
from lakehouse.testing.simulation.process import Process

if TYPE_CHECKING:
    from lakehouse.testing.simulation.world import Simulation

_PATIENCE_SECONDS = 6.0
_ATTEMPTS = 12
_DEFINITE = (ErrorKind.FENCED, ErrorKind.UNAVAILABLE)

Told = tuple[Committed[World] | LakehouseError | None, Ledger[World]]


async def ask(simulation: Simulation, proposal: Proposal[World]) -> Told:
    """Commit at some node that claims the ledger. ``None`` if no answer came in time: the client
    hangs up, which must cancel nothing."""
    while not (ledgers := [node.ledger for node in simulation.nodes if node.ledger]):
        await simulation.pause(0.5)
    ledger = simulation.rng.choice(ledgers)
    call = asyncio.ensure_future(ledger.commit(proposal))
    await asyncio.wait([call], timeout=_PATIENCE_SECONDS * (0.2 + simulation.rng.random()))
    if not call.done():
        call.cancel()
        return None, ledger
    try:
        return call.result(), ledger
    except LakehouseError as error:
        return error, ledger


async def commit_tokens(simulation: Simulation, name: str) -> None:
    """Commit each of a number of tokens once, whatever happens."""
    for number in range(simulation.profile.tokens_each):
        dice = simulation.rng.random()
        token = f"{'refuse-' if dice < 0.05 else ''}{name}-{number}"
        await _commit_token(simulation, token, keyed=dice < 0.8)
        await simulation.pause(0.3)


async def _commit_token(simulation: Simulation, token: str, keyed: bool) -> None:
    book, rng = simulation.book, simulation.rng
    key = f"key-{token}" if keyed else ""
    proposal = simulation.profile.propose(token, key, "body")
    ambiguous = False
    for _ in range(_ATTEMPTS):
        before = book.durable_seq
        answer, ledger = await ask(simulation, proposal)
        if isinstance(answer, Committed):
            book.acknowledge(token, answer, ledger.epoch, before)
            if keyed and rng.random() < 0.3:
                await _ask_again(simulation, token, key)
            return
        if answer is None or answer.kind in (ErrorKind.UNKNOWN, ErrorKind.TIMEOUT):
            ambiguous = True
            if not keyed:
                return
        elif answer.kind is ErrorKind.CONFLICT or rng.random() < 0.2:
            # Whoever was refused for good, and was never left in doubt, may rely on it.
            if not ambiguous and answer.kind in (*_DEFINITE, ErrorKind.CONFLICT):
                book.absent.add(token)
            return
        elif answer.kind not in _DEFINITE:
            book.violate(f"{token} got {answer} {answer.fields}")
        await simulation.pause(0.5)


async def _ask_again(simulation: Simulation, token: str, key: str) -> None:
    """The same key again, perhaps with another body."""
    other = simulation.rng.random() < 0.3
    again = simulation.profile.propose(token, key, "other" if other else "body")
    answer, ledger = await ask(simulation, again)
    if isinstance(answer, Committed):
        if other:
            simulation.book.violate(f"{token} was answered for another body")
        simulation.book.acknowledge(token, answer, ledger.epoch, 0)


async def write_files(simulation: Simulation, name: str) -> None:
    """Open sessions, write objects, name them by commits, drop some, take some back."""
    rng, profile = simulation.rng, simulation.profile
    store = simulation.store(Process(simulation.loop, name))
    for number in range(profile.tokens_each // 2):
        session = f"{name}s{number}"
        if not await _changed(simulation, {"op": "session", "session": session}):
            continue
        for place in range(2):
            key = f"datasets/{session}/d/{place}.parquet"
            try:
                await store.put(key, b"rows", if_absent=True)
            except LakehouseError:
                continue
            # Time for a collector to look at an object that nothing names yet.
            await simulation.pause(2.0 if rng.random() < 0.5 else 0.05)
            await _changed(simulation, {"op": "add", "key": key})
        if rng.random() < 0.7:
            await _changed(simulation, {"op": "end", "session": session})
        await _drop_or_take_back(simulation)


async def _drop_or_take_back(simulation: Simulation) -> None:
    """A file that is live goes; one that was dropped comes back, if a version still retains it."""
    rng = simulation.rng
    states = [node.ledger.state for node in simulation.nodes if node.ledger]
    if not states:
        return
    state = rng.choice(states)
    for key in sorted(state.files)[:1]:
        await _changed(simulation, {"op": "drop", "key": key})
    await simulation.pause(1.0)
    for key in sorted(state.dropped)[:2]:
        await _changed(simulation, {"op": "add", "key": key})


async def _changed(simulation: Simulation, change: JsonObject) -> bool:
    """True if the change was acknowledged within a few attempts."""
    for _ in range(4):
        answer, _ = await ask(simulation, change_files((change,)))
        if isinstance(answer, Committed):
            simulation.book.durable_seq = max(simulation.book.durable_seq, answer.seq)
            return True
        if answer is not None and answer.kind is ErrorKind.CONFLICT:
            return False
        await simulation.pause(0.4)
    return False
