"""Packs: old records folded together byte by byte, so that their slots can go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.ledger.access import Access
from lakehouse.ledger.parquet import from_parquet, to_parquet
from lakehouse.ledger.record import sha256_hex

_SCHEMA: Final = pa.schema([("n", pa.int64()), ("sha256", pa.string()), ("data", pa.binary())])


@dataclass(frozen=True, slots=True)
class PackRef:
    """A pack of the records ``first`` to ``last``, both included."""

    first: int
    last: int
    key: str
    sha256: str


async def write_pack(access: Access, records: Mapping[int, bytes]) -> PackRef:
    """Write a pack of consecutive records, read it back and compare every byte."""
    numbers = sorted(records)
    first, last = numbers[0], numbers[-1]
    if numbers != list(range(first, last + 1)):
        raise LakehouseError(ErrorKind.INTERNAL, "a pack must be of consecutive records")
    data = await run_blocking(_encode, records)
    digest = sha256_hex(data)
    pack = PackRef(first, last, access.layout.pack(first, last, digest), digest)
    await access.put_named(pack.key, data)
    if await read_pack(access, pack) != dict(records):
        raise _damaged(pack)
    return pack


async def read_pack(access: Access, pack: PackRef) -> dict[int, bytes]:
    """The exact bytes of each record in ``pack``; raises ``corrupt``."""
    return await access.read(pack.key, lambda data: run_blocking(_decode, data, pack))


def _encode(records: Mapping[int, bytes]) -> bytes:
    numbers = sorted(records)
    columns = [numbers, [sha256_hex(records[n]) for n in numbers], [records[n] for n in numbers]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    return to_parquet(pa.Table.from_arrays(arrays, schema=_SCHEMA))


def _decode(data: bytes, pack: PackRef) -> dict[int, bytes]:
    if sha256_hex(data) != pack.sha256:
        raise _damaged(pack)
    table = from_parquet(data)
    numbers, digests, records = (table.column(name).to_pylist() for name in _SCHEMA.names)
    if numbers != list(range(pack.first, pack.last + 1)):
        raise _damaged(pack)
    if [sha256_hex(record) for record in records] != digests:
        raise _damaged(pack)
    return dict(zip(numbers, records, strict=True))


def _damaged(pack: PackRef) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CORRUPT,
        "a pack of ledger records does not match its checksum",
        key=pack.key,
        slot=pack.first,
        hint="restore the object from a backup",
    )
