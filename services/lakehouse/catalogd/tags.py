"""Tags, and what is read of a dataset's journal."""

from __future__ import annotations

import itertools
from typing import Final

from immutables import Map

from lakehouse.catalogd.bounds import check_texts
from lakehouse.catalogd.core import Core, Planned, decode_cursor, encode_cursor
from lakehouse.catalogd.state import CatalogState, DatasetState
from lakehouse.catalogd.tagging import TAG_DOCUMENTS, TagBody, read_tag, tag_body, tag_of
from lakehouse.catalogd.views import dataset_at, tag_named, version_of
from lakehouse.contracts.as_of import AsOf
from lakehouse.contracts.inventory import JournalRequest, JournalResult
from lakehouse.contracts.tags import SetTagRequest, TagResult, TagsRequest, TagsResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.changes import DeleteDocument, PutDocument
from lakehouse.model.dataset import EVENTS, DataFile, VersionEntry
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import check_name, name_key

__all__ = ["Tags"]

_LIMIT_MAX: Final = 1000
_TAGS_MAX: Final = 10_000


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= _LIMIT_MAX:
        raise LakehouseError(
            ErrorKind.INVALID, f"limit must be from 1 to {_LIMIT_MAX}", limit=limit, max=_LIMIT_MAX
        )


