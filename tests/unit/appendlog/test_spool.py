"""The spool: bounded, readable after a crash, shared by nobody, taken over from the dead."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from unittest import mock

import pytest

from lakehouse.appendlog.settings import SpoolBounds
from lakehouse.appendlog.spool import Spool, frame, unframe
from lakehouse.testing.clocks import ManualClock, SeededIds

IDS = SeededIds(1)
BOUNDS = SpoolBounds(events_max=20, bytes_max=10_000, segment_events_max=4, segment_bytes_max=400)


def _spool(folder: Path | str, bounds: SpoolBounds = BOUNDS) -> Spool:
    spool = Spool(str(folder), bounds, ManualClock(), IDS)
    spool.start()
    return spool


def _lines(count: int, first: int = 0) -> list[bytes]:
    return [b'{"i":%d}' % i for i in range(first, first + count)]


def _drain(spool: Spool) -> list[bytes]:
    found: list[bytes] = []
    spool.seal()
    while (segment := spool.first()) is not None:
        found += segment.lines or ()
        spool.done(segment)
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.jsonl"))


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_goes_in_comes_out_in_order(tmp_path: Path, on_disk: bool) -> None:
    spool = _spool(tmp_path if on_disk else "")
    assert spool.write(_lines(3)) == 3
    assert spool.write(_lines(7, 3)) == 7
    assert (spool.events, spool.lines()) == (10, _lines(10))
    assert _drain(spool) == _lines(10)
    assert (spool.events, spool.size_bytes) == (0, 0)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_segments_keep_to_their_bounds(tmp_path: Path) -> None:
    spool = _spool(tmp_path)
    spool.write([*_lines(9), b"x" * 300, b"y" * 200])
    sizes = []
    spool.seal()
    while (segment := spool.first()) is not None:
        sizes.append((segment.events, segment.size_bytes <= 400))
        spool.done(segment)
    assert sizes == [(4, True), (4, True), (2, True), (1, True)]
    spool.close()


def test_people_can_read_it(tmp_path: Path) -> None:
    spool = _spool(tmp_path)
    spool.write([b'{"reason":"503"}'])
    (path,) = _files(tmp_path)
    line = json.loads(path.read_text())
    assert line["event"] == {"reason": "503"}
    assert len(line["crc32"]) == 8
    assert path.stat().st_mode & 0o077 == 0
    spool.close()


def test_the_next_start_takes_over_what_a_dead_process_left(tmp_path: Path) -> None:
    dead = _spool(tmp_path)
    dead.write(_lines(6))
    dead.abandon()
    spool = _spool(tmp_path)
    assert spool.recovered == 6
    assert spool.dropped.total() == 0
    spool.write(_lines(2, 6))
    assert _drain(spool) == _lines(8)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_keeps_its_own(tmp_path: Path) -> None:
    first = _spool(tmp_path)
    first.write(_lines(2))
    second = _spool(tmp_path)
    assert second.recovered == 0
    second.write(_lines(1, 9))
    assert _drain(first) == _lines(2)
    assert _drain(second) == _lines(1, 9)
    for spool in (first, second):
        spool.close()


@pytest.mark.parametrize("cut", range(1, len(frame(b'{"i":2}'))))
def test_a_torn_last_line_is_dropped_alone(tmp_path: Path, cut: int) -> None:
    dead = _spool(tmp_path)
    dead.write(_lines(3))
    dead.abandon()
    (path,) = _files(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    spool = _spool(tmp_path)
    # Without its line break alone the line is whole.
    assert _drain(spool) == _lines(3 if cut == 1 else 2)
    # A line that was never written whole was never kept: it is not counted.
    assert spool.dropped["damaged"] == 0
    spool.close()


def test_a_damaged_line_is_dropped_alone_and_counted(tmp_path: Path) -> None:
    dead = _spool(tmp_path)
    dead.write(_lines(4))
    dead.abandon()
    (path,) = _files(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"i":1', b'"i":7'))
    spool = _spool(tmp_path)
    assert _drain(spool) == [b'{"i":0}', b'{"i":2}', b'{"i":3}']
    assert spool.dropped["damaged"] == 1
    spool.close()


def test_what_is_over_the_bounds_is_counted(tmp_path: Path) -> None:
    spool = _spool(tmp_path)
    assert spool.write(_lines(25)) == 20
    assert spool.write(_lines(1)) == 0
    assert spool.dropped == {"spool_full": 6}
    assert _drain(spool) == _lines(20)
    assert spool.write([b"x" * 390] * 30) == 20
    spool.close()


def test_the_slot_a_segment_was_sent_to_is_remembered(tmp_path: Path) -> None:
    dead = _spool(tmp_path)
    dead.write(_lines(4))
    segment = dead.first()
    assert segment is not None
    assert segment.aimed_at is None
    # Sent to 7, found taken, sent to 8; each time by the segment as it was taken out.
    for n in (8, 7, 8):
        dead.aim(segment, n)
    dead.abandon()
    spool = _spool(tmp_path)
    again = spool.first()
    assert again is not None
    assert (again.put_id, again.aimed_at) == (segment.put_id, 8)
    spool.aim(again, 8)
    spool.done(again)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_events_in_memory_and_says_so(tmp_path: Path) -> None:
    spool = _spool(tmp_path)
    spool.write(_lines(1))
    with mock.patch("os.write", side_effect=OSError(errno.ENOSPC, "full")):
        assert spool.write(_lines(2, 1)) == 2
    assert spool.failures > 0
    spool.write(_lines(1, 3))
    assert _drain(spool) == _lines(4)
    with mock.patch("os.write", side_effect=OSError(errno.ENOSPC, "full")):
        spool.write(_lines(2))
    spool.close()
    assert spool.dropped == {"not_spooled": 2}


def test_a_folder_that_cannot_be_made_keeps_events_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    spool = _spool(tmp_path / "file" / "spool")
    assert spool.failures == 1
    assert spool.write(_lines(3)) == 3
    assert _drain(spool) == _lines(3)
    spool.close()


def test_a_segment_is_fsynced_with_its_folder_before_it_is_sent(tmp_path: Path) -> None:
    spool = _spool(tmp_path)
    spool.write(_lines(2))
    with mock.patch("os.fsync", wraps=os.fsync) as fsync:
        spool.seal()
    assert fsync.call_count == 2
    spool.close()


def test_lines_are_framed_and_checked() -> None:
    assert unframe(frame(b'{"i":1}')[:-1]) == b'{"i":1}'
    for raw in (b"", b"{}", frame(b'{"i":1}')[1:], b'{"crc32":"00000000","event":{}}'):
        assert unframe(raw) is None
