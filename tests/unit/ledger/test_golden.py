"""Format 1 of the ledger as bytes that were once written: every later version must read them.

``python tests/unit/ledger/test_golden.py`` writes those that are not there; it overwrites none.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from lakehouse.ledger import checkpoint, pack
from lakehouse.ledger.checkpoint import Manifest, PartRef
from lakehouse.ledger.keys import Key, dump_segment, load_segment
from lakehouse.ledger.layout import Layout
from lakehouse.ledger.machine import Entry
from lakehouse.ledger.pack import PackRef
from lakehouse.ledger.parquet import from_parquet, to_parquet
from lakehouse.ledger.record import (
    GENESIS,
    BodyRef,
    CheckpointRef,
    Commit,
    Record,
    WriterInfo,
    decode,
    encode,
    fill,
    sha256_hex,
)

FOLDER = Path(__file__).parents[2] / "golden" / "formats" / "v1" / "ledger"
LAYOUT = Layout()
ENTRY = Entry(7, 99, ({"op": "a", "x": [1, "ü", None]},), {"ok": True}, "ann", "req-1")
RECORD = Record(
    n=5,
    prev=GENESIS,
    epoch=3,
    writer=WriterInfo("w-1", "127.0.0.1:1"),
    put_id="p-1",
    ts_us=99,
    first_seq=7,
    kind="commit",
    commits=(Commit(ENTRY, "k" * 64, "b" * 64),),
    checkpoint=CheckpointRef(4, 6, "_catalog/x", "c" * 64),
)
PART = "0" * 64
MANIFEST = Manifest(
    n=4,
    seq=6,
    epoch=3,
    ts_us=98,
    record_sha256="d" * 64,
    parts=(PartRef("state-1", "_catalog/p/1", PART, 3), PartRef("keys-000000000", "k", PART, 2)),
    packs=(PackRef(0, 2, "_catalog/k/0-2", PART),),
)
KEYS = [Key("a" * 64, "b" * 64, 1, 0, 10), Key("c" * 64, "", 2, 1, 20)]
PACKED = {0: b"zero", 1: b"\x00one\xff"}


def read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def test_a_record_is_read() -> None:
    assert decode(read("record.json"), LAYOUT, 5) == RECORD


def test_a_record_is_written_as_it_was() -> None:
    assert encode(RECORD, LAYOUT, 1 << 20).data == read("record.json")


def test_a_record_of_before_min_writer_is_read() -> None:
    assert decode(read("record-before-min-writer.json"), LAYOUT, 5) == RECORD


def test_a_record_with_a_body_is_read() -> None:
    found = decode(read("record-with-body.json"), LAYOUT, 5)
    assert isinstance(found.body, BodyRef)
    filled = fill(found, read("body.zst"), LAYOUT)
    assert replace(filled, body=None) == RECORD


def test_a_root_is_read() -> None:
    for name in ("root.parquet", "root-before-min-writer.parquet"):
        data = read(name)
        reference = CheckpointRef(4, 6, "_catalog/root", sha256_hex(data))
        assert checkpoint._decode_root(data, reference) == MANIFEST


def test_a_pack_is_read() -> None:
    data = read("pack.parquet")
    assert pack._decode(data, PackRef(0, 1, "k", sha256_hex(data))) == PACKED


def test_a_segment_of_keys_is_read() -> None:
    name = dump_segment(0, KEYS).name
    assert load_segment(name, from_parquet(read("keys.parquet"))) == (0, KEYS)


def test_a_data_file_is_read() -> None:
    file = pq.ParquetFile(FOLDER.parent / "data.parquet")
    fields = [(each.name, str(each.type), each.metadata) for each in file.schema_arrow]
    assert fields == [
        ("id", "int64", {b"PARQUET:field_id": b"1"}),
        ("name", "string", {b"PARQUET:field_id": b"2"}),
    ]
    assert file.read().to_pylist() == [{"id": 1, "name": "ann"}, {"id": 2, "name": "bob"}]


def _write() -> None:
    """With the present code; those of before a change are made from it by what they lack."""
    import asyncio
    import hashlib
    import tempfile

    from support_ingest import build_lake

    async def data() -> bytes:
        lake = await build_lake(Path(tempfile.mkdtemp()))
        await lake.put(b"id,name\n1,ann\n2,bob\n")
        store = lake.buckets.get("primary")
        (meta,) = await store.list("datasets/")
        found = await store.get(meta.key)
        await lake.close()
        return found

    plain = encode(RECORD, LAYOUT, 1 << 20).data
    start = plain.index(b'"record":') + 9
    inner = plain[start:-1].replace(b'"min_writer":1,', b"")
    digest = hashlib.sha256(inner).hexdigest().encode()
    large = encode(RECORD, LAYOUT, 0)
    root = checkpoint._encode_root(MANIFEST)
    table = from_parquet(root)
    kept = {k.decode(): v.decode() for k, v in table.schema.metadata.items() if k != b"min_writer"}
    files = {
        "record.json": plain,
        "record-before-min-writer.json": b'{"sha256":"%s","record":%s}' % (digest, inner),
        "record-with-body.json": large.data,
        "body.zst": large.body or b"",
        "root.parquet": root,
        "root-before-min-writer.parquet": to_parquet(table, kept),
        "pack.parquet": pack._encode(PACKED),
        "keys.parquet": to_parquet(dump_segment(0, KEYS).table),
        "../data.parquet": asyncio.run(data()),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(content)


if __name__ == "__main__":
    _write()
