"""What pays, and that a run never goes past keys or rows that stay outside."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.ingestd.compaction.planning import (
    EVENTS_RUN,
    FILES,
    MAJOR,
    MINOR,
    Plan,
    plan,
)
from lakehouse.ingestd.compaction.settings import CompactionSettings
from lakehouse.model.dataset import EVENTS, KEYS, ROWS, Card, DataFile, Dataset, DatasetStatus
from lakehouse.model.schema import Column, Schema

SCHEMA = Schema(1, (Column(1, "id", "int64"),))
AT = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = CompactionSettings(deltas_max=4, file_bytes_target=1_000_000, rows_max=10_000)


def file(seq: int, content: str = ROWS, rows: int = 10, **more: object) -> DataFile:
    made = DataFile(
        f"datasets/s/d/{seq}-{content}-{more.get('ordinal', 0)}",
        1_000,
        rows,
        f"{seq:064x}",
        content=content,
        seq=seq,
        ordinal=seq,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def change(seq: int, rows: int = 10, **more: object) -> tuple[DataFile, DataFile]:
    return file(seq, ROWS, rows, **more), file(seq, KEYS, rows, **more)


def snapshot(files: Sequence[DataFile], key: tuple[str, ...] = ("id",)) -> DatasetSnapshot:
    dataset = Dataset(
        "d", "d", "fp1:", SCHEMA, DatasetStatus.LIVE, Card(), AT, AT, 99, len(files), 0, None, key
    )
    return DatasetSnapshot(dataset, tuple(files), (SCHEMA,))


def planned(files: Sequence[DataFile], **how: object) -> Plan:
    settings = how.pop("settings", SETTINGS)
    events = how.pop("events", ())
    key = how.pop("key", ("id",))
    found = plan(snapshot(files, key), events, settings, **how)  # type: ignore[arg-type]
    inputs = [one.key for one in found.inputs]
    assert len(inputs) == len(set(inputs)), "two runs share an input"
    return found


def base(rows: int = 100_000) -> DataFile:
    return file(1, rows=rows, size_bytes=900_000)


def deltas(count: int, first: int = 2, rows: int = 10) -> list[DataFile]:
    return [one for seq in range(first, first + count) for one in change(seq, rows)]


def test_few_row_changes_are_let_be() -> None:
    assert planned([base(), *deltas(4)]).runs == ()


def test_many_become_one_of_rows_and_one_of_keys() -> None:
    found = planned([base(), *deltas(5)])
    assert found.strategy == MINOR
    assert [len(run.inputs) for run in found.runs] == [10]
    assert (found.runs[0].seq, found.expected, found.expected_keys) == (6, 2, 1)


def test_a_large_fold_is_not_written_again_for_a_few_small_changes() -> None:
    folded = change(2, rows=2_500)
    found = planned([base(), *folded, *deltas(5, first=3)])
    assert [sorted({one.seq for one in run.inputs}) for run in found.runs] == [[3, 4, 5, 6, 7]]
    once_more = planned([base(), *folded, *deltas(5, first=3, rows=500)])
    assert sorted({one.seq for one in once_more.inputs}) == [2, 3, 4, 5, 6, 7]


def test_sizes_that_are_nearly_the_same_go_together() -> None:
    rng = random.Random(4)
    near = [one for seq in range(2, 40) for one in change(seq, rng.randrange(90, 111))]
    assert [len(run.inputs) for run in planned([base(), *near]).runs] == [len(near)]


def test_how_often_a_row_is_written_again_grows_with_the_logarithm() -> None:
    files: list[DataFile] = [base(10**9)]
    written = 0
    for seq in range(2, 2_002):
        files += change(seq, rows=10)
        for run in planned(files).runs:
            inputs = set(run.keys)
            rows = sum(one.rows for one in run.inputs if one.content == ROWS)
            written += rows
            files = [one for one in files if one.key not in inputs]
            files += [
                file(run.seq, ROWS, rows, ordinal=seq),
                file(run.seq, KEYS, rows, ordinal=seq),
            ]
            files.sort(key=lambda one: one.seq)
    assert sum(one.content == KEYS for one in files) <= SETTINGS.deltas_max + 10
    assert written / 20_000 < 11


def test_changes_of_a_tenth_go_into_the_rows() -> None:
    few = planned([base(1_000), *deltas(8, rows=12)])
    assert few.strategy == MINOR
    many = planned([base(1_000), *deltas(8, rows=13)])
    assert many.strategy == MAJOR
    assert len(many.inputs) == 17
    assert many.expected_keys == 0


def test_what_must_be_done_soon_folds_nothing_into_the_rows() -> None:
    files = [base(1_000), *deltas(8, rows=13)]
    assert planned(files, fold_rows=False).strategy == MINOR
    assert planned(files, fold_rows=False, full=True).strategy == MINOR


def test_full_is_all_of_it_whatever_the_thresholds_say() -> None:
    found = planned([base(), *deltas(1)], full=True)
    assert (found.strategy, len(found.inputs)) == (MAJOR, 3)
    assert planned([base()], full=True).runs == ()


def test_rows_in_another_bucket_stay_there_and_no_run_goes_past_them() -> None:
    foreign = file(5, bucket="other", external=True)
    files = [base(), *deltas(3), foreign, *deltas(3, first=6)]
    found = planned(files, full=True)
    assert [(run.strategy, run.inputs[0].seq, run.seq) for run in found.runs] == [
        (MAJOR, 1, 4),
        (MINOR, 6, 8),
    ]
    first = planned([replace(base(), bucket="other"), *deltas(3)], full=True)
    assert first.strategy == MINOR


def test_a_run_in_memory_takes_no_more_than_it_may() -> None:
    found = planned([base(), *deltas(6, rows=2_000)])
    assert len(found.runs) > 1
    assert all(run.rows <= SETTINGS.rows_max for run in found.runs)
    heavy = replace(SETTINGS, memory_bytes=64_000)
    found = planned(
        [base(), *(replace(one, size_bytes=6_000) for one in deltas(6))], settings=heavy
    )
    assert [len(run.inputs) for run in found.runs] == [4, 4, 4]


def test_small_files_without_keys_go_together_up_to_a_size() -> None:
    small = [file(seq, size_bytes=200_000) for seq in range(1, 8)]
    large = file(8, size_bytes=600_000)
    found = planned([*small, large], key=())
    assert found.strategy == FILES
    assert large not in found.inputs
    assert all(run.size_bytes <= SETTINGS.file_bytes_target for run in found.runs)
    assert planned([*small[:4], large], key=()).runs == ()
    assert planned([*small[:2], large], key=(), full=True).expected == 1


def test_small_appends_between_changes_are_folded_with_them() -> None:
    files = [base(), *deltas(2), file(4), file(5), file(6), *deltas(2, first=7)]
    assert sorted({one.seq for one in planned(files).inputs}) == [2, 3, 4, 5, 6, 7, 8]


def test_event_objects_go_together_by_themselves() -> None:
    events = [file(seq, EVENTS) for seq in range(2, 9)]
    found = planned([base()], events=events)
    assert (found.strategy, len(found.inputs), found.runs[0].seq) == (EVENTS_RUN, 7, 8)
    assert planned([base()], events=events[:4]).runs == ()
    elsewhere = [replace(one, bucket="other") for one in events]
    assert planned([base()], events=elsewhere, full=True).runs == ()
    both = planned([base(), *deltas(5)], events=events)
    assert both.strategy == "minor+events"


@pytest.mark.parametrize("seed", range(40))
def test_no_run_goes_past_what_stays_outside(seed: int) -> None:
    """The rule of seq, checked as it is written."""
    rng = random.Random(seed)
    files: list[DataFile] = []
    for seq in range(1, rng.randrange(3, 40)):
        rows = rng.choice([1, 10, 100, 5_000])
        bucket = "other" if rng.random() < 0.05 else "primary"
        size = rng.choice([1_000, 100_000, 700_000])
        kind = rng.random()
        if kind < 0.8:
            files.append(file(seq, ROWS, rows, bucket=bucket, size_bytes=size))
        if kind > 0.3 and seq > 1:
            files.append(file(seq, KEYS, rows, bucket=bucket))
    rng.shuffle(files)
    found = planned(files, full=rng.random() < 0.5, fold_rows=rng.random() < 0.5)
    for run in found.runs:
        inside = set(run.keys)
        outside = [one for one in files if one.key not in inside]
        assert all(one.bucket == "primary" for one in run.inputs)
        for one in run.inputs:
            if one.content == ROWS:
                between = [k for k in outside if k.content == KEYS and one.seq < k.seq <= run.seq]
            else:
                between = [r for r in outside if r.content == ROWS and one.seq <= r.seq < run.seq]
            assert not between, f"seed {seed}: {run.strategy} goes past {between[0].key}"
        if run.strategy == MAJOR:
            assert all(one.seq > run.seq for one in outside if one.content in (ROWS, KEYS))
