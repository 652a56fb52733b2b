"""What commands hand their records to: tables for people, one JSON document with ``--json``."""

from __future__ import annotations

import binascii
import dataclasses
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import click

from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from rich.console import Console

# What moves a terminal's cursor, sets its title or turns its lines around; not tabs and line ends.
_ORDERS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def to_record(value: Any) -> Any:
    """A contract value as JSON: objects by field name, times RFC 3339 in UTC, enums by value, bytes
    in base64."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: to_record(getattr(value, field.name)) for field in fields}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return binascii.b2a_base64(value, newline=False).decode()
    if isinstance(value, Mapping):
        return {str(key): to_record(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_record(item) for item in value]
    return value


def shown(text: str) -> str:
    """``text`` for a terminal: it may be anybody's, so what would be an order to the terminal is
    written as an escape."""
    return _ORDERS.sub(lambda found: ascii(found[0])[1:-1], text)


class Output:
    """Standard output of one command.

    Args:
        as_json: one JSON document (the documented contract) instead of text for people.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """For people; wide enough for a table when it does not go to a terminal."""
        if self._console is None:
            from rich.console import Console

            width = None if sys.stdout.isatty() else 200
            self._console = Console(width=width, highlight=False, soft_wrap=False)
        return self._console

    def record(self, value: Any, lines: Mapping[str, object]) -> None:
        """One thing: the whole ``value`` as JSON, or ``lines`` of name and text."""
        if self.as_json:
            self._json(value)
            return
        # Plain lines, without the library that draws tables: a node says where it is with these.
        width = max((len(name) for name in lines), default=0)
        for name, text in lines.items():
            click.echo(click.style(f"{name:<{width}}  ", dim=True) + shown(str(text)))

    def records(self, value: Any, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Many alike: the whole ``value`` as JSON, or a table."""
        if self.as_json:
            self._json(value)
        else:
            self.table(columns, rows)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table for people; None is shown as a dim ``null``."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(Text(column), overflow="fold")
        for row in rows:
            cells = (Text("null", "dim") if v is None else Text(shown(_text(v))) for v in row)
            table.add_row(*cells)
        self.console.print(table)

    def say(self, text: str, style: str = "") -> None:
        """A sentence for people; nothing with ``--json``."""
        if not self.as_json:
            self.console.print(shown(text), style=style, markup=False, soft_wrap=True)

    def _json(self, value: Any) -> None:
        json.dump(to_record(value), sys.stdout, ensure_ascii=False, indent=1)
        sys.stdout.write("\n")


def show_error(error: LakehouseError, as_json: bool) -> None:
    """Kind, message, fields and hint on standard error; with ``--json`` a JSON object."""
    if as_json:
        body = {"kind": error.kind.value, "detail": error.message, **error.fields}
        sys.stderr.write(json.dumps({"error": body}, ensure_ascii=False) + "\n")
        return
    fields = dict(error.fields)
    hint = fields.pop("hint", None)
    fields.pop("http_status", None)
    sys.stderr.write(f"error ({error.kind.value}): {shown(error.message)}\n")
    for name, value in fields.items():
        if value not in (None, "", [], {}):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            sys.stderr.write(f"  {name}: {shown(text)}\n")
    if hint:
        sys.stderr.write(f"  hint: {shown(str(hint))}\n")


def size_text(size_bytes: int) -> str:
    """``1536`` -> ``1.5 KiB``."""
    value, unit = float(size_bytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def counted(number: int, what: str) -> str:
    """``1 row``, ``2 rows``, ``1,000 rows``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def time_text(when: datetime) -> str:
    """To the second, UTC."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, datetime):
        return time_text(value)
    return str(value)
