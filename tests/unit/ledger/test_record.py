"""Bytes of a record: framing, checksum, bodies, formats."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.layout import SLOT_MAX, Layout, number_of, reversed_number
from lakehouse.ledger.machine import Entry
from lakehouse.ledger.record import (
    GENESIS,
    CheckpointRef,
    Commit,
    Record,
    WriterInfo,
    decode,
    encode,
    fill,
    sha256_hex,
)

LAYOUT = Layout()
ENTRY = Entry(7, 99, ({"op": "a", "x": [1, "ü", None]},), {"ok": True}, "ann", "req-1")
RECORD = Record(
    n=5,
    prev=GENESIS,
    epoch=3,
    writer=WriterInfo("w", "127.0.0.1:3101"),
    put_id="01J",
    ts_us=99,
    first_seq=7,
    kind="commit",
    commits=(Commit(ENTRY, "kh", "bs"), Commit(replace(ENTRY, seq=8))),
    checkpoint=CheckpointRef(2, 4, "k", "s"),
)


def test_round_trip() -> None:
    encoded = encode(RECORD, LAYOUT, 1 << 20)
    assert decode(encoded.data, LAYOUT, 5) == RECORD
    assert encoded.body is None
    assert encoded.sha256 == sha256_hex(encoded.data)
    assert orjson.loads(encoded.data)["record"]["format"] == 1


def test_large_changes_move_to_a_body_named_by_its_checksum() -> None:
    encoded = encode(RECORD, LAYOUT, 10)
    assert encoded.body is not None
    found = decode(encoded.data, LAYOUT, 5)
    assert found.body is not None
    assert found.body.sha256 == sha256_hex(encoded.body)
    assert found.body.key.startswith("_catalog/b/0000000000000005-")
    filled = fill(found, encoded.body, LAYOUT)
    assert filled.commits == RECORD.commits
    with pytest.raises(LakehouseError, match="corrupt"):
        fill(found, encoded.body + b"x", LAYOUT)


def test_any_flipped_bit_is_noticed_and_names_the_slot() -> None:
    data = encode(RECORD, LAYOUT, 1 << 20).data
    for place in range(len(data)):
        broken = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
        with pytest.raises(LakehouseError) as caught:
            decode(broken, LAYOUT, 5)
        assert caught.value.kind is ErrorKind.CORRUPT
        assert caught.value.fields["slot"] == 5


@pytest.mark.parametrize("size", [0, 1, 50, 85, 200])
def test_a_torn_record_is_corrupt(size: int) -> None:
    with pytest.raises(LakehouseError, match="corrupt"):
        decode(encode(RECORD, LAYOUT, 1 << 20).data[:size], LAYOUT, 5)


def test_a_record_in_another_slot_is_corrupt() -> None:
    with pytest.raises(LakehouseError, match="another's slot"):
        decode(encode(RECORD, LAYOUT, 1 << 20).data, LAYOUT, 6)


def test_a_newer_format_is_refused_in_words() -> None:
    inner = orjson.dumps(orjson.loads(encode(RECORD, LAYOUT, 1 << 20).data)["record"])
    inner = inner.replace(b'"min_reader":1', b'"min_reader":2')
    data = b'{"sha256":"' + sha256_hex(inner).encode() + b'","record":' + inner + b"}"
    with pytest.raises(LakehouseError) as caught:
        decode(data, LAYOUT, 5)
    assert caught.value.kind is ErrorKind.CONFLICT
    assert caught.value.fields["min_reader"] == 2


def test_slots_sort_newest_first() -> None:
    keys = [LAYOUT.slot(n) for n in (0, 1, 9, 10, 99, 12345)]
    assert sorted(keys) == keys[::-1]
    assert [number_of(key, ".json") for key in keys] == [0, 1, 9, 10, 99, 12345]
    assert reversed_number(0) == "9999999999999999"
    with pytest.raises(LakehouseError, match="range"):
        reversed_number(SLOT_MAX + 1)
    with pytest.raises(LakehouseError, match="not part of a ledger"):
        number_of("_catalog/c/readme.txt", ".json")
