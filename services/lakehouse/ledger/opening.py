"""Reading the chain from its newest record, and taking it over with an ``open`` record."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.ledger import chain
from lakehouse.ledger.access import Access
from lakehouse.ledger.chain import Append, Latencies, Outcome, Slot, record_claim
from lakehouse.ledger.checkpoint import Loaded, Manifest, load_checkpoint
from lakehouse.ledger.head import Head, remember_keys, replay
from lakehouse.ledger.keys import Keys
from lakehouse.ledger.lost import refuse_lost
from lakehouse.ledger.machine import Machine
from lakehouse.ledger.options import OpenOptions
from lakehouse.ledger.pack import PackRef
from lakehouse.ledger.record import (
    CheckpointRef,
    Record,
    WriterInfo,
    check_writable,
    corrupt,
    encode,
)
from lakehouse.ledger.recovery import DAMAGE, beyond_repair, find_records, older_checkpoint

log = logging.getLogger(__name__)

S = TypeVar("S")

_RESTARTS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class View(Generic[S]):
    """The chain as read at one moment.

    Attributes:
        manifest: of the checkpoint that the newest record names, ``None`` if there is none or it
            is damaged.
        packs: what the checkpoint names or, if that is damaged, what was found.
        damage: of that checkpoint, in words; "" for none. ``head`` is whole all the same.
    """

    head: Head[S]
    keys: Keys
    manifest: Manifest | None = None
    packs: tuple[PackRef, ...] = ()
    damage: str = ""


class _DamagedCheckpointError(LakehouseError):
    """The checkpoint that the newest record names, told apart from damage of a record."""


async def read_view(access: Access, machine: Machine[S]) -> View[S]:
    """Newest record, its checkpoint and the records between, verified.

    Raises ``corrupt`` naming the slot for a gap, a bad checksum or a record that does not follow.
    What a collector removes meanwhile starts the reading again. Past a damaged checkpoint an older
    one or all records are read, with a warning.
    """
    newest = await access.patiently(lambda: chain.newest(access))
    for _ in range(_RESTARTS_MAX):
        try:
            return await _read_from(access, machine, newest)
        except LakehouseError as error:
            if error.kind not in (ErrorKind.CORRUPT, ErrorKind.NOT_FOUND):
                raise
            again = await access.patiently(lambda: chain.newest(access))
            if again == newest:
                if isinstance(error, _DamagedCheckpointError) and newest is not None:
                    return await _read_past(access, machine, newest, error)
                if error.kind is ErrorKind.CORRUPT:
                    raise
                raise _missing(error) from error
            newest = again
    raise LakehouseError(ErrorKind.UNAVAILABLE, "the ledger moves faster than it can be read")


def _missing(error: LakehouseError) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CORRUPT,
        "an object that the ledger names is missing",
        **{"hint": "nothing is written to a damaged chain; restore it", **error.fields},
    )


async def _read_from(access: Access, machine: Machine[S], newest: int | None) -> View[S]:
    if newest is None:
        return View(Head(machine.initial()), _no_keys(access))
    last = await chain.read_slot(access, newest)
    checkpoint = last.record.checkpoint
    first = 0 if checkpoint is None else checkpoint.n + 1
    slots, loaded = await asyncio.gather(
        _read_tail(access, range(first, newest)), _load(access, machine, checkpoint)
    )
    head, keys = await _start(access, machine, checkpoint, loaded)
    for slot in (*slots, last):
        head = replay(head, slot, machine, access.layout)
        remember_keys(keys, slot.record)
        await asyncio.sleep(0)
    manifest = None if loaded is None else loaded.manifest
    return View(head, keys, manifest, () if manifest is None else manifest.packs)


async def _read_past(
    access: Access, machine: Machine[S], newest: int, damage: LakehouseError
) -> View[S]:
    """As ``_read_from``, without the checkpoint that ``damage`` is about."""
    key = str(damage.fields.get("key", ""))
    log.error(
        "the newest checkpoint of the ledger is damaged: replaying older records instead",
        extra={"key": key, "reason": damage.message},
    )
    try:
        records = await find_records(access)
        older = await older_checkpoint(access, machine, records, newest)
        head, keys = await _start(access, machine, *(older or (None, None)))
        for n in range(head.n + 1, newest + 1):
            slot = await records.slot(n)
            head = replay(head, slot, machine, access.layout)
            remember_keys(keys, slot.record)
            await asyncio.sleep(0)
    except LakehouseError as error:
        if error.kind not in DAMAGE:
            raise
        raise beyond_repair(damage, error) from error
    source = f"the checkpoint at record {older[0].n}" if older else "the first record on"
    log.warning("the ledger was replayed and is whole", extra={"source": source})
    return View(
        head, keys, None, records.packs, f"{key} is damaged; the state was replayed from {source}"
    )


def _no_keys(access: Access) -> Keys:
    return Keys(access.settings.keys_max, access.settings.keys_seconds)


async def _start(
    access: Access,
    machine: Machine[S],
    checkpoint: CheckpointRef | None,
    loaded: Loaded[S] | None,
) -> tuple[Head[S], Keys]:
    """Where a replay begins: at ``checkpoint``, or before the first record."""
    keys = _no_keys(access)
    if loaded is None:
        return Head(machine.initial()), keys
    manifest = loaded.manifest
    await run_blocking(keys.restore, loaded.keys)
    head = Head(
        state=loaded.state,
        seq=manifest.seq,
        n=manifest.n,
        sha256=manifest.record_sha256,
        epoch=manifest.epoch,
        ts_us=manifest.ts_us,
        checkpoint=checkpoint,
        min_writer=manifest.min_writer,
    )
    return head, keys


async def _load(
    access: Access, machine: Machine[S], checkpoint: CheckpointRef | None
) -> Loaded[S] | None:
    if checkpoint is None:
        return None
    try:
        return await load_checkpoint(access, machine, checkpoint)
    except LakehouseError as error:
        if error.kind not in DAMAGE:
            raise
        fields = {"key": checkpoint.key, **error.fields}
        raise _DamagedCheckpointError(error.kind, error.message, **fields) from error


async def _read_tail(access: Access, numbers: range) -> list[Slot]:
    """The records ``numbers``; none of them may be missing."""
    slots: list[Slot] = []
    for n, slot in zip(numbers, await chain.read_slots(access, numbers), strict=True):
        if slot is None:
            raise corrupt("a ledger record is missing", access.layout, n)
        slots.append(slot)
    return slots


async def take_over(
    access: Access, machine: Machine[S], writer: WriterInfo, options: OpenOptions
) -> View[S]:
    """Read the chain and append an ``open`` record of the next epoch: from then on this writer
    alone is acknowledged. Raises ``conflict`` naming the holder if it answers."""
    for attempt in range(_RESTARTS_MAX):
        view = await read_view(access, machine)
        check_writable(view.head.min_writer)
        await refuse_lost(access, view.head.n, options)
        await _ask_holder(access, view.head.holder, writer, options)
        record = _open_record(access, view.head, writer)
        encoded = await run_blocking(
            encode, record, access.layout, access.settings.inline_bytes_max
        )
        append = Append(access, record_claim(access, encoded), Latencies())
        outcome = await append.run(access.settings.append_budget_seconds)
        if outcome is Outcome.COMMITTED:
            head = view.head.after(record, encoded.sha256, view.head.state)
            return replace(view, head=head)
        if outcome is Outcome.UNSETTLED:
            break
        await access.clock.sleep(access.backoff_seconds(attempt))
    raise LakehouseError(
        ErrorKind.UNAVAILABLE,
        "the ledger could not be opened",
        hint="the bucket does not answer reliably, or several nodes start at once",
    )


def _open_record(access: Access, head: Head[S], writer: WriterInfo) -> Record:
    return Record(
        n=head.n + 1,
        prev=head.sha256,
        epoch=head.epoch + 1,
        writer=writer,
        put_id=access.ids.ulid(),
        ts_us=max(access.clock.now_us(), head.ts_us),
        first_seq=head.seq + 1,
        kind="open",
        checkpoint=head.checkpoint,
    )


async def _ask_holder(
    access: Access, holder: WriterInfo | None, writer: WriterInfo, options: OpenOptions
) -> None:
    """Return if the ledger may be taken over."""
    probe = options.probe_holder
    if holder is None or options.take_over or holder.writer_id == writer.writer_id:
        return
    if probe is None or not holder.endpoint:
        return
    for attempt in range(access.settings.holder_probes):
        if attempt:
            await access.clock.sleep(access.settings.holder_probe_seconds)
        if await probe(holder):
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "another node holds the ledger and answers",
                holder=holder.writer_id,
                endpoint=holder.endpoint,
                hint="stop that node first, or take over with --take-over",
            )
