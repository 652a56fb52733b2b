"""Indexes made, listed, built, cut over and deleted: each one commit of the catalog."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from lakehouse.contracts import vectors as c
from lakehouse.contracts.catalog import CommitRequest, GetRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.changes import Change, DeleteDocument, DocumentAt, DropDataset
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import name_key
from lakehouse.model.vectors import INDEX_DOCUMENTS, IndexVersion, VectorIndexInfo, VersionState
from lakehouse.vectord.documents import (
    Documents,
    document_id,
    live_version,
    put_index,
    version_of,
    with_version,
)
from lakehouse.vectord.following import Follower
from lakehouse.vectord.making import Maker, Of, bad, check_same, check_source, checked_name
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.publishing import vectors_name
from lakehouse.vectord.repeating import answered, asked, recall
from lakehouse.vectord.source import MISSED_SECONDS, Source, SourceReader

__all__ = ["Indexes"]

_VERSIONS_MAX: Final = 100
_LIMIT_MAX: Final = 1_000
_ATTEMPTS: Final = 8


class Indexes:
    """The use cases of indexes as wholes. Belongs to one event loop. ``forget`` is told which
    datasets of vectors are dropped."""

    def __init__(
        self,
        parts: VectorParts,
        documents: Documents,
        maker: Maker,
        follower: Follower,
        forget: Callable[[str], None] | None = None,
    ) -> None:
        self._forget = forget
        self._parts = parts
        self._documents = documents
        self._maker = maker
        self._reader = SourceReader(parts, MISSED_SECONDS)
        self._follower = follower

    async def create(self, ctx: Context, request: c.CreateIndexRequest) -> c.IndexResult:
        """See the contract. One commit makes the index and the dataset of its vectors."""
        ctx.require(Scope.WRITE)
        name = checked_name(request.name)
        commit = asked(ctx, "vectors.create", request)
        for attempt in range(_ATTEMPTS):
            done = await recall(self._parts.catalog, ctx, commit)
            if done is not None:
                return await self._result(ctx, name, created=True)
            of = await self._maker.definition(ctx, request)
            there = await self._there(ctx, name)
            if there is not None:
                check_same(there, of)
                return await self._result(ctx, name)
            made = await self._maker.made(ctx, name, 1, of)
            source = of.source
            info = VectorIndexInfo(
                name,
                source.name if source else "",
                source.id if source else "",
                request.columns,
                of.profile.name,
                1,
                0,
                (replace(made.version, cut_over=request.build and source is not None),),
                made.version.created_at,
            )
            whole = put_index(info, 0, answered(commit, {"name": name}), (made.change,))
            try:
                await self._parts.catalog.commit(ctx, whole)
            except LakehouseError as error:
                if error.kind is not ErrorKind.CONFLICT or attempt == _ATTEMPTS - 1:
                    raise _taken(error, name) from error
                continue
            if info.versions[0].cut_over:
                self._follower.start_build(name, 1)
            return await self._result(ctx, name, created=True)
        raise LakehouseError(ErrorKind.INTERNAL, "an index was never made")

    async def get(self, ctx: Context, request: c.IndexRequest) -> c.IndexResult:
        ctx.require(Scope.READ)
        return await self._result(ctx, request.name)

    async def list(self, ctx: Context, request: c.ListIndexesRequest) -> c.ListIndexesResult:
        ctx.require(Scope.READ)
        if not 1 <= request.limit <= _LIMIT_MAX:
            raise bad("limit is out of range", limit=request.limit, minimum=1, maximum=_LIMIT_MAX)
        after = _cursor_key(request.cursor)
        infos, version = await self._documents.list(ctx)
        dataset = name_key(request.dataset)
        wanted = [
            info
            for info in infos
            if (not dataset or name_key(info.dataset) == dataset) and document_id(info.name) > after
        ]
        wanted.sort(key=lambda info: document_id(info.name))
        page = wanted[: request.limit]
        known: dict[str, Source | None] = {}
        shown = [await self._with_behind(ctx, info, known) for info in page]
        more = len(wanted) > len(page)
        return c.ListIndexesResult(tuple(shown), version, _cursor(page[-1].name) if more else "")

    async def build(self, ctx: Context, request: c.BuildRequest) -> c.IndexResult:
        """See the contract. Without a new version nothing is committed here."""
        ctx.require(Scope.WRITE)
        if not 0 <= request.wait_seconds <= c.WAIT_SECONDS_MAX:
            raise bad(
                "wait_seconds is out of range",
                wait_seconds=request.wait_seconds,
                minimum=0,
                maximum=c.WAIT_SECONDS_MAX,
            )
        info = await self._documents.get(ctx, request.name)
        if not info.dataset_id:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "an index of given vectors is not built",
                index=info.name,
                hint="put vectors into it",
            )
        if request.new_version or request.profile:
            numbers: Sequence[int] = [await self._new_version(ctx, request)]
        else:
            numbers = await self._begun(ctx, info)
        first = self._follower.start_build(info.name, numbers[0])
        rest = [self._follower.start_build(info.name, number, first) for number in numbers[1:]]
        tasks = [first, *rest]
        if request.wait_seconds:
            await asyncio.wait(tasks, timeout=request.wait_seconds)
        return await self._result(ctx, request.name)

    async def cut_over(self, ctx: Context, request: c.CutOverRequest) -> c.IndexResult:
        ctx.require(Scope.WRITE)
        commit = asked(ctx, "vectors.cut_over", request)
        for attempt in range(_ATTEMPTS):
            if await recall(self._parts.catalog, ctx, commit) is not None:
                break
            info = await self._documents.get(ctx, request.name)
            version = _next_live(info, request.number)
            if version.number == info.live:
                break
            changed = replace(info, live=version.number, previous=info.live)
            changed = with_version(changed, replace(version, cut_over=False))
            whole = put_index(changed, info.version, answered(commit, {}))
            try:
                await self._parts.catalog.commit(ctx, whole)
            except LakehouseError as error:
                if error.kind is not ErrorKind.CONFLICT or attempt == _ATTEMPTS - 1:
                    raise
                continue
            break
        return await self._result(ctx, request.name)

    async def delete(self, ctx: Context, request: c.DeleteIndexRequest) -> c.DeleteIndexResult:
        """See the contract. One commit drops the datasets and the document."""
        ctx.require(Scope.WRITE)
        commit = asked(ctx, "vectors.delete", request)
        for attempt in range(_ATTEMPTS):
            done = await recall(self._parts.catalog, ctx, commit)
            if done is not None:
                return c.DeleteIndexResult(done[1]["name"], done[0], done[1]["deleted"])
            info = await self._documents.get(ctx, request.name)
            gone = _deletable(info, request.number)
            await self._follower.stop(info.name, request.number)
            drops = [each for version in gone for each in await self._drop(ctx, version)]
            answer = answered(commit, {"name": info.name, "deleted": len(gone)})
            whole = _deletion(info, request.number, answer, tuple(drops))
            try:
                result = await self._parts.catalog.commit(ctx, whole)
            except LakehouseError as error:
                raced = error.kind in (ErrorKind.CONFLICT, ErrorKind.NOT_FOUND)
                if not raced or attempt == _ATTEMPTS - 1:
                    raise
                continue
            for version in gone:
                if self._forget is not None:
                    self._forget(version.vectors_dataset_id)
            return c.DeleteIndexResult(info.name, result.version, len(gone))
        raise LakehouseError(ErrorKind.INTERNAL, "an index was never deleted")

    async def _drop(self, ctx: Context, version: IndexVersion) -> Sequence[Change]:
        """Drops its dataset, unless somebody did."""
        try:
            found = await self._parts.catalog.get(ctx, GetRequest(version.vectors_dataset))
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return []
        there = found.dataset.id == version.vectors_dataset_id
        return [DropDataset(found.dataset.id)] if there else []

    async def _there(self, ctx: Context, name: str) -> VectorIndexInfo | None:
        try:
            return await self._documents.get(ctx, name)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return None

    async def _new_version(self, ctx: Context, request: c.BuildRequest) -> int:
        """Commits a version that stands beside the others; its number."""
        commit = asked(ctx, "vectors.build", request)
        for attempt in range(_ATTEMPTS):
            done = await recall(self._parts.catalog, ctx, commit)
            if done is not None:
                return int(done[1]["number"])
            info = await self._documents.get(ctx, request.name)
            if len(info.versions) >= _VERSIONS_MAX:
                raise LakehouseError(
                    ErrorKind.EXHAUSTED,
                    "the index has as many versions as it can",
                    index=info.name,
                    versions=len(info.versions),
                    hint="delete some that are not live",
                )
            profile = await self._maker.profile(ctx, request.profile or info.profile)
            source = (await self._reader.source(ctx, info)).dataset
            check_source(source, info.columns)
            number = await self._free_number(ctx, info)
            of = Of(source, info.columns, profile)
            made = await self._maker.made(ctx, info.name, number, of)
            version = replace(made.version, cut_over=request.cut_over)
            changed = replace(with_version(info, version), profile=profile.name)
            whole = put_index(
                changed, info.version, answered(commit, {"number": number}), (made.change,)
            )
            try:
                await self._parts.catalog.commit(ctx, whole)
            except LakehouseError as error:
                if error.kind is not ErrorKind.CONFLICT or attempt == _ATTEMPTS - 1:
                    raise _taken(error, info.name) from error
                continue
            return number
        raise LakehouseError(ErrorKind.INTERNAL, "a version was never made")

    async def _free_number(self, ctx: Context, info: VectorIndexInfo) -> int:
        """The next number; of numbers whose dataset's name somebody took, the one after."""
        number = max((each.number for each in info.versions), default=0) + 1
        while True:
            try:
                await self._parts.catalog.get(ctx, GetRequest(vectors_name(info.name, number)))
            except LakehouseError as error:
                if error.kind is not ErrorKind.NOT_FOUND:
                    raise
                return number
            number += 1

    async def _begun(self, ctx: Context, info: VectorIndexInfo) -> Sequence[int]:
        """The versions that are to be brought up to date: all, the live one first. One that was
        made without being built is to be from now on."""

        def edit(info: VectorIndexInfo) -> VectorIndexInfo:
            for each in info.versions:
                if each.number == info.live and each.state is not VersionState.READY:
                    info = with_version(info, replace(each, cut_over=True))
            return info

        info = await self._documents.change(ctx, info.name, edit)
        numbers = [each.number for each in info.versions]
        return sorted(numbers, key=lambda number: (number != info.live, number))

    async def _result(self, ctx: Context, name: str, *, created: bool = False) -> c.IndexResult:
        info, version = await self._documents.read(ctx, name)
        shown = await self._with_behind(ctx, info, {})
        building = self._follower.building(info.name)
        return c.IndexResult(shown, version, created, building)

    async def _with_behind(
        self, ctx: Context, info: VectorIndexInfo, known: dict[str, Source | None]
    ) -> VectorIndexInfo:
        live = live_version(info)
        if not info.dataset_id:
            return info if live is None else await self._counted(ctx, info, live)
        if info.dataset_id not in known:
            known[info.dataset_id] = await self._source(ctx, info)
        source = known[info.dataset_id]
        if source is None:
            return info
        behind = live is not None and source.rows_version != live.source_version
        # By the name that it has now, which the document learns later.
        return replace(info, dataset=source.dataset.name, behind=behind)

    async def _counted(
        self, ctx: Context, info: VectorIndexInfo, live: IndexVersion
    ) -> VectorIndexInfo:
        """With the number of given vectors: no build counts them, their dataset does."""
        try:
            found = await self._parts.catalog.get(ctx, GetRequest(live.vectors_dataset))
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return info
        rows = found.dataset.row_count or 0
        return with_version(info, replace(live, documents=rows, chunks=rows))

    async def _source(self, ctx: Context, info: VectorIndexInfo) -> Source | None:
        try:
            return await self._reader.source(ctx, info)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return None


