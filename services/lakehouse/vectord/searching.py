"""Search, and vectors by key: what is asked most, so nothing here is done twice."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from lakehouse.contracts import vectors as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.identity import Context, Scope
from lakehouse.model.vectors import Distance, IndexVersion, VectorIndexInfo, VersionState
from lakehouse.vectord.comparing import HITS_MAX, compare_versions
from lakehouse.vectord.documents import Documents, version_of
from lakehouse.vectord.filters import matching_entities
from lakehouse.vectord.image import Found, Image
from lakehouse.vectord.images import Images
from lakehouse.vectord.models import Models, check_same_model
from lakehouse.vectord.nearest import LENGTH_MAX, as_scores, too_long
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ports import Lane, Vectors
from lakehouse.vectord.source import MISSED_SECONDS, Source, SourceReader

__all__ = ["HITS_MAX", "Searching"]

log = logging.getLogger(__name__)

KEYS_MAX: Final = 1_000
EF_MAX: Final = 100_000
# What is more than this is not done on the loop.
_INLINE_US: Final = 1_000.0
_FEW_ROWS: Final = 5_000
_FEW_HITS: Final = 500
_FEW_KEYS: Final = 50
_LOOK_SECONDS: Final = 0.02
T = TypeVar("T")
_FLOAT: Final = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request is about. ``source``: None for given vectors, and where the dataset was
    dropped: what was embedded of it can be searched for all that."""

    info: VectorIndexInfo
    version: IndexVersion
    source: Source | None
    store_version: int

    @property
    def behind(self) -> bool:
        """Rows of the dataset changed after those that were embedded."""
        source = self.source
        return source is not None and source.rows_version > self.version.source_version


