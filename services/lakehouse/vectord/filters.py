"""SQL predicates over the columns of a dataset, as the rows of an image that they hold for."""

from __future__ import annotations

import re
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.query import QueryLimits, QueryRequest, ResultFormat
from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context, Principal
from lakehouse.table.cells import flat
from lakehouse.table.codec import fit
from lakehouse.table.keys import entity_texts, key_columns
from lakehouse.vectord.image import Image
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ranges import quoted
from lakehouse.vectord.source import Source

__all__ = ["FILTER_BYTES_MAX", "Filters", "is_settled", "matching_entities"]

Flags = npt.NDArray[np.bool_]

FILTER_BYTES_MAX: Final = 64 * 1024
_CONDITION: Final = "write a condition over the columns of the dataset, as in year > 2020"
_SHOWN_CHARS_MAX: Final = 200
_KEPT_BYTES_MAX: Final = 64 << 20
_KEPT_MAX: Final = 1_000

# Longer ones are rare, and would be looked through at each search.
_SETTLED_MAX: Final = 4_096
_TOKEN: Final = re.compile(
    r"""\s+
    | (?:(?:date|timestamp|timestamptz)\s*)?'(?P<text>[^']*)'
    | "(?P<quoted>[^"]+)"
    | (?P<word>[^\W\d]\w*)(?P<call>\s*\()?
    | [0-9]+(?:\.[0-9]+)?
    | <> | != | <= | >= | [=<>+*/%(),.-]""",
    re.VERBOSE | re.IGNORECASE,
)
_OPERATORS: Final = frozenset("and or not in is null like ilike between true false".split())  # noqa: SIM905 - a list of words reads better
# A word that is a function without brackets, or a time that is none of its own.
_PASSING: Final = re.compile(
    r"(current|local).*|now|today|tomorrow|yesterday|(session_|system_)?user|random|rand"
)


@dataclass(frozen=True, slots=True)
class _Key:
    """What an answer depends on. The dataset at ``version`` has other rows, or other columns, at no
    other; who asks stands in it because what somebody may see is no answer to anybody else."""

    principal: Principal
    dataset_id: str
    version: int
    rows_version: int
    predicate: str


@dataclass(frozen=True, slots=True)
class _Kept:
    """``flags`` of one ``image``: of the one that was asked last, while it is there."""

    entities: pa.Array
    image: weakref.ref[Image]
    flags: Flags

    @property
    def size_bytes(self) -> int:
        return int(self.entities.nbytes + self.flags.nbytes)


class Filters:
    """Answers predicates, those that were asked lately out of memory. Belongs to one event loop.

    Attributes:
        hits: how often no query was needed.
        size_bytes: that are kept.
    """

    def __init__(self, parts: VectorParts, bytes_max: int = _KEPT_BYTES_MAX) -> None:
        self._parts = parts
        self._bytes_max = bytes_max
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self.hits = 0
        self.size_bytes = 0

    async def matching(self, ctx: Context, source: Source, image: Image, predicate: str) -> Flags:
        """One flag a row of ``image``: whether it is live, and ``predicate`` holds for its row of
        ``source``. Not to be written to. Raises as ``matching_entities`` does."""
        dataset, jobs = source.dataset, self._parts.jobs
        if not is_settled(predicate, dataset):
            entities = await matching_entities(ctx, self._parts, source, predicate)
            return await run_in(jobs, image.matching, entities)
        key = _Key(ctx.principal, dataset.id, dataset.version, source.rows_version, predicate)
        kept = self._kept.get(key)
        if kept is not None:
            self.hits += 1
            self._kept.move_to_end(key)
            if kept.image() is image:
                return kept.flags
            entities = kept.entities
        else:
            entities = await matching_entities(ctx, self._parts, source, predicate)
        flags = await run_in(jobs, image.matching, entities)
        flags.flags.writeable = False
        self._keep(key, _Kept(entities, weakref.ref(image), flags))
        return flags

    def _keep(self, key: _Key, kept: _Kept) -> None:
        self._drop(key)
        if kept.size_bytes > self._bytes_max // 4:
            return
        self._kept[key] = kept
        self.size_bytes += kept.size_bytes
        while self.size_bytes > self._bytes_max or len(self._kept) > _KEPT_MAX:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: _Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.size_bytes -= kept.size_bytes


