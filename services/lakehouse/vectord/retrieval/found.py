"""What was found in each of the indexes of a search, and hits made of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lakehouse.contracts import vectors as c
from lakehouse.vectord.asking import Asked
from lakehouse.vectord.image import Image
from lakehouse.vectord.ports import Vectors
from lakehouse.vectord.retrieval.fusing import Candidate, Leg

__all__ = ["Embedded", "FoundIn", "hit_of", "key_of", "together"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of the queries, (queries, dimensions); None where they could not be had, and why.
    ``asked``: a model was."""

    queries: Vectors | None
    reason: str = ""
    asked: bool = False
    ms: float = 0.0


@dataclass(frozen=True, slots=True)
class FoundIn:
    """What was found in one index. ``legs``: of each query."""

    asked: Asked
    image: Image
    legs: list[list[Leg]]
    embedded: Embedded
    served_by: str


def hit_of(found: Sequence[FoundIn], shown: Sequence[str], one: Candidate) -> c.Hit:
    page, at = found[one.at].image.book.place(one.row)
    return c.Hit(
        page.entities[at],
        one.score,
        page.chunk.item(at),
        page.start.item(at),
        page.end.item(at),
        page.texts[at],
        page.version.item(at),
        one.stages if len(one.stages) > 1 else (),
        shown[one.at],
    )


def key_of(found: Sequence[FoundIn]) -> Callable[[int, int], tuple[str, str, int]]:
    def key(at: int, row: int) -> tuple[str, str, int]:
        return (found[at].asked.info.name, *found[at].image.book.key(row))

    return key


async def together(doing: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All at once; the first error ends the others and is raised."""
    if len(doing) == 1:
        return [await doing[0]]
    tasks = [asyncio.ensure_future(one) for one in doing]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
