"""Memories as what they are: datasets with a tag, and an index over their texts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import orjson

from lakehouse.contracts.catalog import CommitRequest, DatasetResult, DocumentsRequest, GetRequest
from lakehouse.contracts.profiles import ProfileRequest
from lakehouse.contracts.vectors import (
    CreateIndexRequest,
    IndexResult,
    SearchRequest,
    SearchResult,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.acting import act_as
from lakehouse.model.changes import CreateDataset, PutDocument
from lakehouse.model.dataset import Dataset, DatasetStatus
from lakehouse.model.identity import Context
from lakehouse.model.refs import PRIMARY
from lakehouse.model.vectors import VectorIndexInfo
from lakehouse.table.fingerprint import fingerprint
from lakehouse.vectord.documents import Documents
from lakehouse.vectord.identity import own_context
from lakehouse.vectord.making import checked_name
from lakehouse.vectord.memory.turns import KEY, SCHEMA, TEXT, card_of, is_memory
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.profiles import Profiles

__all__ = [
    "MEMORY_DOCUMENTS",
    "CreateIndex",
    "Opened",
    "Search",
    "Spaces",
    "memory_document",
]

log = logging.getLogger(__name__)

MEMORY_DOCUMENTS: Final = "memory"
_ATTEMPTS: Final = 8
_AGAIN_SECONDS: Final = 5.0

CreateIndex = Callable[[Context, CreateIndexRequest], Awaitable[IndexResult]]
More = Callable[[SearchResult], Awaitable[SearchResult]]
Search = Callable[[Context, SearchRequest, More | None], Awaitable[SearchResult]]


@dataclass(frozen=True, slots=True)
class Opened:
    """A memory at ``version`` of the store. ``created``: by this call, or (``again``) by an earlier
    one of its idempotency key."""

    dataset: Dataset
    version: int
    created: bool = False
    again: bool = False


class Spaces:
    """Finds memories, and makes them. Belongs to one event loop.

    Turns are remembered whether or not a model is there to embed them: an index that could not be
    made is made in the background, by the next call that finds it missing.
    """

    def __init__(self, parts: VectorParts, documents: Documents, create: CreateIndex) -> None:
        self._parts = parts
        self._documents = documents
        self._profiles = Profiles(parts)
        self._create = create
        self._making: dict[str, asyncio.Task[None]] = {}
        self._again: dict[str, float] = {}
        self._why: dict[str, str] = {}

    async def find(self, ctx: Context, name: str) -> Opened:
        """Raises ``not_found``, and ``conflict`` for a dataset that is no memory."""
        try:
            found = await self._parts.catalog.get(ctx, GetRequest(name))
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            raise LakehouseError(
                ErrorKind.NOT_FOUND,
                "there is no memory of this name",
                memory=name[:255],
                hint="list the memories to see their names; the first turn makes one",
            ) from error
        return _opened(found)

    async def open(self, ctx: Context, name: str, profile: str, noting: CommitRequest) -> Opened:
        """Find it, or make it. Raises ``conflict``, and ``not_found`` for the profile of one that
        is to be made.

        Args:
            noting: what is said of the caller's call with the commit that makes it.
        """
        error: LakehouseError | None = None
        for _ in range(_ATTEMPTS):
            try:
                return await self.find(ctx, name)
            except LakehouseError as missing:
                if missing.kind is not ErrorKind.NOT_FOUND:
                    raise
            await self._check_index_name(ctx, checked_name(name))
            try:
                again = await self._make(ctx, checked_name(name), profile, noting)
            except LakehouseError as refused:
                if refused.kind not in (ErrorKind.CONFLICT, ErrorKind.ALREADY_EXISTS):
                    raise
                error = refused
                continue
            return replace(await self.find(ctx, name), created=True, again=again)
        assert error is not None
        raise error

    async def index(self, ctx: Context, dataset: Dataset) -> VectorIndexInfo | None:
        """The index over the turns' texts, however it is called; None while there is none."""
        try:
            info = await self._documents.get(ctx, dataset.name)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
        else:
            if _over(info, dataset):
                return info
        infos, _ = await self._documents.list(ctx)
        return next((info for info in infos if _over(info, dataset)), None)

    async def want_index(
        self, ctx: Context, dataset: Dataset, seconds: float
    ) -> VectorIndexInfo | None:
        """The index; one that is missing is being made from now on. That is waited for so long,
        unless it has failed before. Whatever is in its way is in nobody else's (``why``)."""
        info = await self.index(ctx, dataset)
        if info is not None:
            return info
        task = self._making.get(dataset.id) or self._begun(dataset)
        if task is None or dataset.id in self._why:
            return None
        await asyncio.wait([task], timeout=seconds)
        return await self.index(ctx, dataset)

    def why(self, dataset: Dataset) -> str:
        """What was in the way of its index when that was tried last; "" where nothing was."""
        return self._why.get(dataset.id, "")

    async def close(self) -> None:
        """End what runs in the background; idempotent."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _make(self, ctx: Context, name: str, profile: str, noting: CommitRequest) -> bool:
        """Whether this very call had made it before."""
        chosen = (await self._profiles.get(ctx, ProfileRequest(profile))).profile
        dataset_id = self._parts.ids.ulid()
        made = CreateDataset(
            dataset_id,
            name,
            fingerprint(SCHEMA.columns),
            SCHEMA,
            card_of(ctx.principal.id),
            KEY,
            PRIMARY,
            self._parts.buckets.settings(PRIMARY).residency,
        )
        about = memory_document(dataset_id, chosen.name)
        # Without a key to note the commit is not this call's alone: the rows are another.
        keyed = ctx if noting.request_sha256 else replace(ctx, idempotency_key=None)
        whole = replace(noting, changes=(made, about))
        return (await self._parts.catalog.commit(keyed, whole)).replayed

    async def _check_index_name(self, ctx: Context, name: str) -> None:
        """Raise ``conflict`` where the index's name is another one's."""
        try:
            info = await self._documents.get(ctx, name)
        except LakehouseError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                return
            raise
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "an index of this name is there already, over something else",
            memory=name,
            index=info.name,
            dataset=info.dataset,
            hint="take another name for the memory, or delete the index",
        )

    def _begun(self, dataset: Dataset) -> asyncio.Task[None] | None:
        """Its index is being made; None where that failed a moment ago."""
        now = self._parts.clock.monotonic()
        if now < self._again.get(dataset.id, now):
            return None
        self._again[dataset.id] = now + _AGAIN_SECONDS
        task = asyncio.create_task(self._make_index(dataset), name=f"index of {dataset.name}")
        self._making[dataset.id] = task
        task.add_done_callback(lambda done: self._made(dataset, done))
        return task

    async def _make_index(self, dataset: Dataset) -> None:
        ctx = own_context(self._parts.ids, "memory")
        request = CreateIndexRequest(
            dataset.name, dataset.name, TEXT, await self._profile(ctx, dataset)
        )
        with act_as("vectord"):
            await self._create(ctx, request)

    def _made(self, dataset: Dataset, task: asyncio.Task[None]) -> None:
        del self._making[dataset.id]
        error = None if task.cancelled() else task.exception()
        if error is None:
            self._again.pop(dataset.id, None)
            self._why.pop(dataset.id, None)
        else:
            self._why[dataset.id] = str(error)
            told = {"memory": dataset.name, "reason": str(error)}
            log.warning("the index of a memory could not be made", extra=told)

    async def _profile(self, ctx: Context, dataset: Dataset) -> str:
        """That was chosen when the memory was made."""
        try:
            request = DocumentsRequest(MEMORY_DOCUMENTS, dataset.id)
            found = await self._parts.catalog.documents(ctx, request)
            return str(orjson.loads(found.documents[0].body)["profile"])
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return "conversation"


def memory_document(dataset_id: str, profile: str) -> PutDocument:
    """What is kept of a memory beside its dataset, as long as that is there."""
    return PutDocument(MEMORY_DOCUMENTS, dataset_id, orjson.dumps({"profile": profile}).decode())


def _opened(found: DatasetResult) -> Opened:
    dataset = found.dataset
    if dataset.status is not DatasetStatus.LIVE:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            f"the memory is {dataset.status.value}",
            memory=dataset.name,
            hint="have an operator look at it",
        )
    if not is_memory(dataset):
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the dataset is no memory of conversations",
            dataset=dataset.name,
            columns=[*dataset.schema.names()[:20]],
            hint="take another name, or search the dataset by an index of its own",
        )
    return Opened(dataset, found.version)


def _over(info: VectorIndexInfo, dataset: Dataset) -> bool:
    return info.dataset_id == dataset.id and info.columns == TEXT
