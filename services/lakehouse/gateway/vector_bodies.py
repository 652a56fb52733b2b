"""Bodies of requests about vectors: indexes, profiles, searches.

A vector has hundreds of numbers: it is taken as a whole here, never validated number by number.
"""

from __future__ import annotations

import binascii
import math
import struct
import sys
from array import array
from contextlib import suppress
from typing import Annotated, Any, Final

import orjson
from pydantic import Field, PlainValidator, RootModel, WithJsonSchema
from pydantic_core import PydanticCustomError

from lakehouse.contracts.as_of import AsOf
from lakehouse.contracts.profiles import PutProfileRequest
from lakehouse.contracts.vectors import (
    ALSO_MAX,
    CANDIDATES_MAX,
    K_MAX,
    QUERIES_MAX,
    RERANKED_MAX,
    TEXT_BYTES_MAX,
    BuildRequest,
    CompareRequest,
    CreateIndexRequest,
    Relevant,
    SearchRequest,
    VectorQuery,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.bodies import Body, Point, Text, Whole
from lakehouse.gateway.params import point
from lakehouse.model.retrieval import RecordClass, Rerank, SearchMode
from lakehouse.model.vectors import (
    DIMENSIONS_MAX,
    Chunking,
    ChunkMethod,
    Distance,
    Profile,
    VectorBackend,
)

_COLUMNS_MAX: Final = 1000
_KEYS_MAX: Final = 10_000
_FLOAT_BYTES: Final = 4
_NOW: Final = AsOf()
_NO_VECTOR: Final = "a vector is an array of numbers, or base64 of little-endian float32"

Short = Annotated[str, Field(max_length=1000)]
Number = Annotated[int, Field(ge=0, le=2**31 - 1)]
Asked = Annotated[str, Field(min_length=1, max_length=TEXT_BYTES_MAX)]
IndexField = Annotated[str, Field(min_length=1, max_length=1000)]
Also = Annotated[tuple[IndexField, ...], Field(max_length=ALSO_MAX)]


def float32(given: object) -> array[float]:
    """Numbers, or base64 of little-endian float32, as float32.

    Raises a fault that says which number is none, or none that a vector may have.
    """
    if isinstance(given, str):
        return _decoded(given)
    if not isinstance(given, list | tuple):
        raise _fault(_NO_VECTOR)
    try:
        numbers = array("f", given)
    except (TypeError, OverflowError):
        at = next((n for n, one in enumerate(given) if not _is_number(one)), 0)
        raise _fault(f"value {at} of the vector is no number that float32 holds") from None
    return _finite(numbers)


def _fault(text: str) -> PydanticCustomError:
    """One of a body's faults, in these words."""
    return PydanticCustomError("value", "{text}", {"text": text})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 2**128


def _decoded(text: str) -> array[float]:
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise _fault("a vector that is a text must be base64 of little-endian float32") from None
    if len(raw) % _FLOAT_BYTES:
        raise _fault("the bytes of the vector are no whole number of float32")
    numbers = array("f")
    numbers.frombytes(raw)
    return _finite(_little_endian(numbers))


def _finite(numbers: array[float]) -> array[float]:
    if not numbers:
        raise _fault("the vector is empty")
    if len(numbers) > DIMENSIONS_MAX:
        raise _fault(f"a vector has at most {DIMENSIONS_MAX} dimensions")
    # A sum in float64 of so few finite float32 is finite: one pass tells what most vectors are.
    if not math.isfinite(sum(numbers)):
        at = next(n for n, one in enumerate(numbers) if not math.isfinite(one))
        raise _fault(f"value {at} of the vector is not finite, or too large for float32")
    return numbers


def _little_endian(numbers: array[float]) -> array[float]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _vector(given: object) -> bytes:
    if isinstance(given, list) and 0 < len(given) <= DIMENSIONS_MAX:
        # Nearly always: numbers that float32 holds. What is wrong with others is told below.
        with suppress(struct.error, OverflowError, TypeError):
            packed = struct.pack(f"<{len(given)}f", *given)
            if math.isfinite(sum(given)):
                return packed
    return _little_endian(float32(given)).tobytes()


VECTOR_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": DIMENSIONS_MAX},
        {"type": "string", "contentEncoding": "base64"},
    ],
    "description": "Numbers, or base64 of little-endian float32.",
}
Vector = Annotated[bytes, PlainValidator(_vector), WithJsonSchema(VECTOR_SCHEMA)]


