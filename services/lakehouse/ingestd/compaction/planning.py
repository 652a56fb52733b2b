"""What to compact: from the files of a dataset to runs of inputs. Pure.

**The rule of seq.** A row of seq s can be seen iff no keys of seq > s name it. What a run makes of
its inputs gets the highest seq of them, b. That shows every reader, now and after any later commit,
what the inputs showed, iff

1. no keys that stay outside have a seq in (s, b] for rows of seq s inside: they would no longer
   hide those rows;
2. no rows that stay outside have a seq in [t, b) for keys of seq t inside: the keys would begin to
   hide them.

A run of *all* rows and keys between two seqs satisfies both, whatever was there before and whatever
is committed later, for later commits have a higher seq than any file of the snapshot. So with a key
a run is such a stretch (``Step`` after ``Step``); rows alone, where a dataset has no keys at all,
go together in any choice. A key that hides a row older than the run is kept; a run from the oldest
step on has none such, so nothing is hidden any more after it (major). An event is told by its
``version``, so for events the rule is empty.

**What pays.** Sizes are tiered: going from new to old, a step joins the run if it is no larger than
twice what is in it already. So a row is written again only together with half as much that came
after it, a number of times that grows with the logarithm of what comes, and as many are left. All
is folded into the rows when the changes reach ``delta_share`` of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.ingestd.compaction.settings import CompactionSettings
from lakehouse.model.dataset import EVENTS, KEYS, ROWS, DataFile

__all__ = [
    "EVENTS_RUN",
    "FILES",
    "MAJOR",
    "MINOR",
    "Plan",
    "Run",
    "Step",
    "plan",
]

MINOR: Final = "minor"
MAJOR: Final = "major"
FILES: Final = "files"
EVENTS_RUN: Final = "events"
_ORDER: Final = (MINOR, MAJOR, FILES, EVENTS_RUN)
_DECODED_RATIO: Final = 4
# More than one: sizes that are nearly the same go together, whichever is the larger.
_RATIO: Final = 2
# An object of few rows is mostly what every Parquet file has.
_OVERHEAD_BYTES: Final = 3_000
# In memory, with its sorted copy.
_EVENT_BYTES: Final = 512
# A share of next to nothing is no reason: some changes must have come together.
_MAJOR_STEPS_MIN: Final = 8
_MAJOR_ROWS_MIN: Final = 100_000


@dataclass(frozen=True, slots=True)
class Step:
    """What one commit, or the fold of some, left of rows and keys. ``size``: rows of both."""

    seq: int
    files: tuple[DataFile, ...]

    @property
    def size(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def changed(self) -> int:
        """Rows that were written or hidden: one that was replaced counts once."""
        keys = sum(file.rows for file in self.files if file.content == KEYS)
        return max(keys, self.size - keys)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def decoded_bytes(self) -> int:
        return sum(map(decoded_bytes, self.files))

    @property
    def has_keys(self) -> bool:
        return any(file.content == KEYS for file in self.files)


@dataclass(frozen=True, slots=True)
class Run:
    """Inputs that are made into few outputs of seq ``seq``. ``expected``: so many outputs."""

    strategy: str
    inputs: tuple[DataFile, ...]
    expected: int = 1

    @property
    def seq(self) -> int:
        return max((file.seq for file in self.inputs), default=0)

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.inputs)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.inputs)

    @property
    def keys(self) -> tuple[str, ...]:
        """Object keys of the inputs."""
        return tuple(file.key for file in self.inputs)


@dataclass(frozen=True, slots=True)
class Plan:
    """Runs that share no input; in one commit. Empty: there is nothing that pays."""

    runs: tuple[Run, ...] = ()

    @property
    def strategy(self) -> str:
        """As in ``CompactReport``."""
        names = {run.strategy for run in self.runs}
        return "+".join(name for name in _ORDER if name in names) or "nothing"

    @property
    def inputs(self) -> tuple[DataFile, ...]:
        return tuple(file for run in self.runs for file in run.inputs)

    @property
    def expected(self) -> int:
        return sum(run.expected for run in self.runs)

    @property
    def expected_keys(self) -> int:
        """Objects with keys that are left of the inputs; a fold of some may need none."""
        folds = [run for run in self.runs if run.strategy == MINOR]
        return sum(any(file.content == KEYS for file in run.inputs) for run in folds)

    @property
    def expected_bytes(self) -> int:
        """Bytes of the outputs, were a row as large after as before."""
        total = 0.0
        for run in self.runs:
            rows = [file for file in run.inputs if file.content != KEYS]
            hidden = run.rows - sum(file.rows for file in rows)
            size, count = sum(file.size_bytes for file in rows), sum(file.rows for file in rows)
            left = max(0, count - hidden) / count if run.strategy == MAJOR and count else 1.0
            total += size * left + (run.size_bytes - size) * (run.strategy == MINOR)
        spared = _OVERHEAD_BYTES * (len(self.inputs) - self.expected)
        return round(max(total - spared, total / 20))


def decoded_bytes(file: DataFile) -> int:
    """What an object takes in memory, by rule of thumb."""
    return _DECODED_RATIO * max(0, file.size_bytes - _OVERHEAD_BYTES) + _DECODED_RATIO * file.rows


def plan(
    snapshot: DatasetSnapshot,
    events: Sequence[DataFile],
    settings: CompactionSettings,
    *,
    full: bool = False,
    fold_rows: bool = True,
    busy: frozenset[str] = frozenset(),
) -> Plan:
    """What to make of what.

    Args:
        snapshot: of the dataset, with all its rows and keys.
        events: the event objects of its journal.
        full: whatever can be folded, not only what pays.
        fold_rows: False where it must be done soon: nothing is folded into the rows.
        busy: keys of objects that somebody compacts at this moment.

    Files outside the dataset's home bucket are let be: rows do not move from one bucket to another
    because somebody tidies up.
    """
    dataset = snapshot.dataset
    tables = [file for file in snapshot.files if file.content in (ROWS, KEYS)]

    def free(file: DataFile) -> bool:
        return file.bucket == dataset.bucket and file.key not in busy

    if any(file.content == KEYS for file in tables):
        runs = _keyed(_steps(tables), free, settings, full, fold_rows)
    else:
        runs = _files(list(filter(free, tables)), settings, full)
    return Plan((*runs, *_events(list(filter(free, events)), settings, full)))


def _steps(files: Iterable[DataFile]) -> list[Step]:
    ordered = sorted(files, key=lambda file: (file.seq, file.ordinal))
    return [Step(seq, tuple(group)) for seq, group in groupby(ordered, key=lambda file: file.seq)]


def _keyed(
    steps: list[Step],
    free: Callable[[DataFile], bool],
    settings: CompactionSettings,
    full: bool,
    fold_rows: bool,
) -> list[Run]:
    runs: list[Run] = []
    for stretch in _stretches(steps, lambda step: not all(map(free, step.files))):
        if fold_rows and stretch[0] is steps[0] and (full or _major_pays(stretch, settings)):
            runs += _major(stretch, settings)
        else:
            runs += _minor(stretch, settings, full)
    return runs


def _major_pays(steps: Sequence[Step], settings: CompactionSettings) -> bool:
    changes = [step for step in steps if step.has_keys]
    changed = sum(step.changed for step in changes)
    others = sum(step.size for step in steps if not step.has_keys)
    many = len(changes) >= _MAJOR_STEPS_MIN or changed >= _MAJOR_ROWS_MIN
    return many and changed >= others * settings.delta_share


def _major(steps: Sequence[Step], settings: CompactionSettings) -> list[Run]:
    inputs = _inputs(steps)
    if not any(file.content == KEYS for file in inputs):
        return _files(inputs, settings, True)
    rows_bytes = sum(file.size_bytes for file in inputs if file.content == ROWS)
    return [Run(MAJOR, inputs, 1 + rows_bytes // settings.file_bytes_target)]


def _minor(steps: Sequence[Step], settings: CompactionSettings, full: bool) -> list[Run]:
    def large(step: Step) -> bool:
        much = step.size > settings.rows_max or step.decoded_bytes > settings.memory_bytes
        return much or not (step.has_keys or _small(step, settings))

    stretches = list(_stretches(steps, large))
    if not full and sum(map(len, stretches)) <= settings.deltas_max:
        return []
    found = []
    for stretch in stretches:
        sizes = [step.size for step in stretch]
        weights = [step.decoded_bytes for step in stretch]
        limits = (settings.rows_max, settings.memory_bytes)
        for start, end in _tiers(sizes, weights, limits, full):
            inputs = _inputs(stretch[start:end])
            keys = any(file.content == KEYS for file in inputs)
            found.append(Run(MINOR, inputs, 2) if keys else Run(FILES, inputs))
    return found


def _files(files: Sequence[DataFile], settings: CompactionSettings, full: bool) -> list[Run]:
    """Small files of a dataset in which nothing is hidden: any choice of them goes together."""
    small = [file for file in files if _small(file, settings)]
    if len(small) < 2 or (not full and len(small) <= settings.deltas_max):
        return []
    small.sort(key=lambda file: (file.seq, file.ordinal))
    sizes = [file.size_bytes for file in small]
    tiers = _tiers(sizes, sizes, (settings.file_bytes_target, settings.file_bytes_target), full)
    return [Run(FILES, tuple(small[start:end])) for start, end in tiers]


def _events(events: Sequence[DataFile], settings: CompactionSettings, full: bool) -> list[Run]:
    rows_max = min(settings.rows_max, settings.memory_bytes // _EVENT_BYTES)

    def fits(file: DataFile) -> bool:
        few = file.rows <= rows_max // 2
        return file.content == EVENTS and few and _small(file, settings)

    small = sorted(filter(fits, events), key=lambda file: (file.seq, file.ordinal))
    if len(small) < 2 or (not full and len(small) <= settings.deltas_max):
        return []
    sizes = [file.rows for file in small]
    weights = [decoded_bytes(file) for file in small]
    tiers = _tiers(sizes, weights, (rows_max, settings.memory_bytes), full)
    return [Run(EVENTS_RUN, tuple(small[start:end])) for start, end in tiers]


def _small(one: DataFile | Step, settings: CompactionSettings) -> bool:
    return one.size_bytes < settings.file_bytes_target // 2


def _inputs(steps: Sequence[Step]) -> tuple[DataFile, ...]:
    return tuple(file for step in steps for file in step.files)


def _stretches(steps: Sequence[Step], apart: Callable[[Step], bool]) -> Iterable[list[Step]]:
    """The steps in their order, cut wherever one is ``apart``; that one is in none of them."""
    for left_out, group in groupby(steps, key=apart):
        if not left_out:
            yield list(group)


def _tiers(
    sizes: Sequence[int], weights: Sequence[int], limits: tuple[int, int], full: bool
) -> list[tuple[int, int]]:
    """Ranges ``[start, end)`` of at least two, oldest first, that go together.

    From new to old: the next joins if it is no larger than twice the range so far (``full``: in
    any case), and if sizes and weights of the range stay within ``limits``; else it begins a range
    of its own.
    """
    found: list[tuple[int, int]] = []
    end = len(sizes)
    total = weight = 0
    for at in range(len(sizes) - 1, -1, -1):
        alike = full or sizes[at] <= _RATIO * max(total, 1)
        fits = total + sizes[at] <= limits[0] and weight + weights[at] <= limits[1]
        if at < end - 1 and not (alike and fits):
            found.append((at + 1, end))
            end, total, weight = at + 1, 0, 0
        total += sizes[at]
        weight += weights[at]
    found.append((0, end))
    return [one for one in reversed(found) if one[1] - one[0] > 1]
