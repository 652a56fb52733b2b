"""What the clients of a simulation were told, and whether the chain agrees."""

from __future__ import annotations

from dataclasses import dataclass, field

from lakehouse.errors import LakehouseError
from lakehouse.ledger.access import Access
from lakehouse.ledger.chain import parse
from lakehouse.ledger.head import Head, replay
from lakehouse.ledger.layout import number_of
from lakehouse.ledger.machine import Committed
from lakehouse.ledger.opening import read_view
from lakehouse.ledger.pack import read_pack
from lakehouse.testing.simulation.bucket import Bucket
from lakehouse.testing.simulation.machine import World, WorldMachine


class Violation(AssertionError):
    """A promise of the ledger was broken."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A token whose commit was answered with ``seq`` by a ledger of ``epoch`` (-1: replayed)."""

    token: str
    seq: int
    epoch: int


@dataclass(slots=True)
class Ledgerbook:
    """Everything anybody was told. ``absent``: tokens whose commit was definitely refused."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    absent: set[str] = field(default_factory=set)
    observed: dict[int, str] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    durable_seq: int = 0
    violations: list[str] = field(default_factory=list)

    def violate(self, what: str) -> None:
        self.violations.append(what)

    def observe(self, seq: int, digest: str, at_least: int = 0) -> None:
        """Somebody read ``digest`` at ``seq``, after ``at_least`` had been acknowledged."""
        if seq < at_least:
            self.violate(f"a reader saw seq {seq} after {at_least} was acknowledged")
        if self.observed.setdefault(seq, digest) != digest:
            self.violate(f"two states at seq {seq}")

    def acknowledge(self, token: str, done: Committed[World], epoch: int, before: int) -> None:
        """A commit was answered; ``before`` was acknowledged when it was asked for."""
        if done.answer.get("token") != token:
            self.violate(f"{token} got the answer of another: {done.answer}")
        if not done.replayed and done.seq <= before:
            self.violate(f"{token} got seq {done.seq} after {before} was acknowledged")
        self.acknowledged.append(Acknowledged(token, done.seq, -1 if done.replayed else epoch))
        self.durable_seq = max(self.durable_seq, done.seq)
        if not done.replayed:
            self.observe(done.seq, done.state.digest)

    def delete(self, key: str, newest: int) -> None:
        """A data object went while ``newest`` was the newest record in the bucket."""
        if key.startswith("datasets/"):
            self.deleted.setdefault(key, newest)


async def check_chain(book: Ledgerbook, access: Access, bucket: Bucket) -> Head[World]:
    """Replay the chain from its first record; raise ``Violation`` for anything that was told and is
    not so. ``access`` is that of a store without faults."""
    machine = WorldMachine()
    try:
        view = await read_view(access, machine)
    except LakehouseError as error:
        raise Violation(f"the chain cannot be read: {error} {error.fields}") from error
    records = await _all_records(access, view.manifest.packs if view.manifest else ())
    head: Head[World] = Head(machine.initial())
    tokens_at: dict[int, str] = {}
    epochs_at: dict[int, int] = {}
    digests = {0: ""}
    for n in range(view.head.n + 1):
        if n not in records:
            raise Violation(f"record {n} is neither in a slot nor in a pack")
        slot = await parse(access, n, records[n])
        state = head.state
        for commit in slot.record.commits:
            entry = commit.entry
            state = machine.apply(state, entry)
            digests[entry.seq] = state.digest
            epochs_at[entry.seq] = slot.record.epoch
            for change in entry.changes:
                if change["op"] == "token":
                    tokens_at[entry.seq] = change["token"]
                _check_deleted(book, change, n)
        head = replay(head, slot, machine, access.layout)
    if head.state != view.head.state or head.seq != view.head.seq:
        raise Violation("the checkpoint and the records disagree")
    _check_told(book, head.state, tokens_at, epochs_at, digests)
    missing = [key for key in head.state.files if key not in bucket.objects]
    if missing:
        raise Violation(f"files are gone that the newest state names: {missing}")
    if book.violations:
        raise Violation("; ".join(book.violations[:5]))
    return head


async def _all_records(access: Access, packs: tuple[object, ...]) -> dict[int, bytes]:
    """Each record once; where a pack has it, the pack's bytes."""
    records: dict[int, bytes] = {}
    keys = await access.list_keys(access.layout.slots)
    for key, data in zip(keys, await access.get_many(keys), strict=True):
        if data is not None:
            records[number_of(key, ".json")] = data
    for pack in packs:
        records |= await read_pack(access, pack)  # type: ignore[arg-type]
    return records


def _check_deleted(book: Ledgerbook, change: dict[str, object], n: int) -> None:
    key = str(change.get("key", ""))
    if change["op"] == "add" and n > book.deleted.get(key, n):
        raise Violation(f"{key} was deleted and then named by record {n}")
    if change["op"] == "drop" and n > book.deleted.get(key, n):
        raise Violation(f"{key} was deleted while it was live, until record {n}")


def _check_told(
    book: Ledgerbook,
    state: World,
    tokens_at: dict[int, str],
    epochs_at: dict[int, int],
    digests: dict[int, str],
) -> None:
    for told in book.acknowledged:
        if tokens_at.get(told.seq) != told.token:
            raise Violation(f"{told.token} was acknowledged at seq {told.seq} and is not there")
        if told.epoch >= 0 and epochs_at[told.seq] != told.epoch:
            raise Violation(f"{told.token} was acknowledged by a writer of another epoch")
    for token, count in state.tokens.items():
        if count != 1:
            raise Violation(f"{token} was committed {count} times")
        if token in book.absent:
            raise Violation(f"{token} was refused and is there")
    for seq, digest in book.observed.items():
        if digests.get(seq) != digest:
            raise Violation(f"a state was read at seq {seq} that never was")
