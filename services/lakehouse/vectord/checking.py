"""What may be asked of a search."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from lakehouse.contracts import vectors as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.retrieval import SearchMode
from lakehouse.model.vectors import Distance, IndexVersion
from lakehouse.vectord.comparing import HITS_MAX
from lakehouse.vectord.nearest import LENGTH_MAX, too_long
from lakehouse.vectord.ports import Vectors

__all__ = ["check", "check_model", "given"]

EF_MAX: Final = 100_000
_FLOAT: Final = np.dtype("<f4")


def check(request: c.SearchRequest) -> None:
    count = len(request.queries)
    if not 1 <= count <= c.QUERIES_MAX:
        raise _out_of_range("queries", count, c.QUERIES_MAX)
    if not 1 <= request.k <= c.K_MAX:
        raise _out_of_range("k", request.k, c.K_MAX)
    if count * request.k > HITS_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            "so many hits are too many for one answer",
            queries=count,
            k=request.k,
            maximum=HITS_MAX,
            hint="ask for fewer hits, or in several calls",
        )
    if not 0 <= request.ef <= EF_MAX:
        raise LakehouseError(
            ErrorKind.INVALID, f"ef must be from 0 to {EF_MAX}", ef=request.ef, maximum=EF_MAX
        )
    for at, query in enumerate(request.queries):
        _check_query(at, query, request.mode)


def _check_query(at: int, query: c.VectorQuery, mode: SearchMode) -> None:
    if query.vector and query.text and mode is not SearchMode.HYBRID:
        raise LakehouseError(ErrorKind.INVALID, "a query is a text or a vector, not both", query=at)
    if query.vector and not query.text and mode is not SearchMode.VECTOR:
        raise LakehouseError(
            ErrorKind.INVALID,
            "a vector has no words to search for",
            query=at,
            mode=mode.value,
            hint="give the text too, in mode hybrid, or search in mode vector",
        )
    if query.vector and not query.text:
        return
    if not query.text.strip():
        raise LakehouseError(
            ErrorKind.INVALID, "a query is empty", query=at, hint="give it a text or a vector"
        )
    try:
        query.text.encode()
    except UnicodeEncodeError as error:
        raise LakehouseError(
            ErrorKind.INVALID, "a text to search for is no Unicode", query=at, position=error.start
        ) from error
    if len(query.text) > c.TEXT_BYTES_MAX or len(query.text.encode()) > c.TEXT_BYTES_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            "a text to search for is too long",
            query=at,
            maximum_bytes=c.TEXT_BYTES_MAX,
            hint="search with a sentence or a paragraph",
        )


def _out_of_range(what: str, value: int, most: int) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID, f"{what} must be from 1 to {most}", given=value, maximum=most
    )


def check_model(request: c.SearchRequest, version: IndexVersion) -> None:
    if request.model and request.model != version.model:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the index was embedded by another model",
            index=request.index,
            number=version.number,
            model=version.model,
            asked=request.model[:255],
            hint="search with vectors of the index's model, or build a version with this one",
        )


def given(data: bytes, version: IndexVersion) -> Vectors:
    """A vector that came with a request. Raises ``invalid``."""
    if len(data) != version.dimensions * _FLOAT.itemsize:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the vector has another dimension than the index",
            dimensions=version.dimensions,
            given=len(data) // _FLOAT.itemsize,
            model=version.model,
            hint="embed queries by the model of the index",
        )
    vector: Vectors = np.frombuffer(data, _FLOAT)
    whole = vector.astype(np.float64)
    # Squares of float32 in float64 neither overflow nor vanish: their sum tells all at once.
    square = float(whole @ whole)
    if not math.isfinite(square):
        at = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise LakehouseError(
            ErrorKind.INVALID, "the vector has a value that is no finite number", position=at
        )
    if version.profile.distance is not Distance.COSINE:
        if too_long(vector[None, :], version.profile.distance)[0]:
            raise LakehouseError(
                ErrorKind.INVALID,
                "the vector is too long to be compared",
                maximum=LENGTH_MAX,
                hint="scale the vectors of the index and of its queries down",
            )
    elif square == 0.0:
        raise LakehouseError(
            ErrorKind.INVALID,
            "a vector of zeros points nowhere: no cosine can be told of it",
            hint="give a vector with a value other than 0",
        )
    return vector
