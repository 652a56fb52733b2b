"""What may be asked of a search beyond nearest vectors, and what stands for what is left out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lakehouse.contracts import vectors as c
from lakehouse.contracts.as_of import AsOf
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.refs import name_key
from lakehouse.model.retrieval import Rerank, SearchMode
from lakehouse.vectord.checking import check
from lakehouse.vectord.comparing import HITS_MAX

__all__ = [
    "Bounds",
    "bounds_of",
    "check_purpose",
    "check_reached",
    "check_retrieval",
    "is_now",
    "is_plain",
]

_NOW: Final = AsOf()
_PURPOSE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_CANDIDATES_MIN: Final = 100
_CANDIDATES_A_HIT: Final = 4
_RERANKED_MIN: Final = 50
_RERANKED_A_HIT: Final = 4
_RERANKED_QUERIES_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """``candidates`` that each stage gives, ``reranked`` of the best of them."""

    candidates: int
    reranked: int


def is_plain(request: c.SearchRequest) -> bool:
    """Whether it is the nearest vectors of one index as it is now, and nothing else."""
    return (
        request.mode is SearchMode.VECTOR
        and not request.also
        and request.rerank is Rerank.NONE
        and (request.as_of is _NOW or request.as_of == _NOW)
    )


def is_now(as_of: AsOf) -> bool:
    """Whether no point of the past is asked for."""
    return as_of.version is None and as_of.time is None and not as_of.tag


def check_reached(as_of: AsOf, version: int) -> None:
    """Raise ``unavailable`` where the store has not reached the version that is asked for."""
    if as_of.min_version is not None and as_of.min_version > version:
        raise LakehouseError(
            ErrorKind.UNAVAILABLE,
            "the store has not reached this version",
            min_version=as_of.min_version,
            version=version,
        )


def check_purpose(purpose: str) -> None:
    """Raise ``invalid`` for what is not one word."""
    if not _PURPOSE.fullmatch(purpose):
        raise LakehouseError(
            ErrorKind.INVALID,
            "the purpose of a search is one word of small letters",
            purpose=purpose[:80],
        )


def check_retrieval(request: c.SearchRequest) -> None:
    """Raises ``invalid``."""
    check(request)
    if not 0 <= request.candidates <= c.CANDIDATES_MAX:
        raise _out_of_range("candidates", request.candidates, c.CANDIDATES_MAX)
    if not 0 <= request.rerank_max <= c.RERANKED_MAX:
        raise _out_of_range("rerank_max", request.rerank_max, c.RERANKED_MAX)
    _check_also(request)
    candidates, indexes = bounds_of(request).candidates, 1 + len(request.also)
    if len(request.queries) * candidates * indexes > HITS_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            "so many candidates are too many for one call",
            queries=len(request.queries),
            candidates=candidates,
            indexes=indexes,
            maximum=HITS_MAX,
            hint="ask for fewer hits or candidates, or in several calls",
        )
    _check_rerank(request)


def _check_also(request: c.SearchRequest) -> None:
    if len(request.also) > c.ALSO_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            f"at most {c.ALSO_MAX} more indexes are searched together",
            also=len(request.also),
            maximum=c.ALSO_MAX,
        )
    keys = [name_key(name) for name in (request.index, *request.also)]
    twice = [name for at, name in enumerate(request.also, 1) if keys[at] in keys[:at]]
    if twice:
        raise LakehouseError(ErrorKind.INVALID, "an index is named twice", index=twice[0][:255])


def _check_rerank(request: c.SearchRequest) -> None:
    if request.rerank is Rerank.NONE:
        return
    if request.k > c.RERANKED_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            f"at most {c.RERANKED_MAX} hits can be ordered anew",
            k=request.k,
            maximum=c.RERANKED_MAX,
            hint="ask for fewer hits, or leave rerank out",
        )
    if len(request.queries) > _RERANKED_QUERIES_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            f"at most {_RERANKED_QUERIES_MAX} queries at once can have a rerank",
            queries=len(request.queries),
            maximum=_RERANKED_QUERIES_MAX,
            hint="ask in several calls",
        )


def bounds_of(request: c.SearchRequest) -> Bounds:
    """What is asked for, or what fits ``k``."""
    k = request.k
    reranked = 0
    if request.rerank is not Rerank.NONE:
        wanted = request.rerank_max or max(_RERANKED_MIN, _RERANKED_A_HIT * k)
        reranked = min(c.RERANKED_MAX, max(k, wanted))
    if request.mode is not SearchMode.HYBRID and not request.also:
        return Bounds(max(k, reranked), reranked)  # of one stage the best are the best
    candidates = request.candidates or max(_CANDIDATES_MIN, _CANDIDATES_A_HIT * k)
    return Bounds(max(k, reranked, min(candidates, c.CANDIDATES_MAX)), reranked)


def _out_of_range(what: str, value: int, most: int) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID, f"{what} must be from 0 to {most}", given=value, maximum=most
    )
