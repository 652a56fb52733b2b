"""Search, and vectors by key: what is asked most, so nothing here is done twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lakehouse.contracts import vectors as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.identity import Context, Scope
from lakehouse.model.retrieval import RecordClass
from lakehouse.model.vectors import Distance, IndexVersion
from lakehouse.vectord.asking import Asked, Asking
from lakehouse.vectord.checking import check, check_model, given
from lakehouse.vectord.comparing import HITS_MAX, compare_versions
from lakehouse.vectord.documents import Documents, version_of
from lakehouse.vectord.image import Found, Image
from lakehouse.vectord.images import Images
from lakehouse.vectord.models import Models, check_same_model
from lakehouse.vectord.nearest import as_scores
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ports import Lane, Vectors

__all__ = ["HITS_MAX", "Answered", "Searching"]

KEYS_MAX: Final = 1_000
# What is more than this is not done on the loop.
_INLINE_US: Final = 1_000.0
_FEW_ROWS: Final = 5_000
_FEW_HITS: Final = 500
_FEW_KEYS: Final = 50
_FLOAT: Final = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Answered:
    """A search by vectors, and what it was done with. ``queries``: (queries, dimensions)."""

    result: c.SearchResult
    asked: Asked
    image: Image
    queries: Vectors


class Searching:
    """Search, get, compare. Belongs to one event loop.

    Attributes:
        asking: finds what a request is about.
    """

    def __init__(
        self,
        parts: VectorParts,
        images: Images,
        documents: Documents,
        models: Models | None = None,
    ) -> None:
        self._parts = parts
        self._images = images
        self._documents = documents
        self._models = models or Models(parts)
        self.asking = Asking(parts, images, documents)

    async def search(self, ctx: Context, request: c.SearchRequest) -> c.SearchResult:
        """As ``contracts.vectors.VectorsService.search``, in mode VECTOR, of one index, as it is
        now, in the order that it finds."""
        return (await self.answered(ctx, request)).result

    async def answered(self, ctx: Context, request: c.SearchRequest) -> Answered:
        """As ``search``."""
        ctx.require(Scope.READ)
        check(request)
        clock = self._parts.clock
        asked = await self.asking.asked(ctx, request.index, request.number)
        version = asked.version
        check_model(request, version)
        if asked.behind:
            asked = await self.asking.fresh(ctx, asked, request.number)
            version = asked.version
        began = clock.monotonic()
        queries, embedded = await self.queries(version, request.queries)
        asking = clock.monotonic()
        how = (request.k, request.ef or version.profile.ef_search, request.exact)

        async def ask(image: Image) -> list[Found]:
            wanted = None
            if request.filter.strip():
                wanted = await self.asking.matching(ctx, asked, image, request.filter)
            return await self.nearest(image, queries, how, wanted)

        image, found = await self.asking.on_image(ctx, version, ask, asked.store_version)
        names = self.names(request)
        if request.k * len(found) <= _FEW_HITS:
            results = _all_hits(image, found, names)
        else:
            results = await run_in(self.jobs, _all_hits, image, found, names)
        done = clock.monotonic()
        result = c.SearchResult(
            results,
            asked.info.name,
            version.number,
            version.model,
            version.profile.vector_backend.value,
            "exact" if request.exact else served_by(image),
            version.source_version,
            asked.behind,
            asked.store_version,
            (asking - began) * 1000.0 if embedded else 0.0,
            (done - asking) * 1000.0,
        )
        return Answered(result, asked, image, queries)

    def names(self, request: c.SearchRequest) -> list[str]:
        """Under which the answers to the queries of ``request`` are remembered."""
        count = len(request.queries)
        if request.record is RecordClass.NONE:
            return [""] * count
        ids = self._parts.ids
        return [ids.ulid() for _ in range(count)]

    async def get_vectors(self, ctx: Context, request: c.GetVectorsRequest) -> c.GetVectorsResult:
        """As ``contracts.vectors.VectorsService.get_vectors``."""
        ctx.require(Scope.READ)
        if not 1 <= len(request.keys) <= KEYS_MAX:
            raise LakehouseError(
                ErrorKind.INVALID,
                f"between 1 and {KEYS_MAX} keys can be asked for at once",
                keys=len(request.keys),
            )
        info, store_version = await self._documents.read(ctx, request.index)
        version = version_of(info, request.number)

        def look(image: Image) -> tuple[list[c.StoredVector], list[str]]:
            found: list[c.StoredVector] = []
            missing: list[str] = []
            for key in dict.fromkeys(request.keys):
                rows = _rows_of(image, key, bool(info.dataset))
                found += stored(image, rows)
                if not rows:
                    missing.append(key)
            return found, missing

        async def ask(image: Image) -> tuple[list[c.StoredVector], list[str]]:
            beside = image.on_disk or len(request.keys) > _FEW_KEYS
            return await run_in(self.jobs, look, image) if beside else look(image)

        _, (found, missing) = await self.asking.on_image(ctx, version, ask, store_version)
        return c.GetVectorsResult(tuple(found), tuple(missing), version.number, store_version)

    async def compare(self, ctx: Context, request: c.CompareRequest) -> c.CompareReport:
        """As ``contracts.vectors.VectorsService.compare``."""
        ctx.require(Scope.READ)
        return await compare_versions(self, self._documents, self._images, ctx, request)

    @property
    def jobs(self) -> Executor:
        """Threads for what is not to be done on the loop."""
        return self._parts.jobs

    def now(self) -> float:
        """Seconds, to measure with."""
        return self._parts.clock.monotonic()

    async def queries(
        self, version: IndexVersion, asked: Sequence[c.VectorQuery]
    ) -> tuple[Vectors, bool]:
        """The queries as they are searched for, and whether a model was asked."""
        texts = list(dict.fromkeys(query.text for query in asked if not query.vector))
        known = dict(zip(texts, await self._embed(version, texts), strict=True)) if texts else {}
        rows = [
            given(query.vector, version) if query.vector else known[query.text] for query in asked
        ]
        queries = rows[0][None, :] if len(rows) == 1 else np.stack(rows)
        if version.profile.distance is not Distance.COSINE:
            return np.ascontiguousarray(queries, np.float32), bool(texts)
        whole = queries.astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", whole, whole))
        lengths[lengths == 0.0] = 1.0
        whole /= lengths[:, None]
        return whole.astype(np.float32), bool(texts)

    async def nearest(
        self,
        image: Image,
        queries: Vectors,
        how: tuple[int, int, bool],
        wanted: npt.NDArray[np.bool_] | None = None,
    ) -> list[Found]:
        """Searched here if that is quick, else beside the loop.

        Args:
            how: k, ef, and whether every vector is compared.
        """
        k, ef, exact = how
        quick = wanted is None or image.count <= _FEW_ROWS
        if quick and image.cost_us(len(queries), k, ef, every=exact) < _INLINE_US:
            return image.search(queries, k, ef, wanted, exact)
        return await run_in(self.jobs, image.search, queries, k, ef, wanted, exact)

    async def _embed(self, version: IndexVersion, texts: list[str]) -> Vectors:
        if not version.model:
            raise LakehouseError(
                ErrorKind.INVALID,
                "the index has given vectors and no model to embed a text with",
                number=version.number,
                hint="search with a vector",
            )
        await self._models.check(version)
        embedded = await self._parts.embedder.embed(version.model, texts, Lane.QUERY)
        self._models.told(embedded.model)
        check_same_model(version, embedded.model)
        return embedded.vectors


def hits_of(image: Image, found: Found, name: str = "") -> c.Hits:
    """Rows that were found as they are shown, remembered under ``name``."""
    rows, far = found
    place = image.book.place
    hits = []
    for row, score in zip(rows.tolist(), as_scores(far, image.distance).tolist(), strict=True):
        page, at = place(row)
        hits.append(
            c.Hit(
                page.entities[at],
                score,
                page.chunk.item(at),
                page.start.item(at),
                page.end.item(at),
                page.texts[at],
                page.version.item(at),
            )
        )
    return c.Hits(tuple(hits), name)


def _all_hits(image: Image, found: list[Found], names: list[str]) -> tuple[c.Hits, ...]:
    return tuple([hits_of(image, *one) for one in zip(found, names, strict=True)])


def stored(image: Image, rows: list[int]) -> list[c.StoredVector]:
    """Rows with their vectors."""
    if not rows:
        return []
    found = []
    for row, vector in zip(rows, image.vectors(np.array(rows, np.int64)), strict=True):
        page, at = image.book.place(row)
        found.append(
            c.StoredVector(
                page.entities[at],
                page.chunk.item(at),
                page.start.item(at),
                page.end.item(at),
                page.texts[at],
                page.version.item(at),
                vector.astype(_FLOAT, copy=False).tobytes(),
            )
        )
    return found


def served_by(image: Image) -> str:
    """What answers a search of ``image``."""
    kinds = list(dict.fromkeys(part.structure.kind for part in image.parts))
    if len(image.tail_rows) > image.tail_dead or not kinds:
        kinds.append("exact")
    return "+".join(kinds)


def _rows_of(image: Image, key: str, over_dataset: bool) -> list[int]:
    rows = image.rows_of(key)
    if rows or not over_dataset or key.startswith("["):
        return rows
    # A key of one column may be written without its brackets, and a text without its quotes.
    return image.rows_of(f"[{key}]") or image.rows_of(
        json.dumps([key], ensure_ascii=False, separators=(",", ":"))
    )