def _key(given: object) -> str:
    """A key as an answer has it: an array of values, or an id."""
    if isinstance(given, str):
        return given
    if isinstance(given, list) and given:
        with suppress(TypeError):  # nested too deeply, or an integer beyond 64 bits
            return orjson.dumps(given).decode()
    raise _fault("a key is an array of the values of the primary key, or an id")


Key = Annotated[
    str,
    PlainValidator(_key),
    WithJsonSchema({"anyOf": [{"type": "array", "items": {}, "minItems": 1}, {"type": "string"}]}),
]


class QueryBody(Body):
    """Either a ``text`` or a ``vector``; both where the mode is hybrid."""

    text: Asked | None = None
    vector: Vector | None = None

    def query(self, mode: SearchMode) -> VectorQuery:
        """Raises ``invalid`` unless it is what the mode can search for."""
        both = self.text is not None and self.vector is not None
        if (both and mode is not SearchMode.HYBRID) or not (both or self.text or self.vector):
            raise LakehouseError(
                ErrorKind.INVALID,
                "a query is either a text or a vector",
                hint='for example {"text": "who repairs roofs"}; both together are for mode hybrid',
            )
        if mode is SearchMode.TEXT and self.text is None:
            raise LakehouseError(
                ErrorKind.INVALID,
                "mode text searches for a text",
                hint="give a text, or leave the mode out to search by the vector",
            )
        return VectorQuery(self.text or "", self.vector or b"")


class SearchBody(QueryBody):
    """One query (``text`` or ``vector``), or many (``queries``), of one index.

    ``k``: so many hits, where there are so many. ``filter``: a SQL predicate over the columns of
    the index's dataset. ``mode``: by meaning, by words (BM25), or both, fused. ``also``: indexes
    that are searched together with this one. ``candidates``: of each stage, for fusion; 0 takes
    what fits ``k``. ``rerank``: another order for the best ``rerank_max``. ``as_of``: rows as they
    were then. ``record``: how the retrieval is remembered. ``exact``: compare with every vector.
    ``ef``: candidates looked at in the graph; 0 as the profile says. ``number``: of the index's
    version; 0 is the live one. ``model``: refuse if another one embedded it.
    """

    index: IndexField
    queries: (
        Annotated[tuple[QueryBody, ...], Field(min_length=1, max_length=QUERIES_MAX)] | None
    ) = None
    k: Annotated[int, Field(ge=1, le=K_MAX)] = 10
    filter: Text = ""
    exact: bool = False
    ef: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    number: Number = 0
    model: Short = ""
    mode: SearchMode = SearchMode.VECTOR
    also: Also = ()
    candidates: Annotated[int, Field(ge=0, le=CANDIDATES_MAX)] = 0
    rerank: Rerank = Rerank.NONE
    rerank_max: Annotated[int, Field(ge=0, le=RERANKED_MAX)] = 0
    as_of: Point | None = None
    record: RecordClass = RecordClass.BEST_EFFORT

    @classmethod
    def quickly(cls, body: bytes) -> SearchBody:
        """Of JSON, in half the time: most of it are the numbers of a vector. What is wrong with a
        body is told as of any other."""
        try:
            return cls.model_validate(orjson.loads(body))
        except ValueError:
            return cls.model_validate_json(body)

    @property
    def many(self) -> bool:
        """Whether the answer is a list of answers."""
        return self.queries is not None

    def request(self) -> SearchRequest:
        """Raises ``invalid`` unless there is one query, or a list of them."""
        return SearchRequest(
            self.index,
            self._queries(),
            self.k,
            self.filter,
            self.number,
            self.model,
            self.ef,
            self.exact,
            self.mode,
            self.also,
            self.candidates,
            self.rerank,
            self.rerank_max,
            _NOW if self.as_of is None else point(self.as_of),
            self.record,
        )

    def _queries(self) -> tuple[VectorQuery, ...]:
        alone = self.text is not None or self.vector is not None
        several = self.text is not None and self.vector is not None
        if alone == self.many or (several and self.mode is not SearchMode.HYBRID):
            raise LakehouseError(
                ErrorKind.INVALID,
                "give either a text, a vector or a list of queries",
                hint='for example {"index": "posts", "text": "who repairs roofs", "k": 5}; a text'
                " with its vector is for mode hybrid",
            )
        return tuple(one.query(self.mode) for one in self.queries or (self,))


