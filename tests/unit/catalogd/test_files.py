"""The log of files against a plain list; segments; memory."""

from __future__ import annotations

import random
from dataclasses import replace

import pyarrow as pa

from lakehouse.catalogd.files import SEGMENT_FILES, FileLog, Segment
from lakehouse.catalogd.filetable import decode_files, encode_files
from lakehouse.model.dataset import ColumnStats, DataFile


def made(at: int, ordinal: int = 0) -> DataFile:
    stats = tuple(
        ColumnStats(column, at % 3 or None, str(at), None if column == 2 else f"z{at}")
        for column in range(at % 4)
    )
    return DataFile(f"k{at:07d}", at, at % 7, f"{at:064x}", stats=stats, ordinal=ordinal)


def test_a_table_holds_every_field() -> None:
    files = tuple(replace(made(at, at + 1), seq=at) for at in range(50))
    table = encode_files(files, range(50))
    assert decode_files(table) == (files, tuple(range(50)))
    assert decode_files(table.slice(7, 9)) == (files[7:16], tuple(range(7, 16)))
    assert decode_files(pa.concat_tables([table, table]))[0] == files * 2
    assert decode_files(table.slice(0, 0)) == ((), ())


def test_the_log_agrees_with_a_list() -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    log = FileLog()
    model: list[dict[str, int]] = [{}]
    serial = 0
    for version in range(1, 120):
        live = dict(model[-1])
        roll = dice.random()
        if roll < 0.1:
            log, live = log.clear(version), {}
        elif roll < 0.35 and live:
            gone = dice.sample(sorted(live), dice.randint(1, len(live)))
            log = log.remove(gone, version)
            for key in gone:
                del live[key]
        else:
            fresh = [made(serial + at) for at in range(dice.choice((1, 2, 40, 300)))]
            serial += len(fresh)
            log = log.append(fresh, version)
            live |= {file.key: file.rows for file in fresh}
        model.append(live)
        assert log.totals.files == len(live)
        assert log.totals.rows == sum(live.values())
    for version, live in enumerate(model):
        assert [file.key for file in log.visible(version)] == list(live)
    newest = list(log.visible())
    assert [file.key for file in newest] == list(model[-1])
    for file in dice.sample(newest, min(20, len(newest))):
        assert log.find(file.key) == file
    after = newest[len(newest) // 2].ordinal if newest else 0
    assert [f.ordinal for f in log.visible(None, after)] == [
        f.ordinal for f in newest if f.ordinal > after
    ]
    horizon = 60
    slim = log.without_dead(horizon)
    for version in range(horizon, len(model)):
        assert [file.key for file in slim.visible(version)] == list(model[version])
    kept = {file.key for file in slim.retained()}
    dead = {file.key for file in log.dead_since(horizon)}
    assert dead.isdisjoint(kept)
    assert dead | kept == {file.key for file in log.retained()}


def test_a_key_may_come_back_and_the_newest_is_found() -> None:
    log = FileLog()
    for version in range(1, 1500):
        log = log.clear(version).append([made(5)], version)
    found = log.find("k0000005")
    assert found is not None
    assert found.ordinal == 1499
    assert log.find("nope") is None
    assert log.clear(1500).find("k0000005") is None
    again = log.clear(1500).find("k0000005", retained=True)
    assert again is not None
    assert again.ordinal == 1499


def test_files_of_one_content_are_picked_from_segments_of_any_size() -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    log = FileLog()
    for version in range(1, 20):
        some = [
            replace(made(version * 1000 + at), content=dice.choice(("rows", "keys", "events")))
            for at in range(dice.choice((1, 3, 600)))
        ]
        if version % 9 == 0:
            log = log.clear(version)
        rewritten = version % 4 == 0
        some = [replace(file, seq=dice.randint(1, version)) for file in some]
        log = log.append(some, version, keep_seq=rewritten)
        gone = dice.sample([file.key for file in some], len(some) // 2)
        log = log.remove(gone, version)
    assert max(segment.count for segment in log.segments) > 512
    for content in ("rows", "keys", "events"):
        for version in (None, 8, 15):
            low, high = sorted(dice.choices(range(22), k=2))
            every = [file for file in log.visible(version) if file.content == content]
            assert list(log.of_content(content, version=version)) == every
            wanted = [file for file in every if low <= file.seq < high]
            assert list(log.of_content(content, low, high, version)) == wanted
    totals = log.totals
    living = list(log.visible())
    signs = {"rows": 1, "keys": -1, "events": 0}
    assert totals.rows == sum(signs[file.content] * file.rows for file in living)
    assert totals.key_files == sum(file.content == "keys" for file in living)
    assert totals.event_files == sum(file.content == "events" for file in living)
    assert (totals.files, totals.size_bytes) == (len(living), sum(f.size_bytes for f in living))


def test_appends_make_few_segments_and_touch_few_files() -> None:
    log = FileLog()
    moved = 0
    for at in range(3000):
        before = set(map(id, log.segments))
        log = log.append([made(at)], at + 1)
        moved += sum(each.count for each in log.segments if id(each) not in before)
    assert len(log.segments) < 16
    assert moved < 3000 * 16
    assert [file.ordinal for file in log.visible()] == list(range(1, 3001))


def test_large_appends_are_cut_into_segments() -> None:
    log = FileLog().append([made(at) for at in range(3 * SEGMENT_FILES + 5)], 1)
    assert max(segment.count for segment in log.segments) == SEGMENT_FILES
    assert log.find(f"k{2 * SEGMENT_FILES:07d}") is not None


def test_a_million_files_fit() -> None:
    """About 400 bytes a file with the bounds of four columns: a million stay under 1.5 GB."""
    count, before = 16_384, pa.total_allocated_bytes()
    files = [
        DataFile(
            f"datasets/01M7Z66PEXC1KGEXWM81GBVCH6/01M7Z66PEXC1KGEXWM81GBVCH7/{at:026d}.parquet",
            1_000_000 + at,
            100_000,
            f"{at:064x}",
            rows_hash=f"{at:016x}",
            stats=tuple(ColumnStats(c, 0, f"{at:012d}", f"{at:012d}") for c in range(4)),
        )
        for at in range(count)
    ]
    log = FileLog().append(files, 1)
    sizes = [segment.table.nbytes for segment in log.segments]
    assert sum(sizes) / count < 600
    assert (pa.total_allocated_bytes() - before) / count < 900
    assert all(segment.held_as_table for segment in log.segments)


def test_a_segment_gives_single_rows() -> None:
    files = tuple(replace(made(at, at + 1), seq=9) for at in range(2000))
    segment = Segment((files, (9,) * 2000))
    assert segment.row(segment.find("k0001234")) == (files[1234], 9)
    assert segment.find("k9999999") == segment.find("") == segment.find("zzz") == -1
    table = Segment(None, segment.table)
    assert (table.first, table.last, table.count) == (1, 2000, 2000)
    assert table.values[0] == files