def is_settled(predicate: str, dataset: Dataset) -> bool:
    """Whether ``predicate`` says the same of a row whenever it is asked: it is made of columns,
    constants and comparisons alone, as far as one can see without reading SQL. Anything else, were
    it a function, another table or the time, is for the query service, each time."""
    if len(predicate) > _SETTLED_MAX or "--" in predicate or "/*" in predicate:
        return False
    names = {name.casefold() for name in dataset.schema.names()}
    at = 0
    while at < len(predicate):
        token = _TOKEN.match(predicate, at)
        if token is None:
            return False
        at = token.end()
        word, text, name = token["word"], token["text"], token["quoted"]
        if text is not None and _PASSING.fullmatch(text.strip().casefold()):
            return False
        if name is not None and name.casefold() not in names:
            return False
        if word is not None:
            word = word.casefold()
            if word in _OPERATORS:
                continue
            # What follows a word at once makes something else of it: a call, or a text's kind.
            called = token["call"] is not None or predicate[at : at + 1] in ("'", '"')
            if called or word not in names or _PASSING.fullmatch(word):
                return False
    return True


async def matching_entities(
    ctx: Context, parts: VectorParts, source: Source, predicate: str
) -> pa.Array:
    """The keys of the rows for which ``predicate`` holds, as texts, asked with the caller's rights.

    What the predicate says chooses among rows that are searched anyway, so no trick of its grammar
    brings anything else into an answer. Raises ``invalid`` for one that cannot be read or names
    what is not there, and what ``query`` raises.
    """
    dataset = source.dataset
    if len(predicate.encode()) > FILTER_BYTES_MAX:
        raise LakehouseError(
            ErrorKind.INVALID, "the filter is too long", maximum_bytes=FILTER_BYTES_MAX
        )
    names = ", ".join(quoted(name) for name in dataset.primary_key)
    # The line end ends a comment that the predicate may end with.
    sql = f"SELECT {names} FROM {quoted(dataset.name)} WHERE (\n{predicate}\n)"
    count = dataset.row_count
    # A predicate that closes the bracket and brings more may not bring more than there is.
    limits = QueryLimits(rows_max=None if count is None else max(1, count))
    request = QueryRequest(
        sql, as_of=AsOf(version=source.version), limits=limits, format=ResultFormat.ARROW
    )
    try:
        stream = await parts.query.run(ctx, request)
        chunks = [chunk async for chunk in stream.chunks]
    except LakehouseError as error:
        if error.message == "the statement does not parse":
            raise _unread(error, predicate) from error
        if limits.rows_max is None or error.fields.get("value") != limits.rows_max:
            raise
        raise LakehouseError(
            ErrorKind.INVALID,
            "the filter gives more rows than the dataset has",
            dataset=dataset.name,
            rows=limits.rows_max,
            hint=_CONDITION,
        ) from error
    return await run_in(parts.jobs, _entities, b"".join(chunks), dataset)


def _unread(error: LakehouseError, predicate: str) -> LakehouseError:
    # Where in the statement around it would point beside what the caller wrote.
    line = error.fields.get("line")
    told: dict[str, FieldValue] = {"filter": predicate[:_SHOWN_CHARS_MAX]}
    if "reason" in error.fields:
        told["reason"] = error.fields["reason"]
    if isinstance(line, int) and 1 < line <= predicate.count("\n") + 2:
        told |= {"line": line - 1, "column": error.fields.get("column", 0)}
    message = "the filter does not parse"
    return LakehouseError(ErrorKind.INVALID, message, **told, hint=_CONDITION)


def _entities(data: bytes, dataset: Dataset) -> pa.Array:
    with pa.ipc.open_stream(pa.BufferReader(data)) as reader:
        table = reader.read_all()
    arrays = []
    for at, column in enumerate(key_columns(dataset.schema, dataset.primary_key)):
        typed = fit(flat(table.column(at)), column.type)
        if typed is None:
            raise LakehouseError(
                ErrorKind.INVALID,
                "the filter gives keys of another type",
                column=column.name,
                column_type=column.type,
                hint=_CONDITION,
            )
        arrays.append(typed)
    keys = pa.Table.from_arrays(arrays, names=list(dataset.primary_key))
    return flat(entity_texts(keys, dataset.schema, dataset.primary_key))