def _taken(error: LakehouseError, name: str) -> LakehouseError:
    """A name of a dataset that is in the way is told as that."""
    if error.kind is ErrorKind.ALREADY_EXISTS:
        error.fields["index"] = name
        error.fields["hint"] = "rename or purge the dataset, or take another name for the index"
    return error


def _next_live(info: VectorIndexInfo, number: int) -> IndexVersion:
    if not number and not info.previous:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "no other version was live before",
            index=info.name,
            live=info.live,
            hint="name the version that is to be live",
        )
    version = version_of(info, number or info.previous)
    if version.state is not VersionState.READY:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the version is not ready",
            index=info.name,
            number=version.number,
            state=version.state.value,
            documents_done=version.documents_done,
            documents_total=version.documents_total,
            hint="build it to its end first",
        )
    return version


def _deletable(info: VectorIndexInfo, number: int) -> tuple[IndexVersion, ...]:
    if not number:
        return info.versions
    version = version_of(info, number)
    if number == info.live:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the live version of an index cannot be deleted",
            index=info.name,
            number=number,
            hint="make another one live first, or delete the index",
        )
    return (version,)


def _deletion(
    info: VectorIndexInfo, number: int, commit: CommitRequest, drops: tuple[Change, ...]
) -> CommitRequest:
    if number:
        left = tuple(each for each in info.versions if each.number != number)
        previous = 0 if info.previous == number else info.previous
        return put_index(
            replace(info, versions=left, previous=previous), info.version, commit, drops
        )
    key = document_id(info.name)
    changes = (*drops, DeleteDocument(INDEX_DOCUMENTS, key))
    needs = (DocumentAt(INDEX_DOCUMENTS, key, info.version),)
    return replace(commit, changes=changes, requirements=needs)


def _cursor(name: str) -> str:
    return base64.urlsafe_b64encode(document_id(name).encode()).decode()


def _cursor_key(cursor: str) -> str:
    try:
        return base64.b64decode(cursor.encode(), b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        raise bad("the cursor is not one of ours", cursor=cursor[:80]) from None
