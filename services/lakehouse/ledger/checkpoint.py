"""Checkpoints: the whole state after one record, as Parquet parts under a root part.

The root lists the parts and the packs by key and checksum; a record names the root by key and
checksum. So whoever trusts the record can verify all of it. A part that did not change is not
written again: the new root names the old object.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import pyarrow as pa

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.ledger.access import Access
from lakehouse.ledger.head import Head
from lakehouse.ledger.keys import PART_PREFIX, Key, dump_segment, load_segment
from lakehouse.ledger.machine import Machine, Part
from lakehouse.ledger.pack import PackRef
from lakehouse.ledger.parquet import from_parquet, to_parquet
from lakehouse.ledger.record import FORMAT, CheckpointRef, sha256_hex

S = TypeVar("S")

_ROOT: Final = pa.schema(
    [
        ("kind", pa.string()),
        ("name", pa.string()),
        ("key", pa.string()),
        ("sha256", pa.string()),
        ("first", pa.int64()),
        ("last", pa.int64()),
        ("row_count", pa.int64()),
    ]
)
_NUMBERS: Final = ("n", "seq", "epoch", "ts_us")


@dataclass(frozen=True, slots=True)
class PartRef:
    """A part as the root names it."""

    name: str
    key: str
    sha256: str
    row_count: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A root part: the head it is the state of, its parts and the packs of older records."""

    n: int
    seq: int
    epoch: int
    ts_us: int
    record_sha256: str
    parts: tuple[PartRef, ...] = ()
    packs: tuple[PackRef, ...] = ()
    min_writer: int = FORMAT


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[S]):
    """What a checkpoint is made of, taken in one instant."""

    head: Head[S]
    keys: Mapping[int, Sequence[Key]]
    packs: tuple[PackRef, ...]


@dataclass(frozen=True, slots=True)
class Loaded(Generic[S]):
    """A checkpoint read back."""

    manifest: Manifest
    state: S
    keys: dict[int, list[Key]]


async def write_root(access: Access, manifest: Manifest) -> CheckpointRef:
    """Write the root of a checkpoint whose parts are all in the bucket."""
    data = await run_blocking(_encode_root, manifest)
    digest = sha256_hex(data)
    key = access.layout.part(manifest.n, "root", digest)
    await access.put_named(key, data)
    return CheckpointRef(manifest.n, manifest.seq, key, digest)


async def write_part(
    access: Access, n: int, part: Part, previous: Mapping[str, PartRef]
) -> PartRef:
    """Write ``part`` unless the checkpoint before has the same bytes under the same name."""
    data, digest = await run_blocking(_encode_part, part.table)
    old = previous.get(part.name)
    if old is not None and old.sha256 == digest:
        return old
    key = access.layout.part(n, part.name, digest)
    await access.put_named(key, data)
    return PartRef(part.name, key, digest, part.table.num_rows)


def key_parts(
    segments: Mapping[int, Sequence[Key]], previous: Mapping[str, PartRef]
) -> tuple[list[PartRef], list[Part]]:
    """Segments of idempotency keys: those that the checkpoint before has, and those to write."""
    kept: list[PartRef] = []
    fresh: list[Part] = []
    for number, keys in segments.items():
        old = previous.get(f"{PART_PREFIX}{number:09d}")
        if old is not None and old.row_count == len(keys):
            kept.append(old)
        else:
            fresh.append(dump_segment(number, keys))
    return kept, fresh


async def read_manifest(access: Access, checkpoint: CheckpointRef) -> Manifest:
    """The root that ``checkpoint`` names, verified. Raises ``corrupt``, or ``not_found`` if a
    newer checkpoint has replaced it meanwhile."""
    return await access.read(
        checkpoint.key, lambda data: run_blocking(_decode_root, data, checkpoint)
    )


async def load_checkpoint(
    access: Access, machine: Machine[S], checkpoint: CheckpointRef
) -> Loaded[S]:
    """The state that ``checkpoint`` names; every byte is verified before use."""
    manifest = await read_manifest(access, checkpoint)
    tables = await asyncio.gather(*(_read_part(access, part) for part in manifest.parts))
    parts = {part.name: table for part, table in zip(manifest.parts, tables, strict=True)}
    own = {name: parts.pop(name) for name in list(parts) if name.startswith(PART_PREFIX)}
    keys = await run_blocking(_load_keys, own)
    state = await run_blocking(machine.load, parts)
    return Loaded(manifest, state, keys)


async def _read_part(access: Access, part: PartRef) -> pa.Table:
    return await access.read(part.key, lambda data: run_blocking(_decode_part, data, part))


def _load_keys(tables: Mapping[str, pa.Table]) -> dict[int, list[Key]]:
    return dict(load_segment(name, table) for name, table in tables.items())


def _encode_part(table: pa.Table) -> tuple[bytes, str]:
    data = to_parquet(table)
    return data, sha256_hex(data)


def _decode_part(data: bytes, part: PartRef) -> pa.Table:
    if sha256_hex(data) != part.sha256:
        raise _damaged(part.key)
    return from_parquet(data)


def _encode_root(manifest: Manifest) -> bytes:
    rows: list[tuple[Any, ...]] = [
        ("part", part.name, part.key, part.sha256, None, None, part.row_count)
        for part in manifest.parts
    ]
    rows += [
        ("pack", "", pack.key, pack.sha256, pack.first, pack.last, None) for pack in manifest.packs
    ]
    columns = list(zip(*rows, strict=True)) or [()] * len(_ROOT)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _ROOT, strict=True)]
    metadata = {name: str(getattr(manifest, name)) for name in (*_NUMBERS, "record_sha256")}
    metadata |= {"format": str(FORMAT), "min_reader": str(FORMAT)}
    metadata |= {"min_writer": str(manifest.min_writer)}
    return to_parquet(pa.Table.from_arrays(arrays, schema=_ROOT), metadata)


def _decode_root(data: bytes, checkpoint: CheckpointRef) -> Manifest:
    if sha256_hex(data) != checkpoint.sha256:
        raise _damaged(checkpoint.key)
    table = from_parquet(data)
    metadata = {name.decode(): text.decode() for name, text in table.schema.metadata.items()}
    if int(metadata["min_reader"]) > FORMAT:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "checkpoint was written by a newer version",
            key=checkpoint.key,
            hint="upgrade this node",
        )
    rows = table.to_pylist()
    min_writer = int(metadata.get("min_writer", "1"))
    if min_writer <= FORMAT and any(row["kind"] not in ("part", "pack") for row in rows):
        # Whoever continued would write the next root without it.
        min_writer = FORMAT + 1
    numbers = {name: int(metadata[name]) for name in _NUMBERS}
    if numbers["n"] != checkpoint.n or numbers["seq"] != checkpoint.seq:
        raise _damaged(checkpoint.key)
    return Manifest(
        **numbers,
        record_sha256=metadata["record_sha256"],
        parts=tuple(
            PartRef(row["name"], row["key"], row["sha256"], row["row_count"])
            for row in rows
            if row["kind"] == "part"
        ),
        packs=tuple(
            PackRef(row["first"], row["last"], row["key"], row["sha256"])
            for row in rows
            if row["kind"] == "pack"
        ),
        min_writer=min_writer,
    )


def _damaged(key: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CORRUPT,
        "part of a checkpoint does not match its checksum",
        key=key,
        hint="restore the object from a backup",
    )
