"""Indexes as documents of the catalog: read, listed, and changed by compare-and-swap."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from lakehouse.contracts.catalog import CommitRequest, CommitResult, Document, DocumentsRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.changes import Change, DocumentAt, PutDocument, Requirement
from lakehouse.model.identity import Context
from lakehouse.model.refs import name_key
from lakehouse.model.vectors import INDEX_DOCUMENTS, IndexVersion, VectorIndexInfo
from lakehouse.vectord.codec import from_json, to_json
from lakehouse.vectord.naming import no_such_name
from lakehouse.vectord.parts import VectorParts

__all__ = ["Documents", "live_version", "version_of", "with_version"]

log = logging.getLogger(__name__)
_ATTEMPTS: Final = 20

Edit = Callable[[VectorIndexInfo], VectorIndexInfo]


class Documents:
    """The indexes of a store. Belongs to one event loop.

    What was read is kept by the version of its last change: to look at an index again costs a call
    to the catalog and no parsing.
    """

    def __init__(self, parts: VectorParts) -> None:
        self._catalog = parts.catalog
        self._parsed: dict[str, VectorIndexInfo] = {}

    async def get(self, ctx: Context, name: str) -> VectorIndexInfo:
        """With ``version`` of its last change; ``behind`` is for the caller to find out. Raises
        ``not_found`` with the nearest name."""
        return (await self.read(ctx, name))[0]

    async def read(self, ctx: Context, name: str) -> tuple[VectorIndexInfo, int]:
        """An index, and the version of the store that was read."""
        try:
            request = DocumentsRequest(INDEX_DOCUMENTS, document_id(name))
            found = await self._catalog.documents(ctx, request)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            raise await self._no_such_index(ctx, name) from error
        document = found.documents[0]
        return self._parse(document.id, document.body, document.version), found.version

    async def list(self, ctx: Context) -> tuple[tuple[VectorIndexInfo, ...], int]:
        """All indexes by name, and the version of the store that was read. One that cannot be read
        hides no other."""
        found = await self._catalog.documents(ctx, DocumentsRequest(INDEX_DOCUMENTS))
        read = (self._readable(each) for each in found.documents)
        infos = tuple(info for info in read if info is not None)
        there = {each.id for each in found.documents}
        for gone in self._parsed.keys() - there:
            del self._parsed[gone]
        return infos, found.version

    async def create(
        self, ctx: Context, info: VectorIndexInfo, commit: CommitRequest | None = None
    ) -> CommitResult:
        """Raises ``conflict`` where an index of this name is there. ``commit``: what is said of the
        call with it (idempotency)."""
        return await self.put(ctx, info, at=0, commit=commit)

    async def put(
        self,
        ctx: Context,
        info: VectorIndexInfo,
        at: int,
        commit: CommitRequest | None = None,
        more: tuple[Change, ...] = (),
    ) -> CommitResult:
        """Write ``info`` if the document's last change is still ``at``, with ``more`` changes in
        the same commit. Raises ``conflict``."""
        return await self._catalog.commit(ctx, put_index(info, at, commit, more))

    async def change(self, ctx: Context, name: str, edit: Edit) -> VectorIndexInfo:
        """Apply ``edit`` and commit, again on what is there then where another was faster; so it
        must be safe to apply more than once. Where it changes nothing, nothing is committed.

        Raises what ``edit`` raises, and ``conflict`` where others are always faster.
        """
        error: LakehouseError | None = None
        for _ in range(_ATTEMPTS):
            info = await self.get(ctx, name)
            changed = edit(info)
            if changed == info:
                return info
            try:
                done = await self.put(ctx, changed, info.version)
            except LakehouseError as refused:
                if refused.kind is not ErrorKind.CONFLICT:
                    raise
                error = refused
                continue
            return replace(changed, version=done.version)
        assert error is not None
        raise error

    def _readable(self, document: Document) -> VectorIndexInfo | None:
        try:
            return self._parse(document.id, document.body, document.version)
        except LakehouseError as error:
            log.warning(
                "the document of an index cannot be read",
                extra={"index": document.id, "reason": str(error.fields.get("reason", error))},
            )
            return None

    def _parse(self, key: str, body: str, version: int) -> VectorIndexInfo:
        kept = self._parsed.get(key)
        if kept is not None and kept.version == version:
            return kept
        info = replace(from_json(VectorIndexInfo, body), version=version)
        self._parsed[key] = info
        return info

    async def _no_such_index(self, ctx: Context, name: str) -> LakehouseError:
        infos, _ = await self.list(ctx)
        names = {name_key(info.name): info.name for info in infos}
        hint = "list the indexes to see their names"
        return no_such_name("there is no index of this name", "index", name, names, hint)


def document_id(name: str) -> str:
    """Names are compared without case: one document for all spellings."""
    # What no name can be is looked up all the same, and is not there.
    return name_key(name)[:255] or "-"


def put_index(
    info: VectorIndexInfo,
    at: int,
    commit: CommitRequest | None = None,
    more: tuple[Change, ...] = (),
) -> CommitRequest:
    """The commit that writes ``info`` over the document of version ``at`` (0: there is none)."""
    key = document_id(info.name)
    body = to_json(replace(info, version=0, behind=False))
    changes = (PutDocument(INDEX_DOCUMENTS, key, body), *more)
    needs: tuple[Requirement, ...] = (DocumentAt(INDEX_DOCUMENTS, key, at),)
    return replace(commit or CommitRequest(()), changes=changes, requirements=needs)


def version_of(info: VectorIndexInfo, number: int) -> IndexVersion:
    """Version ``number`` of an index; 0 is the live one, or the newest while none is live. Raises
    ``not_found``."""
    wanted = number or info.live or max((each.number for each in info.versions), default=0)
    for each in info.versions:
        if each.number == wanted:
            return each
    raise LakehouseError(
        ErrorKind.NOT_FOUND,
        "the index has no such version",
        index=info.name,
        number=wanted,
        numbers=[each.number for each in info.versions],
        hint="see the index for the versions that it has",
    )


def live_version(info: VectorIndexInfo) -> IndexVersion | None:
    """The version that answers; None while there is none."""
    return next((each for each in info.versions if each.number == info.live), None)


def with_version(info: VectorIndexInfo, version: IndexVersion) -> VectorIndexInfo:
    """``info`` with ``version`` in the place of the one of its number, or behind the others."""
    versions = tuple(version if each.number == version.number else each for each in info.versions)
    if version not in versions:
        versions = (*versions, version)
    return replace(info, versions=versions)
