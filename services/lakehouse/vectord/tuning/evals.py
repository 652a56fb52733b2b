"""Eval sets: what is asked of an index, and what should be found. Documents of the catalog.

A document is at most 1 MiB, so queries are in documents of their own, as many as it takes; all of
a set are one commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import orjson

from lakehouse.contracts import trials as c
from lakehouse.contracts.catalog import CommitRequest, Document, DocumentsRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.kit.clock import to_datetime
from lakehouse.model.changes import Change, DeleteDocument, DocumentAt, PutDocument
from lakehouse.model.identity import Context
from lakehouse.model.refs import name_key
from lakehouse.vectord.codec import from_json, to_json
from lakehouse.vectord.naming import no_such_name
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.repeating import answered, asked, recall

__all__ = ["EvalSets"]

EVAL_DOCUMENTS: Final = "eval_set"
QUERY_DOCUMENTS: Final = "eval_queries"
_PART_BYTES: Final = 512 * 1024
_BYTES_MAX: Final = 6 << 20
_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True)
class Head:
    """The document of a set. ``parts``: how many documents its queries are in; ``queries`` and
    ``relevant``: how many there are."""

    name: str
    index: str
    created_at: datetime
    queries: int
    relevant: int
    parts: int
    description: str = ""


@dataclass(frozen=True, slots=True)
class Queries:
    """A document of queries."""

    queries: tuple[c.EvalQuery, ...]


class EvalSets:
    """Belongs to one event loop."""

    def __init__(self, parts: VectorParts) -> None:
        self._parts = parts
        self._catalog = parts.catalog

    async def get(self, ctx: Context, name: str) -> tuple[c.EvalSet, int]:
        """A set with its queries, and the version of the store that was read. Raises ``not_found``
        with the nearest name."""
        for _ in range(_ATTEMPTS):
            head, document, version = await self._head(ctx, name)
            queries: list[c.EvalQuery] = []
            try:
                for part in range(head.parts):
                    request = DocumentsRequest(QUERY_DOCUMENTS, _part_id(name, part))
                    found = (await self._catalog.documents(ctx, request)).documents[0]
                    if found.version != document.version:
                        break  # another was put in its place meanwhile
                    read = await run_in(self._parts.jobs, from_json, Queries, found.body)
                    queries += read.queries
                else:
                    return _set_of(head, queries, document.version), version
            except LakehouseError as error:
                if error.kind is not ErrorKind.NOT_FOUND:
                    raise
        raise LakehouseError(
            ErrorKind.UNAVAILABLE, "the eval set is put faster than it is read", name=name[:255]
        )

    async def list(self, ctx: Context) -> tuple[list[c.EvalSummary], int]:
        """All sets by name, and the version of the store that was read."""
        found = await self._catalog.documents(ctx, DocumentsRequest(EVAL_DOCUMENTS))
        heads = [(from_json(Head, each.body), each.version) for each in found.documents]
        heads.sort(key=lambda one: name_key(one[0].name))
        summaries = [
            c.EvalSummary(
                head.name,
                head.index,
                head.queries,
                head.relevant,
                head.created_at,
                head.description,
                version,
            )
            for head, version in heads
        ]
        return summaries, found.version

    async def put(
        self, ctx: Context, request: c.PutEvalRequest, queries: Sequence[c.EvalQuery]
    ) -> c.EvalResult:
        """Make a set of ``queries``, or put it in the place of one. Raises ``invalid`` where they
        are too large together."""
        name = request.name
        said = to_json(request).encode() if ctx.idempotency_key else b""
        commit = asked(ctx, "trials.put_eval", said)
        bodies = await run_in(self._parts.jobs, _bodies, queries)
        for attempt in range(_ATTEMPTS):
            done = await recall(self._catalog, ctx, commit)
            if done is not None:
                there, version = await self.get(ctx, name)
                return c.EvalResult(there, version, bool(done[1].get("created")))
            before = await self._there(ctx, name)
            head = Head(
                name,
                request.index,
                to_datetime(self._parts.clock.now_us()),
                len(queries),
                sum(len(query.relevant) for query in queries),
                len(bodies),
                request.description,
            )
            whole = _put(answered(commit, {"created": before is None}), head, bodies, before)
            try:
                result = await self._catalog.commit(ctx, whole)
            except LakehouseError as error:
                if error.kind is not ErrorKind.CONFLICT or attempt == _ATTEMPTS - 1:
                    raise
                continue
            made = _set_of(head, queries, result.version)
            return c.EvalResult(made, result.version, before is None)
        raise LakehouseError(ErrorKind.INTERNAL, "an eval set was never put")

    async def delete(self, ctx: Context, request: c.DeleteEvalRequest) -> c.DeleteEvalResult:
        commit = asked(ctx, "trials.delete_eval", request)
        for attempt in range(_ATTEMPTS):
            done = await recall(self._catalog, ctx, commit)
            if done is not None:
                return c.DeleteEvalResult(done[1]["name"], done[0])
            head, document, _ = await self._head(ctx, request.name)
            changes = [
                DeleteDocument(EVAL_DOCUMENTS, name_key(head.name)),
                *_deleted(head.name, range(head.parts)),
            ]
            answer = answered(commit, {"name": head.name})
            try:
                result = await self._catalog.commit(
                    ctx, _at(answer, head.name, document.version, changes)
                )
            except LakehouseError as error:
                raced = error.kind in (ErrorKind.CONFLICT, ErrorKind.NOT_FOUND)
                if not raced or attempt == _ATTEMPTS - 1:
                    raise
                continue
            return c.DeleteEvalResult(head.name, result.version)
        raise LakehouseError(ErrorKind.INTERNAL, "an eval set was never deleted")

    async def _there(self, ctx: Context, name: str) -> tuple[Head, int] | None:
        try:
            head, document, _ = await self._head(ctx, name)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return None
        return head, document.version

    async def _head(self, ctx: Context, name: str) -> tuple[Head, Document, int]:
        try:
            request = DocumentsRequest(EVAL_DOCUMENTS, name_key(name)[:255] or "-")
            found = await self._catalog.documents(ctx, request)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            raise await self._no_such_set(ctx, name) from error
        document = found.documents[0]
        return from_json(Head, document.body), document, found.version

    async def _no_such_set(self, ctx: Context, name: str) -> LakehouseError:
        sets, _ = await self.list(ctx)
        names = {name_key(one.name): one.name for one in sets}
        hint = "list the eval sets to see their names"
        return no_such_name("there is no eval set of this name", "eval_set", name, names, hint)


def _set_of(head: Head, queries: Sequence[c.EvalQuery], version: int) -> c.EvalSet:
    asked = tuple(queries)
    return c.EvalSet(head.name, head.index, asked, head.created_at, head.description, version)


def _put(
    commit: CommitRequest, head: Head, bodies: Sequence[str], before: tuple[Head, int] | None
) -> CommitRequest:
    """Writes a set over what was there of it: its head, and the version that it had."""
    changes: list[Change] = [PutDocument(EVAL_DOCUMENTS, name_key(head.name), to_json(head))]
    changes += [
        PutDocument(QUERY_DOCUMENTS, _part_id(head.name, part), body)
        for part, body in enumerate(bodies)
    ]
    was, at = (0, 0) if before is None else (before[0].parts, before[1])
    changes += _deleted(head.name, range(len(bodies), was))
    return _at(commit, head.name, at, changes)


def _part_id(name: str, part: int) -> str:
    return f"{name_key(name)}#{part}"


def _deleted(name: str, parts: range) -> list[Change]:
    return [DeleteDocument(QUERY_DOCUMENTS, _part_id(name, part)) for part in parts]


def _at(commit: CommitRequest, name: str, at: int, changes: Sequence[Change]) -> CommitRequest:
    needs = (DocumentAt(EVAL_DOCUMENTS, name_key(name), at),)
    return replace(commit, changes=tuple(changes), requirements=needs)


def _bodies(queries: Sequence[c.EvalQuery]) -> list[str]:
    """The documents of queries. Raises ``invalid``."""
    bodies: list[str] = []
    part: list[str] = []
    size = total = 0
    for query in queries:
        text = to_json(query)
        length = len(text.encode())
        if size + length > _PART_BYTES and part:
            bodies.append(_body(part))
            part, size = [], 0
        part.append(text)
        size, total = size + length, total + length
        if total > _BYTES_MAX or length > _PART_BYTES:
            raise LakehouseError(
                ErrorKind.INVALID,
                "the queries of an eval set are too large together",
                size_bytes=total,
                maximum=_BYTES_MAX,
                maximum_of_a_query=_PART_BYTES,
                hint="give fewer or shorter queries; texts take less room than vectors",
            )
    return [*bodies, _body(part)]


def _body(queries: Sequence[str]) -> str:
    return orjson.dumps({"queries": [orjson.Fragment(one) for one in queries]}).decode()
