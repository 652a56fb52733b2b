"""An eval set asked in each mode of search, as anybody's searches are, and how good that is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lakehouse.contracts import trials as t
from lakehouse.contracts import vectors as c
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import RecordClass, SearchMode
from lakehouse.vectord.ports import Vectors
from lakehouse.vectord.tuning.metrics import Figures, figures, gains_of, spelled

__all__ = ["Answers", "Asker", "modes_of"]

Search = Callable[[Context, c.SearchRequest], Awaitable[c.SearchResult]]

_PURPOSE: Final = "eval"


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of a mode. Latencies of a search, embedding apart."""

    figures: Figures | None
    p50_ms: float
    p99_ms: float
    note: str = ""


def modes_of(queries: Sequence[t.EvalQuery]) -> tuple[SearchMode, ...]:
    """Those in which all of ``queries`` can be asked."""
    words = all(query.text.strip() for query in queries)
    return tuple(SearchMode) if words else (SearchMode.VECTOR,)


class Asker:
    """Asks ``search`` one query at a time, so that nothing else waits for many.

    Args:
        request: of which index version, and how many hits.
        vectors: of the queries, (queries, dimensions).
    """

    def __init__(
        self,
        search: Search,
        ctx: Context,
        index: str,
        request: t.EvaluateRequest,
        vectors: Vectors,
    ) -> None:
        self._search = search
        self._ctx = ctx
        self._index = index
        self._request = request
        self._vectors = vectors.astype("<f4", copy=False)

    async def ask(
        self,
        mode: SearchMode,
        queries: Sequence[t.EvalQuery],
        wanted: Sequence[Mapping[str, float]],
    ) -> Answers:
        """All of ``queries``, held against what each key is worth."""
        found: list[list[str]] = []
        taken: list[float] = []
        degraded = ""
        for at, query in enumerate(queries):
            keys, result = await self._one(mode, at, query.text)
            found.append(spelled(keys, wanted[at]))
            taken.append(result.search_ms)
            degraded = degraded or (result.degraded_reason if result.degraded else "")
        note = f"degraded: {degraded}" if degraded else ""
        return Answers(
            figures(found, wanted, self._request.k),
            float(np.percentile(taken, 50)),
            float(np.percentile(taken, 99)),
            note,
        )

    async def exact(self, at: int) -> dict[str, float]:
        """What the exact neighbours of query ``at`` are worth, the nearest most."""
        keys, _ = await self._one(SearchMode.VECTOR, at, "", exact=True)
        keys = list(dict.fromkeys(keys))
        return gains_of(t.EvalQuery(relevant=tuple(keys))) if keys else {}

    async def _one(
        self, mode: SearchMode, at: int, text: str, *, exact: bool = False
    ) -> tuple[list[str], c.SearchResult]:
        vector = b"" if mode is SearchMode.TEXT else self._vectors[at].tobytes()
        asked = c.SearchRequest(
            self._index,
            (c.VectorQuery("" if mode is SearchMode.VECTOR else text, vector),),
            self._request.k,
            number=self._request.number,
            exact=exact,
            mode=mode,
            record=RecordClass.NONE,
            purpose=_PURPOSE,
        )
        result = await self._search(self._ctx, asked)
        return [hit.key for hit in result.results[0].hits], result
