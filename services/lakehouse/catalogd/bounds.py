"""Bounds of what a commit may say: all of it must fit a checkpoint, for ever.

What is in the chain has happened; a value that a record can hold and a checkpoint cannot would
stop every fold after it. So each number and text has a bound here, refused as ``invalid``.
"""

from __future__ import annotations

from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import CONTENTS, Card, DataFile
from lakehouse.model.schema import Column

__all__ = ["check_card", "check_file", "check_ids", "check_number", "check_sums", "check_texts"]

NUMBER_MAX: Final = 2**53
SUM_MAX: Final = 2**60
ID_MAX: Final = 2**31 - 1
TEXT_MAX: Final = 1024
NAME_MAX: Final = 65_536
CARD_TEXT_MAX: Final = 10_000
LIST_MAX: Final = 100
COLUMNS_MAX: Final = 50_000
INPUTS_MAX: Final = 10_000
_FILE_STATS_MAX: Final = 50_000


def _invalid(message: str, **fields: str | int | float) -> LakehouseError:
    return LakehouseError(ErrorKind.INVALID, message, **fields)


def check_texts(longest: int = TEXT_MAX, **texts: str) -> None:
    """Raise ``invalid`` unless each of ``texts`` is Unicode of at most ``longest`` characters."""
    for name, text in texts.items():
        if len(text) > longest:
            raise _invalid("a text is too long", field=name, characters=len(text), max=longest)
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise _invalid("a text is not valid Unicode", field=name)


def check_number(what: str, value: int, most: int = NUMBER_MAX) -> None:
    """Raise ``invalid`` unless ``value`` is in [0, most]."""
    if not 0 <= value <= most:
        raise _invalid("a number is out of range", field=what, value=str(value)[:40], max=most)


def check_file(file: DataFile) -> None:
    """Sizes, rows and statistics of one file."""
    check_number("size_bytes", file.size_bytes)
    check_number("rows", file.rows)
    check_number("seq", file.seq)
    check_texts(bucket=file.bucket, rows_hash=file.rows_hash)
    if file.content not in CONTENTS or file.encryption:
        raise _invalid(
            "a file has a content or an encryption that this version does not know",
            key=file.key,
            content=file.content[:40],
            encryption=file.encryption[:40],
        )
    if len(file.stats) > _FILE_STATS_MAX:
        raise _invalid("too many statistics", key=file.key, max=_FILE_STATS_MAX)
    for one in file.stats:
        check_number("column_id", one.column_id, ID_MAX)
        if one.null_count is not None:
            check_number("null_count", one.null_count)
        check_texts(minimum=one.minimum or "", maximum=one.maximum or "")


def check_sums(size_bytes: int, rows: int) -> None:
    """The sums over a dataset's files, and over what one commit adds to it."""
    check_number("size_bytes of the dataset", size_bytes, SUM_MAX)
    check_number("rows of the dataset", rows, SUM_MAX)


def check_ids(columns: tuple[Column, ...] | list[Column]) -> None:
    """Ids, names and types of the columns of a schema."""
    if len(columns) > COLUMNS_MAX:
        raise _invalid("too many columns", columns=len(columns), max=COLUMNS_MAX)
    for column in columns:
        check_number("column id", column.id, ID_MAX)
        check_texts(NAME_MAX, name=column.name, type=column.type)


def check_card(card: Card) -> None:
    """Texts, lists and numbers of a card."""
    if len(card.tags) > LIST_MAX:
        raise _invalid("the card is too large", tags=len(card.tags), tags_max=LIST_MAX)
    check_texts(CARD_TEXT_MAX, owner=card.owner, description=card.description)
    for tag in card.tags:
        check_texts(CARD_TEXT_MAX, tag=tag)
    lineage = card.lineage
    check_texts(CARD_TEXT_MAX, source_system=lineage.source_system, ingest=lineage.ingest)
    lists = {"inputs": lineage.inputs, "pii": card.pii, "detected": card.detected}
    for name, items in lists.items():
        if len(items) > INPUTS_MAX:
            raise _invalid("the card is too large", field=name, items=len(items), max=INPUTS_MAX)
    for text in (*lineage.inputs, *card.detected):
        check_texts(CARD_TEXT_MAX, item=text)
    for found in card.pii:
        check_texts(NAME_MAX, column=found.column, kind=found.kind)
        if not 0 <= found.confidence <= 1:
            raise _invalid("a confidence is from 0 to 1", column=found.column[:100])
    sla = card.freshness_sla_seconds
    if sla is not None and not 0 < sla <= NUMBER_MAX:
        raise _invalid("a freshness sla is more than 0 seconds", seconds=str(sla)[:40])
