"""Two versions of an index, or two searches over the same rows, on the same queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lakehouse.contracts import vectors as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.identity import Context
from lakehouse.model.vectors import IndexVersion, VectorIndexInfo
from lakehouse.vectord.documents import Documents, version_of
from lakehouse.vectord.image import Image
from lakehouse.vectord.images import Images
from lakehouse.vectord.ports import Labels, Vectors

if TYPE_CHECKING:
    from lakehouse.vectord.searching import Searching

__all__ = ["HITS_MAX", "compare_versions"]

SAMPLES_MAX: Final = 1_000
HITS_MAX: Final = 200_000
"""Of one call, of all its queries together."""


@dataclass(frozen=True, slots=True)
class _Side:
    """A version, and what it found for each query: entities, nearest first."""

    figures: c.VersionFigures
    found: list[list[str]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Of each query: the rows that were found, those that should have been, and milliseconds."""

    found: list[Labels]
    true: list[Labels]
    taken: list[float]


async def compare_versions(
    searching: Searching,
    documents: Documents,
    images: Images,
    ctx: Context,
    request: c.CompareRequest,
) -> c.CompareReport:
    """Raises ``invalid`` (a value out of range, no second version), ``not_found``."""
    info, store_version = await documents.read(ctx, request.name)
    _check(request)
    first, second = _pair(info, request)
    first_image = await images.image(ctx, first)
    second_image = await images.image(ctx, second)
    drawn = _drawn(first_image, request) if not request.queries else np.empty(0, np.int64)
    count = len(request.queries) or len(drawn)
    sides = []
    for version, image in ((first, first_image), (second, second_image)):
        queries = await _queries(searching, (first, first_image), version, request, drawn)
        sides.append(await _side(searching, version, image, queries, request))
    return c.CompareReport(
        info.name,
        request.k,
        count,
        sides[0].figures,
        sides[1].figures,
        await run_in(searching.jobs, _overlap, sides[0].found, sides[1].found),
        store_version,
    )


def _check(request: c.CompareRequest) -> None:
    if not 1 <= request.k <= c.K_MAX:
        raise LakehouseError(ErrorKind.INVALID, f"k must be from 1 to {c.K_MAX}", k=request.k)
    if not 1 <= request.samples <= SAMPLES_MAX:
        raise LakehouseError(
            ErrorKind.INVALID, f"samples must be from 1 to {SAMPLES_MAX}", samples=request.samples
        )
    if len(request.queries) > c.QUERIES_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            f"at most {c.QUERIES_MAX} queries can be compared",
            queries=len(request.queries),
        )
    asked = len(request.queries) or request.samples
    if asked * request.k > HITS_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            "so many hits are too many for one comparison",
            queries=asked,
            k=request.k,
            maximum=HITS_MAX,
            hint="compare on fewer queries or samples, or fewer hits of each",
        )
    if any(not text.strip() for text in request.queries):
        raise LakehouseError(ErrorKind.INVALID, "a query is empty", hint="leave it out")
    if request.relevant and len(request.relevant) != len(request.queries):
        raise LakehouseError(
            ErrorKind.INVALID,
            "what should be found must be said of each query",
            queries=len(request.queries),
            relevant=len(request.relevant),
        )


def _pair(info: VectorIndexInfo, request: c.CompareRequest) -> tuple[IndexVersion, IndexVersion]:
    first = version_of(info, request.first)
    if request.second:
        return first, version_of(info, request.second)
    others = [each for each in info.versions if each.number != first.number]
    if not others:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the index has one version only: there is nothing to compare it with",
            index=info.name,
            number=first.number,
            hint="build another one: POST .../build with new_version; or name its number twice to"
            " see its recall",
        )
    return first, max(others, key=lambda each: each.number)


def _drawn(image: Image, request: c.CompareRequest) -> Labels:
    """Rows of the image, evenly spread over their keys: the same ones each time."""
    live = np.flatnonzero(image.live)
    if len(live) <= request.samples:
        return live
    return live[np.linspace(0, len(live) - 1, request.samples).astype(np.int64)]


async def _queries(
    searching: Searching,
    drawn_from: tuple[IndexVersion, Image],
    version: IndexVersion,
    request: c.CompareRequest,
    drawn: Labels,
) -> Vectors:
    """The same questions as ``version`` understands them."""
    if request.queries:
        asked = [c.VectorQuery(text) for text in request.queries]
        return (await searching.queries(version, asked))[0]
    first, image = drawn_from
    if not len(drawn):
        return np.empty((0, version.dimensions), np.float32)
    same = (first.model, first.model_digest, first.dimensions, first.profile.distance)
    if same == (version.model, version.model_digest, version.dimensions, version.profile.distance):
        return await run_in(searching.jobs, image.vectors, drawn)
    texts = await run_in(searching.jobs, _texts, image, drawn)
    if len(texts) < len(drawn):
        raise LakehouseError(
            ErrorKind.INVALID,
            "vectors without texts cannot be asked of a version by another model",
            first=first.number,
            second=version.number,
            hint="give queries to compare the versions on",
        )
    return (await searching.queries(version, [c.VectorQuery(text) for text in texts]))[0]


def _texts(image: Image, rows: Labels) -> list[str]:
    """Of those that have one."""
    return [text for text in image.book.table(rows).column("text").to_pylist() if text.strip()]


async def _side(
    searching: Searching,
    version: IndexVersion,
    image: Image,
    queries: Vectors,
    request: c.CompareRequest,
) -> _Side:
    """Asked one by one, as searches ask; what was found is weighed beside the loop."""
    ef = version.profile.ef_search
    found, true, taken = [], [], []
    for at in range(len(queries)):
        one = queries[at : at + 1]
        began = searching.now()
        found.append((await searching.nearest(image, one, (request.k, ef, False)))[0][0])
        taken.append((searching.now() - began) * 1000.0)
        true.append((await searching.nearest(image, one, (request.k, ef, True)))[0][0])
    asked = _Asked(found, true, taken)
    return await run_in(searching.jobs, _weighed, version, image, asked, request.relevant)


def _weighed(
    version: IndexVersion, image: Image, asked: _Asked, should: Sequence[c.Relevant]
) -> _Side:
    recalled = [
        len(set(rows.tolist()) & set(true.tolist())) / max(1, len(true))
        for rows, true in zip(asked.found, asked.true, strict=True)
    ]
    found = [[image.book.key(row)[0] for row in rows.tolist()] for rows in asked.found]
    relevant = [
        len(set(wanted.keys) & set(keys)) / len(set(wanted.keys))
        for wanted, keys in zip(should, found, strict=False)
        if wanted.keys
    ]
    taken = asked.taken
    figures = c.VersionFigures(
        version.number,
        version.profile.vector_backend.value,
        version.model,
        image.rows,
        _mean(recalled, 1.0),
        float(np.percentile(taken, 50)) if taken else 0.0,
        float(np.percentile(taken, 99)) if taken else 0.0,
        _mean(relevant, 0.0) if relevant else None,
    )
    return _Side(figures, found)


def _overlap(first: list[list[str]], second: list[list[str]]) -> float:
    shares = []
    for one, other in zip(first, second, strict=True):
        most = max(len(set(one)), len(set(other)))
        shares.append(len(set(one) & set(other)) / most if most else 1.0)
    return _mean(shares, 1.0)


def _mean(values: list[float], empty: float) -> float:
    return float(np.mean(values)) if values else empty
