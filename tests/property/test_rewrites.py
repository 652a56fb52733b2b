"""A rewrite that the catalog takes shows every reader the rows that were there, now and later.

Against a model that knows each row and which key hid it: any files are rewritten to any seq, at
once or after others have committed. What is taken must change nothing that can be seen; runs of
consecutive commits must be taken. Without a rule the same histories must break.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest

from lakehouse.catalogd import rewriting
from lakehouse.catalogd.codec import encode_changes
from lakehouse.catalogd.machine import CatalogMachine
from lakehouse.catalogd.rules import drafted
from lakehouse.catalogd.state import CatalogState
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.machine import Entry
from lakehouse.model import changes as m
from lakehouse.model.dataset import KEYS, ROWS, DataFile
from lakehouse.table.rowhash import format_hash
from support_catalog import create

MACHINE = CatalogMachine()
WORLDS = 250
KEYS_MAX = 4


@dataclass(frozen=True)
class Row:
    """One version of a row. ``hash`` tells it from all others."""

    key: int
    hash: int


@dataclass
class File:
    """``items``: the rows, or of a keys file those that its keys hid."""

    seq: int
    content: str
    items: tuple[Row, ...]


@dataclass
class World:
    dice: random.Random
    state: CatalogState = field(default_factory=CatalogState)
    files: dict[str, File] = field(default_factory=dict)
    rows: dict[int, Row] = field(default_factory=dict)
    serial: int = 0

    def commit(self, *changes: m.Change) -> int:
        seq = self.state.version + 1
        drafted(self.state, seq, changes)
        self.state = MACHINE.apply(self.state, Entry(seq, seq, encode_changes(changes)))
        return seq

    def file(self, content: str, items: tuple[Row, ...], seq: int = 0) -> DataFile:
        self.serial += 1
        key = f"datasets/S/D/{self.serial:06d}.parquet"
        hashed = format_hash(sum(row.hash for row in items) % 2**64)
        return DataFile(key, 1, len(items), "0" * 64, rows_hash=hashed, content=content, seq=seq)

    def change(self) -> None:
        """One commit of upserts and deletes."""
        fresh: list[Row] = []
        hidden: list[Row] = []
        for key in self.dice.sample(range(KEYS_MAX), self.dice.randint(1, 2)):
            old = self.rows.pop(key, None)
            if old is not None:
                hidden.append(old)
            if old is None or self.dice.random() < 0.6:
                self.rows[key] = Row(key, self.dice.getrandbits(64))
                fresh.append(self.rows[key])
        parts = ((ROWS, tuple(fresh)), (KEYS, tuple(hidden)))
        made = {self.file(content, items): items for content, items in parts if items}
        seq = self.commit(m.AddFiles("D", tuple(made), operation="upsert"))
        for file, items in made.items():
            self.files[file.key] = File(seq, file.content, items)

    def seen(self) -> list[int]:
        """The hashes of the rows that can be seen: by the definition, from the files alone."""
        keys = [
            (f.seq, row.key) for f in self.files.values() if f.content == KEYS for row in f.items
        ]
        return sorted(
            row.hash
            for file in self.files.values()
            if file.content == ROWS
            for row in file.items
            if not any(seq > file.seq and key == row.key for seq, key in keys)
        )

    def agrees(self) -> bool:
        """What is seen is what was put, and the catalog counts and orders the same."""
        dataset = self.state.datasets["D"]
        held = {file.key: (file.seq, file.content) for file in dataset.log.visible()}
        assert held == {key: (file.seq, file.content) for key, file in self.files.items()}
        assert dataset.now.entry.row_count == len(self.rows)
        return self.seen() == sorted(row.hash for row in self.rows.values())

    def rewrite(
        self, inputs: list[str], rows_seq: int, keys_seq: int
    ) -> tuple[m.RewriteFiles, dict[str, File]]:
        """Pairs of a row and the key that hid it are left out where both are inside."""
        inside = [self.files[key] for key in inputs]
        rows = [row for file in inside if file.content == ROWS for row in file.items]
        hidden = [row for file in inside if file.content == KEYS for row in file.items]
        parts = (
            (ROWS, rows_seq, tuple(row for row in rows if row not in hidden)),
            (KEYS, keys_seq, tuple(row for row in hidden if row not in rows)),
        )
        made = {self.file(c, items, seq): items for c, seq, items in parts if items}
        new = {file.key: File(file.seq, file.content, items) for file, items in made.items()}
        return m.RewriteFiles("D", tuple(inputs), tuple(made)), new

    def put(self, change: m.RewriteFiles, new: dict[str, File]) -> None:
        before = self.state.datasets["D"].now
        self.commit(change)
        for key in change.keys:
            del self.files[key]
        self.files.update(new)
        after = self.state.datasets["D"].now
        assert after.marks.rows_version == before.marks.rows_version
        assert after.updated_at == before.updated_at

    def run(self) -> tuple[list[str], int]:
        """All files of consecutive commits, and the last of these."""
        seqs = sorted({file.seq for file in self.files.values()})
        low, high = sorted(self.dice.choices(seqs, k=2))
        return [key for key, file in self.files.items() if low <= file.seq <= high], high


def started(seed: int) -> World:
    world = World(random.Random(seed))
    world.commit(m.OpenSession("S", "w", "r"))
    made = create("D", "one")[0]
    assert isinstance(made, m.CreateDataset)
    world.commit(replace(made, primary_key=("id",)))
    for _ in range(world.dice.randint(2, 8)):
        world.change()
    return world


def broken(seed: int) -> bool:
    """Whether some rewrite that was taken changed what is seen."""
    world = started(seed)
    for _ in range(4):
        if not world.files:
            world.change()
            continue
        inputs, high = world.run()
        seqs = [high, high]
        if world.dice.random() < 0.7:
            inputs = world.dice.sample(
                sorted(world.files), world.dice.randint(1, min(4, len(world.files)))
            )
            high = max(world.files[key].seq for key in inputs)
            low = world.dice.choice((1, min(world.files[key].seq for key in inputs)))
            seqs = [
                world.dice.choice((high, world.dice.randint(min(low, high), high))) for _ in "rk"
            ]
        change, new = world.rewrite(inputs, *seqs)
        for _ in range(world.dice.randint(0, 2)):
            world.change()
        with suppress(LakehouseError):
            world.put(change, new)
        for _ in range(world.dice.randint(0, 2)):
            if not world.agrees():
                return True
            world.change()
        if not world.agrees():
            return True
    return False


def test_what_is_taken_changes_nothing_that_can_be_seen() -> None:
    first = random.randrange(1 << 30)
    print("seed", first)
    assert [seed for seed in range(first, first + WORLDS) if broken(seed)] == []


def test_runs_of_consecutive_commits_are_taken_whatever_came_meanwhile() -> None:
    first = random.randrange(1 << 30)
    print("seed", first)
    for seed in range(first, first + 60):
        world = started(seed)
        for _ in range(4):
            inputs, high = world.run()
            change, new = world.rewrite(inputs, high, high)
            for _ in range(world.dice.randint(0, 2)):
                world.change()
            world.put(change, new)
            assert world.agrees()
            world.change()


def _nothing(*_: object) -> None:
    return None


@pytest.mark.parametrize("rule", ["_check_span", "_check_order", "_check_seqs"])
def test_without_a_rule_rows_come_back_or_go(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    monkeypatch.setattr(rewriting, rule, _nothing)
    judged: Callable[[int], bool] = broken_with_later if rule == "_check_seqs" else broken
    assert any(judged(seed) for seed in range(WORLDS))


def broken_with_later(seed: int) -> bool:
    """As ``broken``, of outputs that claim to be later than all their inputs."""
    world = started(seed)
    inputs, high = world.run()
    change, new = world.rewrite(inputs, high + 9, high + 9)
    with suppress(LakehouseError):
        world.put(change, new)
    for _ in range(3):
        world.change()
    return not world.agrees()


def test_rows_that_were_left_out_or_kept_wrongly_are_found() -> None:
    """By their number, and where it is the same by their hash."""
    for seed in range(40):
        world = started(seed)
        inputs, high = world.run()
        change, _ = world.rewrite(inputs, high, high)
        if not change.files:
            continue
        first, *rest = change.files
        fewer = replace(first, rows=first.rows - 1)
        other = replace(first, rows_hash=format_hash(7))
        for wrong, said in ((fewer, "other rows"), (other, "another hash")):
            with pytest.raises(LakehouseError, match=said) as caught:
                world.commit(replace(change, files=(wrong, *rest)))
            assert caught.value.kind is ErrorKind.INVALID
