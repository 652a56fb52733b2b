"""The tables that row changes are measured against: delta-rs, Lance and PyIceberg, on local files.

Each starts with the same million rows and takes batches of a hundred: rows of new keys, and rows of
keys that are there. None of them journals what a field was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa


class Peer(Protocol):
    """A table with the column ``id`` as its key."""

    name: str

    def insert(self, rows: pa.Table) -> None:
        """One commit that adds rows."""
        ...

    def upsert(self, rows: pa.Table) -> None:
        """One commit that puts rows in the place of those with their keys."""
        ...


class Delta:
    name = "delta-rs"

    def __init__(self, folder: Path, base: pa.Table) -> None:
        import deltalake

        self._lib: Any = deltalake
        self._place = str(folder / "delta")
        deltalake.write_deltalake(self._place, base)

    def insert(self, rows: pa.Table) -> None:
        self._lib.write_deltalake(self._place, rows, mode="append")

    def upsert(self, rows: pa.Table) -> None:
        merge = self._lib.DeltaTable(self._place).merge(
            rows, "t.id = s.id", source_alias="s", target_alias="t"
        )
        merge.when_matched_update_all().when_not_matched_insert_all().execute()


class Lance:
    name = "lance"

    def __init__(self, folder: Path, base: pa.Table) -> None:
        import lance

        self._set: Any = lance.write_dataset(base, str(folder / "lance"))

    def insert(self, rows: pa.Table) -> None:
        self._set.insert(rows)

    def upsert(self, rows: pa.Table) -> None:
        merge = self._set.merge_insert("id")
        merge.when_matched_update_all().when_not_matched_insert_all().execute(rows)


class Iceberg:
    name = "pyiceberg"

    def __init__(self, folder: Path, base: pa.Table) -> None:
        from pyiceberg.catalog.sql import SqlCatalog

        place = folder / "iceberg"
        place.mkdir()
        catalog = SqlCatalog("c", uri=f"sqlite:///{place}/c.db", warehouse=f"file://{place}")
        catalog.create_namespace("n")
        self._table = catalog.create_table("n.t", schema=base.schema)
        self._table.append(base)

    def insert(self, rows: pa.Table) -> None:
        self._table.append(rows)

    def upsert(self, rows: pa.Table) -> None:
        self._table.upsert(rows, join_cols=["id"])


PEERS = (Delta, Lance, Iceberg)
