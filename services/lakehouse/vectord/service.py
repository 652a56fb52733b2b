"""The vectors service: joins the use cases, one module each."""

from __future__ import annotations

from collections.abc import Iterable

from lakehouse.contracts import vectors as c
from lakehouse.errors import LakehouseError
from lakehouse.kit.figures import Readout
from lakehouse.kit.supervise import Supervisor
from lakehouse.model.identity import Context
from lakehouse.vectord.building import Builder
from lakehouse.vectord.documents import Documents
from lakehouse.vectord.figures import VectorFigures
from lakehouse.vectord.following import Follower
from lakehouse.vectord.given import Given
from lakehouse.vectord.images import Images
from lakehouse.vectord.indexes import Indexes
from lakehouse.vectord.lexical.lexical import Lexical
from lakehouse.vectord.making import Maker
from lakehouse.vectord.memory.service import Memory
from lakehouse.vectord.models import Models
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.profiles import Profiles
from lakehouse.vectord.publishing import Publisher
from lakehouse.vectord.rag.service import Rag
from lakehouse.vectord.records.recorder import Recorder
from lakehouse.vectord.records.service import Retrievals
from lakehouse.vectord.retrieval.earlier import Earlier
from lakehouse.vectord.retrieval.retrieving import More, Retrieving
from lakehouse.vectord.searching import Searching
from lakehouse.vectord.tuning.service import Trials

__all__ = ["Vectors"]


class Vectors:
    """Implements ``contracts.vectors.VectorsService``. Belongs to one event loop."""

    def __init__(self, parts: VectorParts) -> None:
        self._parts = parts
        self._supervisor = Supervisor()
        self._figures = figures = VectorFigures()
        documents, models = Documents(parts), Models(parts)
        self.images = Images(parts, documents)
        self._searching = Searching(parts, self.images, documents, models)
        publisher = Publisher(parts, self.images.applied)
        self._builder = Builder(
            parts, documents, models, publisher, self._searching.compare, self.images.image
        )
        self._follower = Follower(parts, documents, self._builder, figures)
        self._searching.asking.nudge = self._follower.hasten
        maker = Maker(parts, Profiles(parts), models)
        self._indexes = Indexes(parts, documents, maker, self._follower, self.images.forget)
        self._given = Given(parts, documents, publisher, self._builder.weigher)
        self.recorder = Recorder(parts)
        searching = self._searching
        earlier = Earlier(parts, documents, searching.asking, self.images.loader)
        lexical = Lexical(parts)
        self._retrieving = Retrieving(parts, searching, lexical, earlier, self.recorder)
        self.retrievals = Retrievals(parts, self.recorder)
        self.trials = Trials(parts, documents, self.images, self._searching, self)
        self.rag = Rag(parts, self.search)
        self.memory = Memory(parts, documents, self.create_index, self._searched)

    async def start(self) -> None:
        """Begin to follow the datasets that have indexes."""
        await self.recorder.start()
        self.trials.start()
        self._supervisor.start("vectors", self._follower.run)

    async def close(self) -> None:
        """End what runs in the background; idempotent."""
        await self._supervisor.stop()
        await self.memory.close()
        await self._follower.close()
        await self._retrieving.close()
        await self.recorder.close()
        await self.trials.close()
        await self.images.close()
        self._parts.jobs.shutdown(wait=False, cancel_futures=True)
        await self._parts.embedder.close()

    async def create_index(self, ctx: Context, request: c.CreateIndexRequest) -> c.IndexResult:
        return await self._indexes.create(ctx, request)

    async def get_index(self, ctx: Context, request: c.IndexRequest) -> c.IndexResult:
        return await self._indexes.get(ctx, request)

    async def list_indexes(
        self, ctx: Context, request: c.ListIndexesRequest
    ) -> c.ListIndexesResult:
        return await self._indexes.list(ctx, request)

    async def build(self, ctx: Context, request: c.BuildRequest) -> c.IndexResult:
        return await self._indexes.build(ctx, request)

    async def cut_over(self, ctx: Context, request: c.CutOverRequest) -> c.IndexResult:
        return await self._indexes.cut_over(ctx, request)

    async def delete_index(
        self, ctx: Context, request: c.DeleteIndexRequest
    ) -> c.DeleteIndexResult:
        return await self._indexes.delete(ctx, request)

    async def search(self, ctx: Context, request: c.SearchRequest) -> c.SearchResult:
        return await self._searched(ctx, request)

    async def _searched(
        self, ctx: Context, request: c.SearchRequest, more: More | None = None
    ) -> c.SearchResult:
        clock = self._parts.clock
        started, outcome = clock.monotonic(), "done"
        try:
            return await self._retrieving.search(ctx, request, more)
        except LakehouseError as error:
            outcome = error.kind.value
            raise
        finally:
            self._figures.searched(outcome, clock.monotonic() - started)

    async def put_vectors(self, ctx: Context, request: c.PutVectorsRequest) -> c.PutVectorsReport:
        return await self._given.put(ctx, request)

    async def delete_vectors(
        self, ctx: Context, request: c.DeleteVectorsRequest
    ) -> c.PutVectorsReport:
        return await self._given.delete(ctx, request)

    async def get_vectors(self, ctx: Context, request: c.GetVectorsRequest) -> c.GetVectorsResult:
        return await self._searching.get_vectors(ctx, request)

    async def compare(self, ctx: Context, request: c.CompareRequest) -> c.CompareReport:
        return await self._searching.compare(ctx, request)

    def figures(self) -> Iterable[Readout]:
        """What was searched and built since the start."""
        images = self.images
        held = (images.size_bytes, images.loads, images.built)
        self._figures.texts = self._builder.texts
        yield from self._figures.figures(self._follower.running, held)
        yield from self.recorder.figures()