class Searching:
    """Search, get, compare. Belongs to one event loop.

    Attributes:
        nudge: called where a search has to wait for an index to catch up.
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
        self._sources = SourceReader(parts, MISSED_SECONDS)
        self.nudge: Callable[[], None] | None = None

    async def search(self, ctx: Context, request: c.SearchRequest) -> c.SearchResult:
        """As ``contracts.vectors.VectorsService.search``."""
        ctx.require(Scope.READ)
        _check(request)
        clock = self._parts.clock
        asked = await self._asked(ctx, request.index, request.number)
        version = asked.version
        _check_model(request, version)
        if asked.behind:
            asked = await self._fresh(ctx, request, asked)
            version = asked.version
        began = clock.monotonic()
        queries, embedded = await self.queries(version, request.queries)
        asking = clock.monotonic()
        how = (request.k, request.ef or version.profile.ef_search, request.exact)

        async def ask(image: Image) -> list[Found]:
            wanted = None
            if request.filter.strip():
                wanted = await self._matching(ctx, asked, image, request.filter)
            return await self.nearest(image, queries, how, wanted)

        image, found = await self._on_image(ctx, version, ask)
        if request.k * len(found) <= _FEW_HITS:
            results = tuple([hits_of(image, one) for one in found])
        else:
            results = await run_in(self.jobs, _all_hits, image, found)
        done = clock.monotonic()
        return c.SearchResult(
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

        _, (found, missing) = await self._on_image(ctx, version, ask)
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
            _given(query.vector, version) if query.vector else known[query.text] for query in asked
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

    async def _on_image(
        self, ctx: Context, version: IndexVersion, ask: Callable[[Image], Awaitable[T]]
    ) -> tuple[Image, T]:
        """What ``ask`` finds in the version's image; asked once more of another one where files
        that it reads were damaged or cleared away."""
        image = await self._images.image(ctx, version)
        try:
            return image, await ask(image)
        except LakehouseError as error:
            if error.kind is not ErrorKind.CORRUPT:
                raise
            told = {"dataset": version.vectors_dataset, "reason": str(error)}
            log.warning("an image in memory cannot be read and is made anew", extra=told)
        self._images.let_go(version, image)
        image = await self._images.image(ctx, version)
        return image, await ask(image)

    async def _asked(self, ctx: Context, name: str, number: int) -> _Asked:
        info, store_version = await self._documents.read(ctx, name)
        version = version_of(info, number)
        source = None
        if info.dataset_id:
            try:
                source = await self._sources.source(ctx, info)
            except LakehouseError as error:
                if error.kind is not ErrorKind.NOT_FOUND:
                    raise
        return _Asked(info, version, source, store_version)

    async def _fresh(self, ctx: Context, request: c.SearchRequest, asked: _Asked) -> _Asked:
        """Wait a little for an index to have what its dataset had when it was asked; not for one
        that is still built, unless nothing of it is there yet."""
        wanted = asked.source.rows_version if asked.source is not None else 0
        clock = self._parts.clock
        until = clock.monotonic() + self._parts.settings.fresh_seconds
        if self.nudge is not None:
            self.nudge()
        while asked.behind and asked.version.source_version < wanted and clock.monotonic() < until:
            version = asked.version
            if version.state is not VersionState.READY and version.chunks:
                break
            if version.state is VersionState.FAILED:
                break
            await clock.sleep(_LOOK_SECONDS)
            asked = await self._asked(ctx, request.index, request.number)
        return asked

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

    async def _matching(
        self, ctx: Context, asked: _Asked, image: Image, predicate: str
    ) -> npt.NDArray[np.bool_]:
        if asked.source is None and asked.info.dataset_id:
            raise LakehouseError(
                ErrorKind.NOT_FOUND,
                "the dataset of the index was dropped, and has no columns to filter by",
                index=asked.info.name,
                dataset=asked.info.dataset,
                hint="leave the filter out, or restore the dataset",
            )
        if asked.source is None:
            raise LakehouseError(
                ErrorKind.INVALID,
                "an index of given vectors has no columns to filter by",
                index=asked.info.name,
                hint="leave the filter out, or make an index over a dataset",
            )
        entities = await matching_entities(ctx, self._parts, asked.source, predicate)
        return await run_in(self._parts.jobs, image.matching, entities)


def hits_of(image: Image, found: Found) -> c.Hits:
    """Rows that were found as they are shown."""
    rows, far = found
    place = image.book.place
    hits = []
    for row, score in zip(rows.tolist(), as_scores(far, image.distance).tolist(), strict=True):
        page, at = place(row)
        hits.append(
            c.Hit(
                page.entity[at].as_py(),
                score,
                page.chunk.item(at),
                page.start.item(at),
                page.end.item(at),
                page.text[at].as_py(),
                page.version.item(at),
            )
        )
    return c.Hits(tuple(hits))


def _all_hits(image: Image, found: list[Found]) -> tuple[c.Hits, ...]:
    return tuple([hits_of(image, one) for one in found])


def stored(image: Image, rows: list[int]) -> list[c.StoredVector]:
    """Rows with their vectors."""
    if not rows:
        return []
    found = []
    for row, vector in zip(rows, image.vectors(np.array(rows, np.int64)), strict=True):
        page, at = image.book.place(row)
        found.append(
            c.StoredVector(
                page.entity[at].as_py(),
                page.chunk.item(at),
                page.start.item(at),
                page.end.item(at),
                page.text[at].as_py(),
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


def _check(request: c.SearchRequest) -> None:
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
        _check_query(at, query)


def _check_query(at: int, query: c.VectorQuery) -> None:
    if query.vector and query.text:
        raise LakehouseError(ErrorKind.INVALID, "a query is a text or a vector, not both", query=at)
    if query.vector:
        return
    if not query.text.strip():
        raise LakehouseError(
            ErrorKind.INVALID, "a query is empty", query=at, hint="give it a text or a vector"
        )
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


def _check_model(request: c.SearchRequest, version: IndexVersion) -> None:
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


def _given(data: bytes, version: IndexVersion) -> Vectors:
    """A vector that came with a request. Raises ``invalid``."""
    if len(data) != version.dimensions * _FLOAT.itemsize:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the vector has another dimension than the index",
            dimensions=version.dimensions,
            given=len(data) / _FLOAT.itemsize,
            model=version.model,
            hint="embed queries by the model of the index",
        )
    vector: Vectors = np.frombuffer(data, _FLOAT)
    if not np.isfinite(vector).all():
        at = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise LakehouseError(
            ErrorKind.INVALID, "the vector has a value that is no finite number", position=at
        )
    if too_long(vector[None, :], version.profile.distance)[0]:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the vector is too long to be compared",
            maximum=LENGTH_MAX,
            hint="scale the vectors of the index and of its queries down",
        )
    if version.profile.distance is Distance.COSINE and not vector.any():
        raise LakehouseError(
            ErrorKind.INVALID,
            "a vector of zeros points nowhere: no cosine can be told of it",
            hint="give a vector with a value other than 0",
        )
    return vector