class CreateIndexBody(Body):
    """Over ``columns`` of a ``dataset``, or, with both absent, of vectors that are given.

    ``dimensions``: of given vectors. ``build``: begin to embed at once.
    """

    name: Annotated[str, Field(min_length=1, max_length=1000)]
    dataset: Short = ""
    columns: Annotated[tuple[Short, ...], Field(max_length=_COLUMNS_MAX)] = ()
    profile: Short = "default"
    dimensions: Annotated[int, Field(ge=0, le=DIMENSIONS_MAX)] = 0
    build: bool = True

    def request(self) -> CreateIndexRequest:
        return CreateIndexRequest(**self.model_dump())


class BuildBody(Body):
    """Nothing: catch up, or go on. ``new_version`` or a ``profile``: embed all anew beside what is
    live, and, with ``cut_over``, make it live as soon as it is ready.

    ``wait_seconds``: answer when it is done, or after so long.
    """

    new_version: bool = False
    profile: Short = ""
    cut_over: bool = True
    wait_seconds: Annotated[float, Field(ge=0, le=600)] = 0.0

    def request(self, name: str) -> BuildRequest:
        return BuildRequest(name, **self.model_dump())


class CutOverBody(Body):
    """``number``: the version to make live; 0 is the one that was live before."""

    number: Number = 0


class CompareBody(Body):
    """Two versions by number (0: the live one, and the newest other one) on ``queries``, or on
    ``samples`` documents of the index. ``relevant``: for each query the keys that it should find.
    """

    first: Number = 0
    second: Number = 0
    queries: Annotated[tuple[Asked, ...], Field(max_length=QUERIES_MAX)] = ()
    relevant: Annotated[
        tuple[Annotated[tuple[Key, ...], Field(max_length=_KEYS_MAX)], ...],
        Field(max_length=QUERIES_MAX),
    ] = ()
    k: Annotated[int, Field(ge=1, le=K_MAX)] = 10
    samples: Annotated[int, Field(ge=1, le=1000)] = 50

    def request(self, name: str) -> CompareRequest:
        relevant = tuple(Relevant(keys) for keys in self.relevant)
        return CompareRequest(
            name, self.first, self.second, self.queries, relevant, self.k, self.samples
        )


class IdsBody(RootModel[Annotated[tuple[Short, ...], Field(min_length=1, max_length=100_000)]]):
    """Ids of given vectors."""


class ChunkingBody(Body):
    """``size`` and ``overlap`` in words and marks."""

    method: ChunkMethod = Chunking().method
    size: Annotated[int, Field(ge=1, le=1_000_000)] = Chunking().size
    overlap: Annotated[int, Field(ge=0, le=1_000_000)] = Chunking().overlap


_STANDARD: Final = Profile("")


class ProfileBody(Body):
    """What an answer has under ``profile`` may be sent back as it is. What is absent is as in the
    profile that comes with the release."""

    name: Short = ""
    model: Annotated[str, Field(min_length=1, max_length=1000)] = _STANDARD.model
    dimensions: Annotated[int, Field(ge=0, le=DIMENSIONS_MAX)] = _STANDARD.dimensions
    chunking: ChunkingBody = ChunkingBody()
    distance: Distance = _STANDARD.distance
    vector_backend: VectorBackend = _STANDARD.vector_backend
    bucket: Short = _STANDARD.bucket
    hnsw_m: Whole = _STANDARD.hnsw_m
    ef_construction: Whole = _STANDARD.ef_construction
    ef_search: Whole = _STANDARD.ef_search
    exact_rows_max: Whole = _STANDARD.exact_rows_max
    description: Text = ""
    builtin: bool = False

    def request(self, name: str, expected_version: int | None) -> PutProfileRequest:
        """Raises ``invalid`` where the body names another profile than the path."""
        if self.name not in ("", name):
            raise LakehouseError(
                ErrorKind.INVALID,
                "the body names another profile than the path",
                path=name,
                body=self.name,
            )
        given = self.model_dump(exclude={"name", "builtin", "chunking"})
        profile = Profile(name, chunking=Chunking(**self.chunking.model_dump()), **given)
        return PutProfileRequest(profile, expected_version)
