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
    in them (then null); ``name`` what the statement calls it; ``type`` its logical type text."""

    source: str | None
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class ScanGroup:
    """Files written with one schema, by local path."""

    paths: tuple[str, ...]
    columns: tuple[ScanColumn, ...]


@dataclass(frozen=True, slots=True)
class TableScan:
    """A relation of the statement: the union of its groups. ``name`` identifies the content: two
    scans of one name have the same files and columns. No group: an empty relation. ``rows`` of the
    files together, None if not known."""

    name: str
    columns: tuple[ScanColumn, ...]
    groups: tuple[ScanGroup, ...]
    rows: int | None = None


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


def _table(item: dict[str, Any]) -> TableScan:
    groups = tuple(
        ScanGroup(tuple(group["paths"]), _columns(group["columns"])) for group in item["groups"]
    )
    return TableScan(item["name"], _columns(item["columns"]), groups, item["rows"])


def decode(data: bytes) -> Plan:
    """The plan written by ``encode``."""
    raw = orjson.loads(data)
    raw["uses"] = tuple(raw["uses"])
    raw["tables"] = tuple(_table(item) for item in raw["tables"])
    raw["output"] = tuple(OutputColumn(**item) for item in raw["output"])
    return Plan(**raw)