class Tags:
    """Use cases of tags, and ``CatalogService.journal``."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def journal(self, ctx: Context, request: JournalRequest) -> JournalResult:
        """Each page is of the version of the first one: nothing is told twice or passed over,
        whatever is folded meanwhile."""
        state = await self._core.read(ctx)
        _check_limit(request.limit)
        if request.after < 0:
            raise LakehouseError(
                ErrorKind.INVALID, "a version is not negative", after=str(request.after)[:40]
            )
        at, last, told, dataset_id = state.version, (0, 0), request.after, ""
        if request.cursor:
            at, seq, ordinal, told, dataset_id = decode_cursor(
                request.cursor, (int, int, int, int, str)
            )
            last = (seq, ordinal)
            version_of(state, AsOf(version=at))
        version = None if at == state.version else at
        dataset, revision = dataset_at(state, request.name, version, include_dropped=True)
        if dataset_id not in ("", dataset.id):
            raise LakehouseError(
                ErrorKind.INVALID, "the cursor is of another dataset", name=request.name
            )
        files = _events(dataset, request.after, version, last)
        # What now stands first among entries may not have then: only the newest is looked up so.
        known = dataset.untold - 1 if dataset.untold else at
        first = max(told, revision.marks.journaled, known if version is None else 0)
        entries = _untold(dataset, first, at, request.limit + 1)
        more = len(files) > request.limit or len(entries) > request.limit
        files, entries = files[: request.limit], entries[: request.limit]
        cursor = ""
        if more:
            place = (files[-1].seq, files[-1].ordinal) if files else last
            told = entries[-1].version if entries else told
            cursor = encode_cursor(at, *place, told, dataset.id)
        return JournalResult(
            dataset=dataset.view(revision),
            files=tuple(files),
            entries=tuple(entries),
            horizon=state.objects.horizon,
            version=at,
            cursor=cursor,
        )

    async def set_tag(self, ctx: Context, request: SetTagRequest) -> TagResult:
        ctx.require(Scope.WRITE)
        name = check_name(request.name, "tag name")
        check_texts(note=request.note)

        def decide(state: CatalogState) -> Planned:
            if request.remove:
                found = tag_named(state, name)
                return [DeleteDocument(TAG_DOCUMENTS, name_key(name))], _answer(state, found)
            wanted = _wanted(state, request, name, ctx.principal.id)
            document = state.documents.get(TAG_DOCUMENTS, Map()).get(name_key(name))
            if document is None:
                _check_room(state)
            else:
                there = read_tag(document.body)
                if (there.version, there.dataset_id) != (wanted.version, wanted.dataset_id):
                    raise _another(state, there, wanted)
                if request.note in ("", there.note):
                    return [], _answer(state, there)
            put = PutDocument(TAG_DOCUMENTS, name_key(name), tag_body(wanted))
            return [put], {**_answer(state, wanted), "created": document is None}

        done = await self._core.commit(ctx, "set_tag", request, decide)
        answer = done.answer
        tag = tag_of(read_tag(str(answer["tag"])), str(answer["dataset"]))
        created = bool(answer.get("created", False)) and not done.no_op
        return TagResult(tag, done.seq, created)

    async def tags(self, ctx: Context, request: TagsRequest) -> TagsResult:
        state = await self._core.read(ctx)
        _check_limit(request.limit)
        only = ""
        if request.dataset:
            only = dataset_at(state, request.dataset, include_dropped=True)[0].id
        after = ""
        if request.cursor:
            (after,) = decode_cursor(request.cursor, (str,))
        every, begins = state.documents.get(TAG_DOCUMENTS, Map()), name_key(request.prefix)
        named = sorted((key, each) for key, each in every.items() if key.startswith(begins))
        rest = ((key, read_tag(each.body)) for key, each in named if key > after)
        wanted = ((key, body) for key, body in rest if not only or body.dataset_id == only)
        found = list(itertools.islice(wanted, request.limit + 1))
        page = found[: request.limit]
        return TagsResult(
            tags=tuple(tag_of(body, _called(state, body)) for _, body in page),
            version=state.version,
            cursor=encode_cursor(page[-1][0]) if len(found) > len(page) else "",
        )


def _events(
    dataset: DatasetState, after: int, version: int | None, last: tuple[int, int]
) -> list[DataFile]:
    """The event files later than ``after`` that stand behind ``last`` (seq, ordinal), in order."""
    found = dataset.log.of_content(EVENTS, max(after + 1, last[0]), version=version)
    left = [file for file in found if (file.seq, file.ordinal) > last]
    left.sort(key=lambda file: (file.seq, file.ordinal))
    return left


def _untold(dataset: DatasetState, after: int, up_to: int, limit: int) -> list[VersionEntry]:
    """Entries in (after, up_to] that are events of the journal themselves, rising."""
    history = dataset.history
    cut = history.start and history[history.start].version > after + 1
    if cut and dataset.now.marks.journaled > after:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "what the cursor goes on from was folded into events meanwhile",
            dataset=dataset.now.head.name,
            hint="start again without a cursor",
        )
    start = history.bisect(after, lambda revision: revision.version)
    end = history.bisect(up_to, lambda revision: revision.version)
    found = (history[at] for at in range(start, end))
    return [one.entry for one in itertools.islice((e for e in found if e.untold), limit)]


def _wanted(state: CatalogState, request: SetTagRequest, name: str, actor: str) -> TagBody:
    version = version_of(state, request.as_of)
    at = state.version if version is None else version
    if at < 1:
        raise LakehouseError(ErrorKind.NOT_FOUND, "the store has no version yet", tag=name)
    dataset_id = dataset_at(state, request.dataset, version)[0].id if request.dataset else ""
    if not dataset_id and at < state.objects.horizon and at not in state.pins.get("", ()):
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "the version is kept of some datasets only",
            version=at,
            horizon=state.objects.horizon,
            hint="tag the dataset that is kept",
        )
    return TagBody(name, at, _made_us(state, at), dataset_id, request.note, actor)


def _made_us(state: CatalogState, version: int) -> int:
    """When ``version`` was made: the store knows, or a tag that keeps it does."""
    if version >= state.times.start:
        return state.times[version]
    bodies = (read_tag(each.body) for each in state.documents.get(TAG_DOCUMENTS, Map()).values())
    return next((each.at_us for each in bodies if each.version == version), 0)


def _check_room(state: CatalogState) -> None:
    count = len(state.documents.get(TAG_DOCUMENTS, Map()))
    if count >= _TAGS_MAX:
        raise LakehouseError(
            ErrorKind.EXHAUSTED,
            "there are as many tags as a store may have",
            tags=count,
            hint="remove some that are no longer needed",
        )


def _another(state: CatalogState, there: TagBody, wanted: TagBody) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CONFLICT,
        "there is a tag of this name, of another version or dataset",
        tag=there.name,
        version=there.version,
        dataset=_called(state, there),
        wanted_version=wanted.version,
        hint="remove it first, or take another name",
    )


def _called(state: CatalogState, body: TagBody) -> str:
    """What the dataset of a tag is called now; "" for the whole store."""
    dataset = state.datasets.get(body.dataset_id)
    return "" if dataset is None else dataset.now.head.name


def _answer(state: CatalogState, body: TagBody) -> dict[str, object]:
    return {"tag": tag_body(body), "dataset": _called(state, body)}
