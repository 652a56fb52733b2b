"""Format 1 of a log as bytes that were once written: every later version must read them.

``python tests/unit/appendlog/test_golden.py`` writes those that are not there; it overwrites none.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from lakehouse.appendlog.batch import Body, Position, encode, make_body, read_batch, read_header
from lakehouse.appendlog.event import Line, encode_event
from lakehouse.appendlog.layout import LogLayout
from lakehouse.appendlog.merged import merge, pieces, read_merged_header
from lakehouse.appendlog.spool import frame, unframe

FOLDER = Path(__file__).parents[2] / "golden" / "formats" / "v1" / "appendlog"
AT_US = 1_790_000_000_000_000
LINES = [
    encode_event({"i": 1, "text": "ü\n", "none": None}, AT_US, "first"),
    encode_event({"at": "2026-09-21T14:00:00+02:00", "i": 2}, AT_US),
]
BEFORE = Position(6, AT_US + 5, 10)


def _body(lines: list[Line]) -> Body:
    return make_body("01M3250V0DDDPM6AZBP1MHY6KV", lines)


def _files() -> dict[str, bytes]:
    first = encode(_body(LINES), BEFORE, "node-1", AT_US)
    second = encode(_body(LINES[:1]), Position.of(first.header), "node-2", AT_US)
    return {
        "batch.jsonl": first.data,
        "merged.jsonl": merge(7, 8, [first.data, second.data]),
        "spool.jsonl": b"".join(frame(line.data) for line in LINES),
    }


def test_what_is_written_is_what_was_written() -> None:
    for name, data in _files().items():
        assert (FOLDER / name).read_bytes() == data, name


def test_a_batch_is_read() -> None:
    data = (FOLDER / "batch.jsonl").read_bytes()
    header = read_header(data, "batch")
    assert (header.n, header.count, header.writer) == (7, 2, "node-1")
    assert (header.first_seq, header.last_seq) == (7 * 65536 + 1, 7 * 65536 + 2)
    # The time of a batch rises although the clock does not.
    assert (header.at_us, header.last_us) == (AT_US + 6, AT_US)
    assert header.spread_us == header.at_us - header.first_us
    events = read_batch(data, "batch").events()
    assert [one.event["i"] for one in events] == [1, 2]
    assert events[0].event["id"] == "first"


def test_people_can_read_a_batch_without_us() -> None:
    first, *lines = (FOLDER / "batch.jsonl").read_text().splitlines(keepends=True)
    header = json.loads(first)
    assert header["format"] == 1
    assert header["count"] == len(lines)
    assert header["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert header["first_at"] <= header["last_at"] <= header["at"]
    assert [json.loads(line)["i"] for line in lines] == [1, 2]


def test_a_merged_object_is_read() -> None:
    data = (FOLDER / "merged.jsonl").read_bytes()
    header = read_merged_header(data, "merged")
    assert (header.first, header.last) == (7, 8)
    assert (header.at_us, header.last_at_us) == (AT_US + 6, AT_US + 7)
    found = [piece.header.n for piece in pieces(data) if piece.header is not None]
    assert found == [7, 8]


def test_a_spool_is_read() -> None:
    raws = (FOLDER / "spool.jsonl").read_bytes().split(b"\n")
    assert [unframe(raw) for raw in raws[:-1]] == [line.data for line in LINES]


def test_keys_are_named_alike_for_ever() -> None:
    layout = LogLayout("_errors/bucket_errors")
    assert layout.slot(7) == "_errors/bucket_errors/c/9999999999999992.jsonl"
    assert layout.floor(7) == "_errors/bucket_errors/floor/9999999999999992"
    assert layout.retained_mark(7) == "_errors/bucket_errors/retained/9999999999999992"
    key = layout.merged_key(7, 8, "ab")
    assert key == "_errors/bucket_errors/m/0000000000000007-0000000000000008-ab.jsonl"
    assert (layout.range_of(key).first, layout.range_of(key).last) == (7, 8)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, data in _files().items():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(data)
