"""Mentions of relations, also at a point in time of their own: ``people FOR VERSION AS OF 812``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlglot import exp

from lakehouse.contracts.as_of import AsOf
from lakehouse.model.refs import name_key
from lakehouse.queryd.parse import invalid

PUBLIC_SCHEMA: Final = "public"
POINTS_MAX: Final = 32
_VERSION_MAX: Final = 2**63 - 1
_VERSION_HINT: Final = "write FOR VERSION AS OF 812, or FOR VERSION AS OF 'tag'"
_TIME_HINT: Final = "write FOR TIMESTAMP AS OF '2026-03-01 12:00:00'; without a zone it is UTC"
_TIMES: Final = frozenset(
    {exp.DType.TIMESTAMP, exp.DType.TIMESTAMPTZ, exp.DType.DATE, exp.DType.TIMESTAMPNTZ}
)


@dataclass(frozen=True, slots=True)
class Mention:
    """A relation as a statement names it. ``as_of``: its own point in time, None for the one of
    the request; ``point``: the same as text."""

    name: str
    as_of: AsOf | None = None
    point: str = ""

    @property
    def key(self) -> str:
        """The same for mentions of the same rows; for a mention without a point, the name's."""
        return f"{name_key(self.name)}\n{self.point}" if self.point else name_key(self.name)


def mention_of(table: exp.Table) -> Mention:
    """The mention that ``table`` is. Raises ``invalid`` for a point that is no literal."""
    schema, name = table.args.get("db"), str(table.name)
    if schema is not None and schema.name != PUBLIC_SCHEMA:
        name = f"{schema.name}.{name}"
    version = table.args.get("version")
    if version is None:
        return Mention(name)
    if version.args.get("kind") != "AS OF":
        raise invalid("of versions there is AS OF alone", hint=_VERSION_HINT)
    return _at_version(name, version) if version.name == "VERSION" else _at_time(name, version)


def _at_version(name: str, version: exp.Version) -> Mention:
    value = version.args.get("expression")
    text = str(value.this) if isinstance(value, exp.Literal) else ""
    if not isinstance(value, exp.Literal) or not text:
        raise invalid(
            "a version is a number or the name of a tag, as a literal", hint=_VERSION_HINT
        )
    if value.is_string:
        return Mention(name, AsOf(tag=text), f"'{text}'" if text.isdigit() else text)
    if not (text.isdecimal() and int(text) <= _VERSION_MAX):
        raise invalid("a version is a whole number", version=text[:40], hint=_VERSION_HINT)
    return Mention(name, AsOf(version=int(text)), str(int(text)))


def _at_time(name: str, version: exp.Version) -> Mention:
    value = version.args.get("expression")
    if isinstance(value, exp.Cast) and value.to.this in _TIMES:
        value = value.this
    if not isinstance(value, exp.Literal) or not value.is_string:
        raise invalid("a point in time is a text or a timestamp, as a literal", hint=_TIME_HINT)
    try:
        when = datetime.fromisoformat(str(value.this).strip())
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid(
            "this is no point in time", time=str(value.this)[:80], hint=_TIME_HINT
        ) from None
    return Mention(name, AsOf(time=when), when.isoformat())
