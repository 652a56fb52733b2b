"""Rows and their hash before and after: what was read must be what is written (law 8)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import KEYS, DataFile
from lakehouse.model.schema import Schema
from lakehouse.table.keys import ROW_HASH
from lakehouse.table.rowhash import format_hash, rows_hash

__all__ = [
    "MASK",
    "Balance",
    "check_same",
    "check_told",
    "of_keys",
    "of_rows",
    "same_values",
    "told",
]

MASK: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Balance:
    """Rows that can be seen: how many, and the sum of their hashes modulo 2^64."""

    rows: int = 0
    hash: int = 0

    def __add__(self, other: Balance) -> Balance:
        return Balance(self.rows + other.rows, (self.hash + other.hash) & MASK)

    def __sub__(self, other: Balance) -> Balance:
        return Balance(self.rows - other.rows, (self.hash - other.hash) & MASK)

    @property
    def hash_text(self) -> str:
        return format_hash(self.hash)


def of_rows(rows: pa.Table | pa.RecordBatch, schema: Schema) -> Balance:
    """Of rows in hand."""
    return Balance(rows.num_rows, rows_hash(rows, schema))


def of_keys(keys: pa.Table) -> Balance:
    """Of the rows that ``keys`` hide, as they say."""
    total = pc.sum(keys.column(ROW_HASH)).as_py() or 0
    return Balance(keys.num_rows, total & MASK)


def told(files: Iterable[DataFile]) -> Balance | None:
    """Of what the manifest says of rows and keys; None where a file comes without a hash."""
    total = Balance()
    for file in files:
        tag, _, digits = file.rows_hash.partition(":")
        if tag != "rh1":
            return None
        one = Balance(file.rows, int(digits, 16))
        total = total - one if file.content == KEYS else total + one
    return total


def check_told(file: DataFile, read: Balance) -> None:
    """Raise ``corrupt`` if an object holds other rows than the catalog says."""
    known = file.rows_hash
    # A foreign object was never read for its hash.
    if file.rows == read.rows and known in ("", read.hash_text):
        return
    raise LakehouseError(
        ErrorKind.CORRUPT,
        "an object holds other rows than the catalog says; nothing was compacted",
        bucket=file.bucket,
        key=file.key,
        rows_expected=file.rows,
        rows_found=read.rows,
        rows_hash_expected=known,
        rows_hash_found=read.hash_text,
        hint="run catalog fsck --deep, restore the object from a backup",
    )


def check_same(dataset: str, what: str, before: Balance, after: Balance) -> None:
    """Raise ``corrupt`` if rows were lost, doubled or changed between two counts of them."""
    if before == after:
        return
    raise LakehouseError(
        ErrorKind.CORRUPT,
        f"{what}; nothing was compacted",
        dataset=dataset,
        rows_before=before.rows,
        rows_after=after.rows,
        rows_hash_before=before.hash_text,
        rows_hash_after=after.hash_text,
        hint="run catalog fsck --deep; what can be read is as it was",
    )


def same_values(written: Schema, wanted: Schema) -> bool:
    """Whether a row of ``written`` hashes alike under ``wanted``: no type was widened since and no
    column is gone (one that was added is null in it)."""
    types = {column.id: column.type for column in wanted.columns}
    return all(types.get(column.id) == column.type for column in written.columns)
