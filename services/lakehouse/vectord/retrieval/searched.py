"""A search that was answered, as it is handed over to be remembered."""

from __future__ import annotations

from dataclasses import dataclass

from lakehouse.contracts.vectors import Hits, SearchRequest, SearchResult
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import SearchedIndex

__all__ = ["Searched"]


@dataclass(frozen=True, slots=True)
class Searched:
    """One query of a request. Made on the reply path, so it only points at what is there: the
    record is composed of it later.

    Attributes:
        at_us: when it was answered, microseconds since the epoch.
        place: of the query in the request.
        vector: what was searched with, little-endian float32 bytes; empty where no vector was.
        indexes: what was searched, ``request.index`` first.
        as_of_version: of the store, where the search was as of then; else 0.
    """

    id: str
    at_us: int
    ctx: Context
    request: SearchRequest
    place: int
    result: SearchResult
    hits: Hits
    vector: bytes
    indexes: tuple[SearchedIndex, ...]
    as_of_version: int = 0
