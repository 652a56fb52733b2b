"""The head of the chain as a writer knows it, and what replaying one record does to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from lakehouse.ledger.chain import Slot
from lakehouse.ledger.keys import Key, Keys
from lakehouse.ledger.layout import Layout
from lakehouse.ledger.machine import Machine
from lakehouse.ledger.record import GENESIS, CheckpointRef, Record, WriterInfo, corrupt, sha256_hex

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Head(Generic[S]):
    """The state after record ``n`` (-1: the empty chain); ``sha256`` is that record's.

    ``holder`` is who wrote it, ``None`` after a seal: then nobody holds the ledger.
    """

    state: S
    seq: int = 0
    n: int = -1
    sha256: str = GENESIS
    epoch: int = 0
    ts_us: int = 0
    checkpoint: CheckpointRef | None = None
    holder: WriterInfo | None = None
    min_writer: int = 1

    def after(self, record: Record, sha256: str, state: S) -> Head[S]:
        """The head once ``record`` is in the chain and ``state`` is what it led to."""
        return Head(
            state=state,
            seq=record.last_seq,
            n=record.n,
            sha256=sha256,
            epoch=record.epoch,
            ts_us=max(record.ts_us, self.ts_us),
            checkpoint=record.checkpoint,
            holder=None if record.kind == "seal" else record.writer,
            min_writer=max(record.min_writer, self.min_writer),
        )


def replay(head: Head[S], slot: Slot, machine: Machine[S], layout: Layout) -> Head[S]:
    """The head after ``slot``. Raises ``corrupt`` naming it if it does not follow on ``head``."""
    record = slot.record
    if record.n != head.n + 1 or record.prev != head.sha256:
        raise corrupt("ledger record does not follow the one before it", layout, record.n)
    seqs = [commit.entry.seq for commit in record.commits]
    first = head.seq + 1
    if record.first_seq != first or seqs != list(range(first, first + len(seqs))):
        raise corrupt("ledger record breaks the sequence of versions", layout, record.n)
    if record.epoch < head.epoch:
        raise corrupt("ledger record is of an epoch that had ended", layout, record.n)
    state = head.state
    for commit in record.commits:
        state = machine.apply(state, commit.entry)
    return head.after(record, sha256_hex(slot.data), state)


def remember_keys(keys: Keys, record: Record) -> None:
    """Add the idempotency keys of a record that is in the chain."""
    for commit in record.commits:
        if commit.key_hash:
            entry = commit.entry
            key = Key(commit.key_hash, commit.body_sha256, entry.seq, record.n, entry.ts_us)
            keys.add(key)
