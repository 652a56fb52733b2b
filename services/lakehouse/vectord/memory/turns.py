"""Turns as rows of a dataset: their schema, their ids, and what may not be one. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import orjson
import pyarrow as pa

from lakehouse.contracts.memory import TURN_BYTES_MAX, TURNS_MAX, Turn
from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.kit.clock import to_datetime, to_micros
from lakehouse.model.dataset import Card, Dataset, Lineage
from lakehouse.model.schema import Column, Schema
from lakehouse.table.cells import flat
from lakehouse.table.codec import fit
from lakehouse.table.types import arrow_schema

__all__ = [
    "COLUMNS",
    "CONVERSATION",
    "KEY",
    "SCHEMA",
    "TEXT",
    "TIME_US_MAX",
    "bad",
    "card_of",
    "check_time",
    "checked",
    "checked_names",
    "entity_of",
    "id_of",
    "is_memory",
    "table_of",
    "turns_of",
]

CONVERSATION: Final = "conversation"
"""The tag of a dataset that is a memory, and the kind of source that its rows come from."""

KEY: Final = ("id",)
TEXT: Final = ("text",)
_KINDS: Final = {
    "id": "string",
    "session": "string",
    "at": "timestamptz",
    "who": "string",
    "text": "string",
    "tags": "list<string>",
    "remembered_at": "timestamptz",
}
COLUMNS: Final = tuple(_KINDS)
SCHEMA: Final = Schema(
    1, tuple(Column(at, name, kind) for at, (name, kind) in enumerate(_KINDS.items(), 1))
)
TIME_US_MAX: Final = 253_402_300_799_000_000
"""The last second of the year 9999, in microseconds since 1970."""

_NAME_MAX: Final = 1_000
_TAGS_MAX: Final = 100
_SHOWN: Final = 80


def card_of(owner: str) -> Card:
    """Of a memory that is made."""
    return Card(
        owner=owner,
        description="turns of conversations, each once",
        tags=(CONVERSATION,),
        lineage=Lineage(source_system=CONVERSATION, ingest="vectord"),
    )


def is_memory(dataset: Dataset) -> bool:
    """Whether ``dataset`` has the tag and the columns; it may have others besides."""
    kinds = {column.name: column.type for column in dataset.schema.columns}
    has = all(kinds.get(name) == kind for name, kind in _KINDS.items())
    return has and dataset.primary_key == KEY and CONVERSATION in dataset.card.tags


def checked(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """``turns`` with their ids; what is said of them by whoever sends them is not believed.

    Raises ``invalid`` naming the first that is none by its place, from 1.
    """
    if not 1 <= len(turns) <= TURNS_MAX:
        raise bad("turns are too few or too many", turns=len(turns), minimum=1, maximum=TURNS_MAX)
    for place, turn in enumerate(turns, 1):
        try:
            _check(turn)
        except LakehouseError as error:
            error.fields["turn"] = place
            raise
    return tuple(
        [replace(turn, tags=_tags(turn), id=id_of(turn), remembered_at=None) for turn in turns]
    )


def checked_names(session: str, who: str, tags: Sequence[str]) -> None:
    """Raise ``invalid`` for what no turn can have."""
    for field, value in (("session", session), ("who", who)):
        if len(value) > _NAME_MAX or not _names(value):
            raise bad(f"{field} is too long or no text", maximum=_NAME_MAX)
    if len(tags) > _TAGS_MAX or any(not 0 < len(tag) <= _NAME_MAX for tag in tags):
        raise bad(
            "tags are too many, too long or empty",
            tags=len(tags),
            maximum=_TAGS_MAX,
            characters_maximum=_NAME_MAX,
        )
    if not all(_names(tag) for tag in tags):
        raise bad("a tag is no text")


def check_time(when: datetime | None, field: str) -> None:
    """Raise ``invalid`` for a time without a zone, or one that is before the year 1 in UTC, or
    after 9999."""
    if when is None:
        return
    if when.tzinfo is None:
        raise bad(f"{field} does not say its zone", given=when.isoformat(), hint="add Z for UTC")
    try:
        when.astimezone(UTC)
    except OverflowError:
        raise bad(f"{field} is out of range", given=when.isoformat()) from None


def id_of(turn: Turn) -> str:
    """64 hex digits: the same turn has the same id wherever it is remembered."""
    at = None if turn.at is None else to_micros(turn.at)
    return hashlib.sha256(orjson.dumps([turn.session, turn.who, at, turn.text])).hexdigest()


def entity_of(turn_id: str) -> str:
    """The key of its row, as hits have it."""
    return f'["{turn_id}"]'


def table_of(turns: Sequence[Turn], first_us: int) -> pa.Table:
    """Rows of new turns: the first is remembered at ``first_us``, each other a microsecond after
    the one before, so that their order is the one in which they came."""
    came = range(first_us, first_us + len(turns))
    said = [
        us if turn.at is None else to_micros(turn.at) for turn, us in zip(turns, came, strict=True)
    ]
    times = pa.timestamp("us", "UTC")
    columns = [
        pa.array([turn.id for turn in turns], pa.string()),
        pa.array([turn.session for turn in turns], pa.string()),
        pa.array(said, pa.int64()).cast(times),
        pa.array([turn.who for turn in turns], pa.string()),
        pa.array([turn.text for turn in turns], pa.string()),
        pa.array([list(turn.tags) for turn in turns], pa.list_(pa.string())),
        pa.array(came, pa.int64()).cast(times),
    ]
    return pa.Table.from_arrays(columns, names=list(COLUMNS)).cast(arrow_schema(SCHEMA))


def turns_of(table: pa.Table) -> list[Turn]:
    """Of rows with ``COLUMNS``."""
    texts = {name: table.column(name).to_pylist() for name in ("id", "session", "who", "text")}
    tags = table.column("tags").to_pylist()
    at, came = _times(table, "at"), _times(table, "remembered_at")
    return [
        Turn(
            text=texts["text"][row] or "",
            who=texts["who"][row] or "",
            session=texts["session"][row] or "",
            at=at[row],
            tags=tuple([tag for tag in tags[row] or () if tag]),
            id=texts["id"][row],
            remembered_at=came[row],
        )
        for row in range(table.num_rows)
    ]


def bad(message: str, **fields: FieldValue) -> LakehouseError:
    return LakehouseError(ErrorKind.INVALID, message, **fields)


def _times(table: pa.Table, name: str) -> list[datetime | None]:
    fitted = fit(flat(table.column(name)), "timestamptz")
    assert fitted is not None
    micros = fitted.cast(pa.int64()).to_pylist()
    return [None if us is None else to_datetime(us) for us in micros]


def _check(turn: Turn) -> None:
    checked_names(turn.session, turn.who, turn.tags)
    if not turn.text.strip():
        raise bad("a turn has no text", hint="leave out turns in which nothing was said")
    if not _encodes(turn.text):
        raise bad("a turn's text is no Unicode text", text=ascii(turn.text[:_SHOWN]))
    if len(turn.text) > TURN_BYTES_MAX or len(turn.text.encode()) > TURN_BYTES_MAX:
        raise bad(
            "a turn's text is too long",
            maximum_bytes=TURN_BYTES_MAX,
            hint="split it into several turns",
        )
    check_time(turn.at, "at")


def _tags(turn: Turn) -> tuple[str, ...]:
    return tuple(dict.fromkeys(turn.tags))


def _names(text: str) -> bool:
    """SQL has no text with a NUL, and what cannot be asked for is no name."""
    return "\0" not in text and _encodes(text)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
