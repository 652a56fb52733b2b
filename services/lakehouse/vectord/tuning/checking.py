"""What is asked of trials, held to its ranges. Pure."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from lakehouse.contracts import trials as c
from lakehouse.contracts.vectors import K_MAX, TEXT_BYTES_MAX, WAIT_SECONDS_MAX
from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.model.refs import check_name, name_key
from lakehouse.model.retrieval import SearchMode
from lakehouse.model.vectors import IndexVersion, VectorBackend, VectorIndexInfo

__all__ = [
    "check_autotune",
    "check_evaluate",
    "check_graph",
    "check_limit",
    "check_modes",
    "check_put",
    "check_same_index",
    "check_vectors",
]

TUNED_K_MAX: Final = 1_000
_NAME_BYTES_MAX: Final = 200
_TEXT_MAX: Final = 1_000
_RELEVANT_MAX: Final = 1_000
_LIMIT_MAX: Final = 1_000
_SEED_MAX: Final = 1 << 53


def bad(message: str, **fields: FieldValue) -> LakehouseError:
    return LakehouseError(ErrorKind.INVALID, message, **fields)


def _within(field: str, value: float, least: float, most: float) -> None:
    # Also what is no number at all is out of range.
    if not least <= value <= most:
        shown = value if math.isfinite(value) and abs(value) < 1 << 53 else str(value)[:40]
        raise bad(f"{field} is out of range", given=shown, minimum=least, maximum=most)


def check_autotune(request: c.AutotuneRequest) -> None:
    """Raise ``invalid`` for a value out of range; those of the grid are checked with it."""
    _within("k", request.k, 1, TUNED_K_MAX)
    _within("samples", request.samples, 1, c.EVAL_QUERIES_MAX)
    _within("rows_max", request.rows_max, 0, _SEED_MAX)
    _within("wait_seconds", request.wait_seconds, 0, WAIT_SECONDS_MAX)
    _above_zero("recall", request.recall, 1.0)
    _above_zero("budget_seconds", request.budget_seconds, c.BUDGET_SECONDS_MAX)


def _above_zero(field: str, value: float, most: float) -> None:
    if not 0.0 < value <= most:
        shown = value if math.isfinite(value) else str(value)
        raise bad(f"{field} must be above 0, and at most {most:g}", given=shown, maximum=most)


def check_evaluate(request: c.EvaluateRequest) -> None:
    """Raise ``invalid``."""
    _within("k", request.k, 1, K_MAX)


def check_modes(modes: tuple[SearchMode, ...], eval_set: c.EvalSet) -> None:
    """Raise ``invalid`` for a query without words where words are asked for."""
    if set(modes) == {SearchMode.VECTOR}:
        return
    for at, query in enumerate(eval_set.queries):
        if not query.text.strip():
            raise bad(
                "a query has no text to search for",
                eval_set=eval_set.name,
                query=at,
                modes=[mode.value for mode in modes],
                hint="ask in mode vector, or give each query its text",
            )


def check_limit(limit: int) -> None:
    """Raise ``invalid``."""
    _within("limit", limit, 1, _LIMIT_MAX)


def check_put(request: c.PutEvalRequest) -> str:
    """The name of the set. Raises ``invalid``."""
    name = check_name(request.name, "eval set name")
    if len(name.encode()) > _NAME_BYTES_MAX:
        raise bad("an eval set's name is too long", name=name[:80], maximum=_NAME_BYTES_MAX)
    if len(request.description) > _TEXT_MAX:
        raise bad("a description is too long", maximum=_TEXT_MAX)
    if bool(request.queries) == bool(request.samples):
        raise bad(
            "an eval set has queries, or samples to draw: one of the two",
            queries=len(request.queries),
            samples=request.samples,
        )
    if request.samples:
        _within("samples", request.samples, 1, c.EVAL_QUERIES_MAX)
    _within("seed", request.seed, 0, _SEED_MAX)
    _within("the number of queries", len(request.queries), 0, c.EVAL_QUERIES_MAX)
    for at, query in enumerate(request.queries):
        _check_query(at, query)
    return name


def _check_query(at: int, query: c.EvalQuery) -> None:
    if not query.vector and not query.text.strip():
        raise bad("a query is empty", query=at, hint="give it a text or a vector")
    if len(query.text.encode(errors="replace")) > TEXT_BYTES_MAX:
        raise bad("a text is too long", query=at, maximum_bytes=TEXT_BYTES_MAX)
    if len(query.relevant) > _RELEVANT_MAX:
        raise bad("so many keys are too many for a query", query=at, maximum=_RELEVANT_MAX)
    if not all(query.relevant):
        raise bad("a key is empty", query=at)
    if query.grades and len(query.grades) != len(query.relevant):
        raise bad(
            "there are as many grades as keys, or none",
            query=at,
            keys=len(query.relevant),
            grades=len(query.grades),
        )
    if not all(math.isfinite(grade) and grade >= 0.0 for grade in query.grades):
        raise bad("a grade is a number from 0 up", query=at)


def check_vectors(version: IndexVersion, queries: tuple[c.EvalQuery, ...]) -> None:
    """Raise ``invalid`` for a vector that the index cannot be asked with, and for a text where
    nothing can embed one."""
    for at, query in enumerate(queries):
        if not query.vector:
            if not version.model:
                raise bad(
                    "the index has given vectors and no model to embed a text with",
                    query=at,
                    number=version.number,
                    hint="give each query its vector",
                )
            continue
        if len(query.vector) != 4 * version.dimensions:
            raise bad(
                "a vector has another dimension than the index",
                query=at,
                dimensions=version.dimensions,
                given=len(query.vector) / 4,
                model=version.model,
            )
        vector = np.frombuffer(query.vector, "<f4")
        if not np.isfinite(vector).all() or not vector.any():
            raise bad("a vector has a value that is no finite number, or none but 0", query=at)


def check_same_index(eval_set: c.EvalSet, index: str) -> None:
    """Raise ``invalid`` for a set that asks another index."""
    if name_key(eval_set.index) != name_key(index):
        raise bad(
            "the eval set is of another index",
            eval_set=eval_set.name,
            index=index,
            eval_index=eval_set.index,
            hint="name a set of this index, or none to draw from the index",
        )


def check_graph(info: VectorIndexInfo, version: IndexVersion) -> None:
    """Raise ``conflict`` for a version that has no graph of ours."""
    if version.profile.vector_backend is not VectorBackend.PARQUET:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the index version is not searched by a graph that could be tuned",
            index=info.name,
            number=version.number,
            backend=version.profile.vector_backend.value,
            hint="build a version with a profile whose vector_backend is parquet",
        )
