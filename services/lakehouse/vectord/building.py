"""A build: the vectors of one index version brought up to what its dataset has now.

It begins where an earlier one ended, for what is embedded is rows like others. Two that build the
same version meet at the rows, or at the index's document: one is refused there and leaves it to
the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from lakehouse.contracts.vectors import CompareReport, CompareRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.kit.clock import to_datetime
from lakehouse.model.identity import Context
from lakehouse.model.vectors import IndexVersion, VectorIndexInfo, VersionState
from lakehouse.vectord.codec import to_json
from lakehouse.vectord.documents import Documents, version_of, with_version
from lakehouse.vectord.embedding import DocumentEmbedder, Embedded, stale_chunks
from lakehouse.vectord.identity import own_context
from lakehouse.vectord.image import Image
from lakehouse.vectord.models import Models, check_same_model
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.publishing import Publisher
from lakehouse.vectord.reusing import donor_of
from lakehouse.vectord.source import SourceReader
from lakehouse.vectord.weighing import Weigher, Work

__all__ = ["Builder", "Compare", "Overtaken"]

log = logging.getLogger(__name__)
_TEXT_BYTES_MAX: Final = 4 << 20
_PROGRESS_SECONDS: Final = 1.0
_PASSES: Final = 4
_ERROR_MAX: Final = 1_000
_REFUSED: Final = "documents refused by the model:"

LoadImage = Callable[[Context, IndexVersion], Awaitable[Image]]
Compare = Callable[[Context, CompareRequest], Awaitable[CompareReport]]


class Overtaken(Exception):
    """Another builder is at work on the same version; nothing is lost by leaving it to it."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """What this build wrote into the document last: another's progress looks different, and an
    index that was made anew under the name has another dataset."""

    vectors_dataset_id: str
    state: VersionState
    done: int
    texts: int
    source_version: int


def _mark(version: IndexVersion) -> _Mark:
    done, texts = version.documents_done, version.embedded_texts
    dataset_id = version.vectors_dataset_id
    return _Mark(dataset_id, version.state, done, texts, version.source_version)


class Builder:
    """Builds versions, one call a time of each.

    ``compare`` weighs a new version against the live one before it takes its place, ``image`` gives
    what another version has. ``texts``: how many were sent to the model.
    """

    def __init__(
        self,
        parts: VectorParts,
        documents: Documents,
        models: Models,
        publisher: Publisher,
        compare: Compare | None = None,
        image: LoadImage | None = None,
    ) -> None:
        self._parts = parts
        self._documents = documents
        self._models = models
        self._publisher = publisher
        self._compare = compare
        self._image = image
        self.reader = SourceReader(parts)
        self.weigher = Weigher(parts, self.reader)
        self._embedder = DocumentEmbedder(parts, models)
        self.texts = 0

    async def build(self, name: str, number: int) -> bool:
        """Bring version ``number`` up to date; whether there was anything to do.

        Raises ``Overtaken``, and what kept it from being built, which the document says too.
        """
        ctx = own_context(self._parts.ids, "build")
        run = _Run(self, ctx, name, number)
        try:
            return await run.build()
        except LakehouseError as error:
            if error.kind is ErrorKind.FENCED:
                raise
            await run.failed(error)
            raise


class _Run:
    """One build from its start to its end."""

    def __init__(self, builder: Builder, ctx: Context, name: str, number: int) -> None:
        self._b = builder
        self._parts = builder._parts
        self._ctx = ctx
        self._name = name
        self._number = number
        self._mark: _Mark | None = None
        self._told_at = 0.0
        self._refused: list[str] = []

    async def build(self) -> bool:
        worked = False
        for _ in range(_PASSES):
            info, version = await self._look()
            if not info.dataset_id:
                return False
            target = await self._b.weigher.target(self._ctx, version)
            work = await self._b.weigher.weigh(self._ctx, info, version, target)
            if work is None:
                await self._nothing(version)
                break
            worked = True
            try:
                await self._do(info, version, work)
            finally:
                await run_in(self._parts.jobs, work.close)
            if not version.cut_over:
                break
        # A version that is to take the place of another has caught up with what came meanwhile.
        await self._compared_and_live()
        return worked

    async def _look(self) -> tuple[VectorIndexInfo, IndexVersion]:
        info = await self._b._documents.get(self._ctx, self._name)
        version = version_of(info, self._number)
        self._mark = _mark(version)
        return info, version

    def _same(self, version: IndexVersion) -> bool:
        """Whether it is the version that was looked at, not one that was made anew since."""
        seen = self._mark
        return seen is not None and seen.vectors_dataset_id == version.vectors_dataset_id

    async def _nothing(self, version: IndexVersion) -> None:
        """What kept an earlier build from its end is over."""
        if version.error and not version.error.startswith(_REFUSED):
            await self._write(replace(version, error=""))

    async def _do(self, info: VectorIndexInfo, version: IndexVersion, work: Work) -> None:
        todo = work.todo.rows
        # What was deleted must not be found any longer, whatever has become of the model.
        gone = await run_in(self._parts.jobs, _gone, work)
        expected = await self._delete(version, gone, work.target.rows_version)
        if todo:
            model = await self._b._models.current(version.model, fresh=True)
            check_same_model(version, model)
        donor = await self._donor(info, version, work) if todo else None
        if work.full:
            version = await self._progress(
                version,
                done=max(0, work.documents - todo),
                total=work.documents,
                force=version.state is not VersionState.READY,
            )
        async with aclosing(self._embedded(version, work, donor)) as batches:
            async for count, embedded in batches:
                self._b.texts += embedded.texts
                self._refused += embedded.refused
                if embedded.rows.num_rows:
                    expected = await self._put(version, embedded.rows, expected)
                expected = await self._delete(version, embedded.stale, expected)
                done = version.documents_done + (count if work.full else 0)
                version = await self._progress(version, done=done, texts=embedded.texts)
        await self._ready(version, work)

    async def _embedded(
        self, version: IndexVersion, work: Work, donor: Image | None
    ) -> AsyncGenerator[tuple[int, Embedded], None]:
        """Batch by batch, and of how many documents; the next is at the model while one is
        written."""
        settings, jobs = self._parts.settings, self._parts.jobs
        batches = work.todo.tables(settings.batch_documents, _TEXT_BYTES_MAX)
        at = (work.source.rows_version, donor)
        batch = await run_in(jobs, _next, batches)
        under_way = None if batch is None else self._start(version, batch, at)
        try:
            while batch is not None and under_way is not None:
                count, embedded = batch.num_rows, await under_way
                batch = await run_in(jobs, _next, batches)
                if batch is not None:
                    under_way = self._start(version, batch, at)
                yield count, embedded
        finally:
            if under_way is not None:
                under_way.cancel()
                await asyncio.gather(under_way, return_exceptions=True)

    def _start(
        self, version: IndexVersion, batch: pa.Table, at: tuple[int, Image | None]
    ) -> asyncio.Task[Embedded]:
        return asyncio.create_task(self._b._embedder.embed(version, batch, *at))

    async def _donor(
        self, info: VectorIndexInfo, version: IndexVersion, work: Work
    ) -> Image | None:
        """What another version has; for a few changes only of the live one, which is in memory."""
        donor = donor_of(info, version)
        if donor is None or self._b._image is None:
            return None
        if not work.full and donor.number != info.live:
            return None
        try:
            return await self._b._image(self._ctx, donor)
        except LakehouseError as error:
            told = {"index": info.name, "number": donor.number, "reason": str(error)}
            log.warning("vectors of another version could not be taken over", extra=told)
            return None

    async def _put(self, version: IndexVersion, rows: pa.Table, expected: int) -> int:
        try:
            return await self._b._publisher.put(self._ctx, version, rows, expected)
        except LakehouseError as error:
            raise _overtaken(error) from error

    async def _delete(self, version: IndexVersion, keys: pa.Table, expected: int) -> int:
        try:
            return await self._b._publisher.delete(self._ctx, version, keys, expected)
        except LakehouseError as error:
            raise _overtaken(error) from error

    async def _progress(
        self,
        version: IndexVersion,
        *,
        done: int,
        total: int | None = None,
        texts: int = 0,
        force: bool = False,
    ) -> IndexVersion:
        """``version`` with what was done; told to the store now and then."""
        version = replace(
            version,
            documents_done=done,
            documents_total=version.documents_total if total is None else total,
            embedded_texts=version.embedded_texts + texts,
        )
        if version.state is VersionState.FAILED:
            version = replace(version, state=VersionState.BUILDING, error="")
        now = self._parts.clock.monotonic()
        if force or now - self._told_at >= _PROGRESS_SECONDS:
            await self._write(version)
            self._told_at = now
        return version

    async def _ready(self, version: IndexVersion, work: Work) -> None:
        target = await self._b.weigher.target(self._ctx, version)
        documents = work.documents - len(self._refused)
        if work.documents < 0 or (self._refused and not work.full):
            documents = await self._b.weigher.documents(self._ctx, target)
        await self._write(
            replace(
                version,
                state=VersionState.READY,
                source_version=work.source.rows_version,
                documents=documents,
                chunks=target.dataset.row_count or 0,
                documents_done=documents,
                documents_total=documents,
                ready_at=version.ready_at or to_datetime(self._parts.clock.now_us()),
                error=_not_taken(self._refused) or _still(version, work),
            ),
            dataset=work.source.dataset.name,
        )

    async def _write(self, version: IndexVersion, dataset: str = "") -> None:
        """What this build has to say of its version; other fields stay as others set them."""

        def edit(info: VectorIndexInfo) -> VectorIndexInfo:
            there = version_of(info, self._number)
            if _mark(there) not in (self._mark, _mark(version)):
                raise Overtaken
            told = replace(
                version,
                structures=there.structures,
                cut_over=there.cut_over,
                profile=there.profile,
            )
            return replace(with_version(info, told), dataset=dataset or info.dataset)

        await self._b._documents.change(self._ctx, self._name, edit)
        self._mark = _mark(version)

    async def _compared_and_live(self) -> None:
        info, version = await self._look()
        if not version.cut_over or version.state is not VersionState.READY:
            return
        figures = await self._figures(info, version)

        def edit(info: VectorIndexInfo) -> VectorIndexInfo:
            there = version_of(info, self._number)
            if not there.cut_over or not self._same(there):
                return info
            told = replace(there, cut_over=False, comparison_json=figures)
            info = with_version(info, told)
            if info.live == self._number:
                return info
            return replace(info, live=self._number, previous=info.live)

        await self._b._documents.change(self._ctx, self._name, edit)

    async def _figures(self, info: VectorIndexInfo, version: IndexVersion) -> str:
        """Both versions on sampled queries; "" where that cannot be had: it decides nothing."""
        if self._b._compare is None or info.live in (0, version.number) or not version.chunks:
            return ""
        request = CompareRequest(info.name, info.live, version.number)
        try:
            return to_json(await self._b._compare(self._ctx, request))
        except LakehouseError as error:
            told = {"index": info.name, "number": version.number, "reason": str(error)}
            log.warning("two versions of an index could not be compared", extra=told)
            return ""

    async def failed(self, error: LakehouseError) -> None:
        """Say in the document why it did not come to its end."""
        told = _told(error)

        def edit(info: VectorIndexInfo) -> VectorIndexInfo:
            there = version_of(info, self._number)
            if not self._same(there):
                return info
            ready = there.state is VersionState.READY
            state = VersionState.READY if ready else VersionState.FAILED
            return with_version(info, replace(there, state=state, error=told))

        try:
            await self._b._documents.change(self._ctx, self._name, edit)
        except LakehouseError as second:
            extra = {"index": self._name, "reason": str(second)}
            log.warning("a failed build could not be noted", extra=extra)


def _overtaken(error: LakehouseError) -> Exception:
    """Another wrote in between; a conflict of another kind is one that would not pass."""
    raced = "expected_version" in error.fields or "attempts" in error.fields
    return Overtaken() if error.kind is ErrorKind.CONFLICT and raced else error


def _gone(work: Work) -> pa.Table:
    entities = work.gone.column("entity").to_pylist()
    return stale_chunks(entities, [0] * len(entities), work.gone.column("last").to_pylist())


def _next(batches: Iterator[pa.Table]) -> pa.Table | None:
    return next(batches, None)


def _told(error: LakehouseError) -> str:
    hint = error.fields.get("hint")
    return f"{error}{f' ({hint})' if hint else ''}"[:_ERROR_MAX]


def _not_taken(refused: list[str]) -> str:
    """How many; their keys are for those alone who may read the dataset."""
    if not refused:
        return ""
    return f"{_REFUSED} {len(refused)}"


def _still(version: IndexVersion, work: Work) -> str:
    """Documents that were refused are looked at again only with all others."""
    return version.error if version.error.startswith(_REFUSED) and not work.full else ""
