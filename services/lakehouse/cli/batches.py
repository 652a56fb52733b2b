"""Batches of row changes, as commands take them: files, rows, keys and fields in words.

Words are read by the columns that they are for: ``007`` for a column of texts stays ``007``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from lakehouse.cli.sources import chunks_of, open_source
from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from lakehouse.contracts.ingest import ColumnOverride
    from lakehouse.model.dataset import Dataset

_TEXTS: Final = ("string", "date", "time", "timestamp", "binary")


async def read_batch(source: str) -> bytes:
    """A whole file, or standard input for "-". Raises ``not_found``, ``invalid`` (too large)."""
    from lakehouse.contracts.rows import CHANGE_BYTES_MAX

    size, stream = open_source(source)
    held, chunks = 0, []
    async for chunk in chunks_of(stream, lambda count: None):
        chunks.append(chunk)
        held += len(chunk)
        if max(held, size or 0) > CHANGE_BYTES_MAX:
            raise LakehouseError(
                ErrorKind.INVALID,
                "the batch is too large",
                path=source,
                bytes_max=CHANGE_BYTES_MAX,
                hint="it is a file: lakehouse ingest --mode upsert",
            )
    return b"".join(chunks)


def key_text(dataset: Dataset, words: str) -> str:
    """A key as JSON: the value of a key of one column, or a JSON array of the values."""
    columns = dataset.primary_key
    if len(columns) == 1 and words[:1] not in ("[", '"'):
        return value_text(dataset, columns[0], words)
    try:
        json.loads(words)
    except ValueError:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the key has several columns: give their values as a JSON array",
            value=words,
            columns=list(columns),
            hint="for example '[\"a\", 7]'",
        ) from None
    return words


def fields_text(dataset: Dataset, given: Sequence[str], nulls: Sequence[str] = ()) -> str:
    """``NAME=VALUE`` as a JSON object of values as their columns have them."""
    parts = []
    for text in given:
        name, equals, words = text.partition("=")
        if not equals or not name:
            raise LakehouseError(
                ErrorKind.INVALID, "a field is NAME=VALUE", value=text, hint="phone=555"
            )
        parts.append(f"{json.dumps(name)}: {value_text(dataset, name, words)}")
    parts += [f"{json.dumps(name)}: null" for name in nulls]
    return "{" + ", ".join(parts) + "}"


def value_text(dataset: Dataset, name: str, words: str) -> str:
    """``words`` as JSON: a text for a column of texts, else what they say if they are JSON."""
    folded = name.casefold()
    types = [c.type for c in dataset.schema.columns if c.name.casefold() == folded]
    # A column that is not there is the node's to refuse, with the nearest name.
    if types and not types[0].startswith(_TEXTS):
        try:
            json.loads(words, parse_constant=_no_json)
        except ValueError:
            return json.dumps(words)
        return words
    return json.dumps(words)


def _no_json(constant: str) -> Any:
    raise ValueError(constant)


def typed_columns(given: Sequence[str]) -> tuple[ColumnOverride, ...]:
    """``NAME=TYPE`` as columns. Raises ``invalid``."""
    from lakehouse.contracts.ingest import ColumnOverride

    columns = []
    for text in given:
        name, equals, kind = text.rpartition("=")
        if not equals or not name or not kind:
            raise LakehouseError(
                ErrorKind.INVALID,
                "a column is NAME=TYPE",
                value=text,
                hint="for example zip=string",
            )
        columns.append(ColumnOverride(name, kind))
    return tuple(columns)
