"""What a query worker is told: text for one engine, verified local files, limits, a format.

A plan holds no credentials and no names of buckets. It travels as JSON (`encode`, `decode`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class ScanColumn:
    """One column of a scan: ``source`` is its name in the files of the group, None if it is not
    in them (then null); ``name`` what the statement calls it; ``type`` its logical type text;
    ``written`` the type that it has in the files, "" for the same."""

    source: str | None
    name: str
    type: str
    written: str = ""


@dataclass(frozen=True, slots=True)
class ScanGroup:
    """Files written with one schema, by local path. ``hidden``: of their rows those are hidden
    whose key has a tombstone of a higher seq than this; None if none is."""

    paths: tuple[str, ...]
    columns: tuple[ScanColumn, ...]
    hidden: int | None = None


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Small files written with one schema, by local path, and the seq of each."""

    paths: tuple[str, ...]
    seqs: tuple[int, ...]
    columns: tuple[ScanColumn, ...]


@dataclass(frozen=True, slots=True)
class Merge:
    """What a worker reads itself (``deltas``): ``keys`` files, which make the tombstones, and small
    files of ``rows``, of which it keeps what no tombstone hides. ``key``: names of the key's
    columns, in its order; none if there are no ``keys``."""

    key: tuple[str, ...]
    keys: tuple[LayerGroup, ...]
    rows: tuple[LayerGroup, ...]


@dataclass(frozen=True, slots=True)
class TableScan:
    """A relation of the statement: the union of its groups, and of what ``merge`` leaves to be
    seen. ``name`` identifies the content: two scans of one name have the same files and columns.
    No group: an empty relation. ``rows`` of the files together, None if not known. ``passing``: a
    few rows that this query alone reads."""

    name: str
    columns: tuple[ScanColumn, ...]
    groups: tuple[ScanGroup, ...]
    rows: int | None = None
    merge: Merge | None = None
    passing: bool = False


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """Name to show, and the logical type if it is a plain column ("" otherwise)."""

    name: str
    type: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """One statement for one engine.

    Attributes:
        tables: scans the worker has not been told yet; ``uses`` names all it needs.
        output: names by position; empty means the engine's own.
        head: members of the JSON document that are known before the first row.
        started: when the query came, on the boot-time clock, seconds.
    """

    engine: str
    sql: str
    uses: tuple[str, ...]
    tables: tuple[TableScan, ...]
    output: tuple[OutputColumn, ...]
    explain: bool
    format: str
    rows_max: int
    bytes_max: int
    memory_bytes: int
    cpu_seconds: int
    head: dict[str, Any]
    started: float


def encode(plan: Plan) -> bytes:
    """The plan as JSON."""
    return orjson.dumps(plan)


def _columns(items: list[dict[str, Any]]) -> tuple[ScanColumn, ...]:
    return tuple(ScanColumn(**item) for item in items)


def _layers(items: list[dict[str, Any]]) -> tuple[LayerGroup, ...]:
    return tuple(
        LayerGroup(tuple(item["paths"]), tuple(item["seqs"]), _columns(item["columns"]))
        for item in items
    )


def _merge(item: dict[str, Any] | None) -> Merge | None:
    if item is None:
        return None
    return Merge(tuple(item["key"]), _layers(item["keys"]), _layers(item["rows"]))


def _table(item: dict[str, Any]) -> TableScan:
    groups = tuple(
        ScanGroup(tuple(group["paths"]), _columns(group["columns"]), group["hidden"])
        for group in item["groups"]
    )
    columns = _columns(item["columns"])
    merge, passing = _merge(item["merge"]), item["passing"]
    return TableScan(item["name"], columns, groups, item["rows"], merge, passing)


def decode(data: bytes) -> Plan:
    """The plan written by ``encode``."""
    raw = orjson.loads(data)
    raw["uses"] = tuple(raw["uses"])
    raw["tables"] = tuple(_table(item) for item in raw["tables"])
    raw["output"] = tuple(OutputColumn(**item) for item in raw["output"])
    return Plan(**raw)
