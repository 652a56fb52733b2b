"""Query parameters and headers that several routes share, and how their texts are read."""

from __future__ import annotations

import csv
import dataclasses
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Path, Query
from pydantic import BeforeValidator

from lakehouse.contracts.catalog import AsOf
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.bodies import AS_OF_CHARS_MAX, INT64_MAX, aware

_DIGITS_MAX: Final = 19
_TAG: Final = "tag:"
REASON_CHARS_MAX: Final = 1000

Name = Annotated[
    str,
    Path(
        description="A dataset's name, percent-encoded; compared without case.",
        examples=["people"],
        max_length=1000,
    ),
]
Cursor = Annotated[
    str, Query(description="`next` of the page before; absent for the first.", max_length=4000)
]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most entries on a page.")]
LongLimit = Annotated[int, Query(ge=1, le=10_000, description="Most entries on a page.")]
# A flag that is named and given no value is meant: ``?dry_run`` must not become a run.
Flag = Annotated[bool, BeforeValidator(lambda text: text if text != "" else True)]
DryRun = Annotated[Flag, Query(description="Only say what would be done.")]
Plan = Annotated[
    str, Query(description="The hash a dry run gave: apply exactly that plan.", max_length=200)
]
ExpectedVersion = Annotated[
    int | None,
    Query(ge=0, le=INT64_MAX, description="Refuse unless the dataset is at this version."),
]
Since = Annotated[
    str,
    Query(
        description="From then on: a duration (`15m`, `1h`, `7d`) or an RFC 3339 time.",
        examples=["7d"],
        max_length=64,
    ),
]
Until = Annotated[
    str, Query(description="Before then: a duration or an RFC 3339 time.", max_length=64)
]
Reason = Annotated[
    str,
    Query(
        description="Why: it stays in the journal.", examples=["moved"], max_length=REASON_CHARS_MAX
    ),
]


def parse_as_of(text: str) -> AsOf:
    """``812`` is a version of the store, ``2026-11-01T12:00:00Z`` a time, ``tag:march`` the version
    that the tag names; "" is now.

    Raises ``invalid`` for anything else.
    """
    if not text:
        return AsOf()
    if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX and int(text) <= INT64_MAX:
        return AsOf(version=int(text))
    if text.startswith(_TAG) and len(text) > len(_TAG):
        return AsOf(tag=text.removeprefix(_TAG))
    # A plus sign that was not percent-encoded arrives as a space.
    when = aware(text.replace(" ", "+") if "T" in text else text)
    if when is None:
        raise LakehouseError(
            ErrorKind.INVALID,
            "as_of must be a version of the store, an RFC 3339 time with its zone, or a tag",
            as_of=ascii(text[:80])[1:-1],
            hint="for example 812, 2026-11-01T12:00:00Z or tag:march",
        )
    return AsOf(time=when)


def point(at: int | str | None) -> AsOf:
    """The same of a value in a JSON body, where a version is a number; None is now."""
    return AsOf(version=at) if isinstance(at, int) else parse_as_of(at or "")


AS_OF: Final[dict[str, Any]] = {
    "description": "A version of the store, an RFC 3339 time or a tag (`tag:march`); absent: now.",
    "examples": ["812"],
    "max_length": AS_OF_CHARS_MAX,
}
"""What every parameter that is a point in time says of itself."""


async def _as_of(
    as_of: Annotated[str, Query(**AS_OF)] = "",
    lakehouse_min_version: Annotated[
        int | None, Header(ge=0, le=INT64_MAX, description="Read at least this version.")
    ] = None,
) -> AsOf:
    found = parse_as_of(as_of)
    if lakehouse_min_version is None:
        return found
    return dataclasses.replace(found, min_version=lakehouse_min_version)


AsOfParam = Annotated[AsOf, Depends(_as_of)]


def split_list(values: list[str]) -> tuple[str, ...]:
    """Repeated parameters, each a list with commas; a quoted item may hold a comma.

    >>> split_list(["a,b", '"c,d"'])
    ('a', 'b', 'c,d')
    """
    try:
        rows = [row for value in values for row in csv.reader([value], strict=True)]
    except csv.Error:
        raise LakehouseError(
            ErrorKind.INVALID,
            "a list parameter has an unbalanced quote",
            value=ascii(values)[:200],
        ) from None
    return tuple(item for row in rows for item in (row or [""]))


def split_schema(text: str) -> tuple[tuple[str, str], ...]:
    """``id:string,"odd,name":decimal(10,2)`` as pairs of column and type text.

    Commas within brackets belong to the type. Raises ``invalid`` where a pair has no type.
    """
    pairs = []
    for item in _outer_split(text):
        name, type_text = _name_and_type(item.strip())
        if not name or not type_text:
            raise LakehouseError(
                ErrorKind.INVALID,
                "schema must be a list of column:type",
                at=ascii(item[:80])[1:-1],
                hint="for example schema=id:string,age:int64",
            )
        pairs.append((name, type_text))
    return tuple(pairs)


def _outer_split(text: str) -> list[str]:
    depth, start, quoted, items = 0, 0, False, []
    for at, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif char in "(<":
            depth += 1
        elif char in ")>":
            depth -= 1
        elif char == "," and depth == 0:
            items.append(text[start:at])
            start = at + 1
    if quoted:
        raise LakehouseError(ErrorKind.INVALID, "schema has an unbalanced quote")
    return [*items, text[start:]] if text.strip() else []


def _name_and_type(item: str) -> tuple[str, str]:
    if item.startswith('"'):
        name, _, rest = item[1:].partition('"')
        return name, rest.removeprefix(":").strip()
    name, _, rest = item.partition(":")
    return name.strip(), rest.strip()
