"""Files of records that commands read: a JSON list, one object, or an object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from lakehouse.cli.sources import chunks_of, open_source
from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from lakehouse.contracts.memory import Turn
    from lakehouse.contracts.trials import EvalQuery

_BYTES_MAX: Final = 64 * 1024 * 1024
_TURN: Final[Mapping[str, type]] = {
    "text": str,
    "who": str,
    "session": str,
    "at": str,
    "tags": list,
}
_QUERY: Final[Mapping[str, type]] = {"text": str, "vector": list, "relevant": list, "grades": list}


async def read_records(source: str) -> list[Any]:
    """What is in a file, or in standard input for "-".

    Raises ``not_found``; ``invalid``: it is no JSON, not even line by line, or too large.
    """
    size, stream = open_source(source)
    body = bytearray()
    async for chunk in chunks_of(stream, lambda count: None):
        body += chunk
        if max(len(body), size or 0) > _BYTES_MAX:
            raise LakehouseError(
                ErrorKind.INVALID, "the file is too large", path=source, bytes_max=_BYTES_MAX
            )
    return parsed(bytes(body), source)


def parsed(body: bytes, source: str) -> list[Any]:
    """Raises ``invalid`` that names the line."""
    try:
        whole = json.loads(body)
    except ValueError:
        return [_line(line, number, source) for number, line in _lines(body)]
    return whole if isinstance(whole, list) else [whole]


def _lines(body: bytes) -> list[tuple[int, bytes]]:
    return [(n, line) for n, line in enumerate(body.splitlines(), 1) if line.strip()]


def _line(line: bytes, number: int, source: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the file is neither JSON nor an object a line",
            path=source,
            line=number,
            reason=str(error).lower()[:200],
        ) from error


def turns(records: list[Any]) -> tuple[Turn, ...]:
    """Turns of a conversation. Raises ``invalid`` that names the record."""
    return tuple(_turn(record, number) for number, record in enumerate(records, 1))


def _turn(record: Any, number: int) -> Turn:
    from lakehouse.contracts.memory import Turn

    given = _checked(record, _TURN, number)
    if not given.get("text"):
        raise _wrong(number, "it has no text")
    if not all(isinstance(tag, str) for tag in given.get("tags", [])):
        raise _wrong(number, "its tags must be texts")
    at = moment(given["at"]) if given.get("at") else None
    named = (given.get("who", ""), given.get("session", ""))
    return Turn(given["text"], *named, at, tuple(given.get("tags", ())))


def moment(text: str) -> datetime:
    """An RFC 3339 time with its zone. Raises ``invalid``."""
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is not None:
            return when.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise LakehouseError(
        ErrorKind.INVALID,
        "a time must be RFC 3339 with its zone",
        value=text,
        hint="for example 2026-01-31T10:00:00Z",
    )


def eval_queries(records: list[Any]) -> tuple[EvalQuery, ...]:
    """Queries with the keys they should find. Raises ``invalid`` that names the record."""
    return tuple(_query(record, number) for number, record in enumerate(records, 1))


def _query(record: Any, number: int) -> EvalQuery:
    from array import array

    from lakehouse.contracts.trials import EvalQuery

    given = _checked(record, _QUERY, number)
    try:
        vector = array("f", given.get("vector", ()))
        grades = tuple(float(grade) for grade in given.get("grades", ()))
    except (TypeError, ValueError, OverflowError):
        raise _wrong(number, "a vector and grades are numbers") from None
    if bool(given.get("text")) == bool(vector):
        raise _wrong(number, "it must have a text or a vector")
    relevant = tuple(key_json(key) for key in given.get("relevant", ()))
    return EvalQuery(given.get("text", ""), _little_endian(vector), relevant, grades)


def _little_endian(vector: Any) -> bytes:
    import sys

    if sys.byteorder == "big":
        vector.byteswap()
    packed: bytes = vector.tobytes()
    return packed


def key_json(key: Any) -> str:
    """A key as hits have it: the JSON array of its values; one value is a key of one column."""
    if isinstance(key, str):
        return key
    values = key if isinstance(key, list) else [key]
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def _checked(record: Any, fields: Mapping[str, type], number: int) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise _wrong(number, "it is no object")
    unknown = sorted(set(record) - set(fields))
    if unknown:
        raise _wrong(number, f"there is no field {unknown[0]!r} here", known=sorted(fields))
    given = {name: value for name, value in record.items() if value is not None}
    for name, value in given.items():
        if not isinstance(value, fields[name]):
            kind = "a text" if fields[name] is str else "a list"
            raise _wrong(number, f"{name} must be {kind}")
    return given


def _wrong(number: int, reason: str, **fields: Any) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID,
        "a record of the file is not valid",
        record=number,
        reason=reason,
        **fields,
    )
