"""What both engines call the parts of a scan whose rows change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lakehouse.queryd.plan import ScanColumn, ScanGroup, TableScan

# Widenings that every engine writes alike; of others the text is made by ``table.widening``.
_ALIKE: Final = frozenset(
    {("int64", "string"), ("uint64", "string"), ("bool", "string"), ("date", "string")}
    | {("date", "timestamp")}
)


def rows_name(scan: TableScan) -> str:
    """The table of the rows that a merge leaves to be seen."""
    return f"{scan.name}_rows"


def tombs_name(scan: TableScan) -> str:
    """The table of the tombstones of a merge."""
    return f"{scan.name}_tombs"


def quoted(name: str) -> str:
    """A name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def conversion(column: ScanColumn) -> str:
    """The name of the function that widens a column as ``table.widening`` does; "" where engines do
    it alike, or there is nothing to widen."""
    alike = (column.written, column.type) in _ALIKE or column.type.startswith("decimal(")
    return "" if not column.written or alike else f"lh_{column.written}_to_{column.type}"


def is_widened(group: ScanGroup) -> bool:
    """Whether a column of the group needs a ``conversion``."""
    return any(conversion(column) for column in group.columns)


def conversions(scan: TableScan) -> Iterator[tuple[str, ScanColumn]]:
    """The functions that a scan needs, each once, with a column that needs it."""
    seen = set()
    for group in scan.groups:
        for column in group.columns:
            name = conversion(column)
            if name and name not in seen:
                seen.add(name)
                yield name, column
