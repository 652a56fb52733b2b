"""Registration of objects under a name, idempotent and gated by the fingerprint (ADR-020)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lakehouse.catalogd.cards import check_complete, detected_card, merged_card
from lakehouse.catalogd.core import Core, Planned
from lakehouse.catalogd.inspect import Inspected, Inspector, copy_object
from lakehouse.catalogd.lifecycle import check_expected, without_foreign_stats
from lakehouse.catalogd.rules import check_columns
from lakehouse.catalogd.sessions import Sessions
from lakehouse.catalogd.state import CatalogState, DatasetState
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.model.changes import AddFiles, Change, CreateDataset, SetCard, SetPrimaryKey
from lakehouse.model.dataset import Card, DataFile, stats_key
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import PRIMARY, ObjectRef, check_foreign_key, check_name, name_key
from lakehouse.model.residency import check_may_keep
from lakehouse.model.schema import Column, Schema
from lakehouse.table.diff import diff_field, schema_diff
from lakehouse.table.fingerprint import fingerprint
from lakehouse.table.stats import file_stats
from lakehouse.table.statsfile import encode_stats
from lakehouse.table.types import schema_from_arrow

__all__ = ["Registering", "data_file"]

_OBJECTS_MAX = 10_000


def drift(name: str, old: Sequence[Column], new: Sequence[Column]) -> LakehouseError:
    """ADR-020's refusal: another fingerprint under the same name, with the diff by column."""
    return LakehouseError(
        ErrorKind.CONFLICT,
        "the dataset has another schema",
        name=name,
        fingerprint=fingerprint(old),
        offered=fingerprint(new),
        diff=diff_field(schema_diff(old, new)),
        hint="register it under another name, or drop the dataset first",
    )


def data_file(found: Inspected, schema: Schema) -> DataFile:
    """The catalog's line for a foreign object."""
    return DataFile(
        key=found.ref.key,
        size_bytes=found.size_bytes,
        rows=found.footer.num_rows,
        sha256=found.sha256,
        bucket=found.ref.bucket,
        schema_id=schema.id,
        external=True,
        stats=file_stats(found.footer, schema),
    )


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy of ours, and the hash of the statistics beside it."""

    ref: ObjectRef
    stats_sha256: str = ""


@dataclass(frozen=True, slots=True)
class _Offer:
    """A checked request: what would be created if the name is free."""

    request: c.RegisterRequest
    name: str
    columns: tuple[Column, ...]
    fingerprint: str
    found: tuple[Inspected, ...]
    card: Card
    dataset_id: str
    home: str
    copies: dict[ObjectRef, _Copy]

    def files(self, schema: Schema) -> tuple[DataFile, ...]:
        return tuple(self._file(found, schema) for found in self.found)

    def _file(self, found: Inspected, schema: Schema) -> DataFile:
        file = data_file(found, schema)
        copy = self.copies.get(found.ref)
        if copy is None:
            return file
        return replace(
            file,
            key=copy.ref.key,
            bucket=copy.ref.bucket,
            external=False,
            stats_sha256=copy.stats_sha256,
        )


class Registering:
    """``CatalogService.register``."""

    def __init__(self, core: Core, sessions: Sessions) -> None:
        self._core = core
        self._sessions = sessions
        settings = core.settings
        self._inspector = Inspector(
            core.buckets, settings.object_bytes_max, settings.parallel, settings.sample_rows
        )

    async def register(self, ctx: Context, request: c.RegisterRequest) -> c.DatasetResult:
        state = await self._core.read(ctx, Scope.WRITE)
        name = _checked(request)
        # A retry gets its old answer, whatever the name has come to mean and the objects since.
        known = await self._core.recall(ctx, "register", request)
        if known is not None:
            return self._core.result(known, str(known.answer["dataset_id"]))
        existing = _holder(state, name)
        _check_expected(existing, request)
        if existing is not None:
            _refuse_early(existing, request)
        else:
            check_complete(request.card)
        refs = [ObjectRef(each.bucket, each.key) for each in request.objects]
        home = _home(request, existing)
        await self._core.buckets.find(ctx, {home, *(ref.bucket for ref in refs)})
        self._check_places(state, request, home)
        found = await self._inspector.inspect(refs)
        columns = _columns(request, found, existing)
        dataset_id = self._core.ids.ulid() if existing is None else existing.id
        # Refused before a byte is copied; the commit checks again against what is then there.
        differs = existing is not None and existing.now.head.fingerprint != fingerprint(columns)
        if existing is not None and differs:
            raise drift(name, _current(existing), columns)
        schema = Schema(1, columns)
        if existing is not None:
            schema = existing.schema(existing.now.head.schema_id)
        offer = _Offer(
            request=request,
            name=name,
            columns=columns,
            fingerprint=fingerprint(columns),
            found=tuple(found),
            card=await run_blocking(detected_card, request.card, [each.sample for each in found]),
            dataset_id=dataset_id,
            home=home,
            copies=await self._copied(request, found, (home, dataset_id), schema),
        )

        def decide(head: CatalogState) -> Planned:
            return _decide(head, offer)

        done = await self._core.commit(ctx, "register", request, decide)
        return self._core.result(done, str(done.answer["dataset_id"]))

    def _check_places(self, state: CatalogState, request: c.RegisterRequest, home: str) -> None:
        """Raise ``forbidden`` before a byte is copied out of the residency of its bucket, and
        ``not_found`` for a bucket that there is not."""
        self._core.buckets.settings(home)
        target = (home, self._core.residency(state, home))
        for bucket in {each.bucket for each in request.objects if each.copy}:
            check_may_keep((bucket, self._core.residency(state, bucket)), target)

    async def _copied(
        self,
        request: c.RegisterRequest,
        found: Sequence[Inspected],
        place: tuple[str, str],
        schema: Schema,
    ) -> dict[ObjectRef, _Copy]:
        """Copies of the objects that ask for it in the home of the dataset, ``place`` with its id;
        by old ref."""
        pairs = zip(request.objects, found, strict=True)
        wanted = [each for asked, each in pairs if asked.copy]
        if not wanted:
            return {}
        session = await self._sessions.own()
        slots = asyncio.Semaphore(self._core.settings.parallel)
        home, dataset_id = place
        target = self._core.buckets.get(home)

        async def one(source: Inspected) -> _Copy:
            key = f"datasets/{session}/{dataset_id}/{self._core.ids.ulid()}.parquet"
            async with slots:
                store = self._core.buckets.get(source.ref.bucket)
                await copy_object(store, source, target, key)
                if home == PRIMARY:
                    return _Copy(ObjectRef(home, key))
                data = encode_stats(file_stats(source.footer, schema))
                await target.put(stats_key(key), data)
            return _Copy(ObjectRef(home, key), hashlib.sha256(data).hexdigest())

        copies = await asyncio.gather(*(one(each) for each in wanted))
        return {each.ref: copy for each, copy in zip(wanted, copies, strict=True)}


def _home(request: c.RegisterRequest, existing: DatasetState | None) -> str:
    """The home of the dataset. Raises ``conflict`` if it has another than the one asked for."""
    if existing is None:
        return request.bucket or request.objects[0].bucket
    if request.bucket and request.bucket != existing.bucket:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the dataset has another home",
            name=existing.now.head.name,
            bucket=request.bucket,
            home=existing.bucket,
            hint="leave the bucket out, or register it under another name: rows do not move",
        )
    return existing.bucket


def _checked(request: c.RegisterRequest) -> str:
    """The display name of a request that is sound in itself."""
    name = check_name(request.name)
    if not 1 <= len(request.objects) <= _OBJECTS_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            "a registration names 1 to 10,000 objects",
            objects=len(request.objects),
        )
    refs = {(each.bucket, check_foreign_key(each.key)) for each in request.objects}
    if len(refs) != len(request.objects):
        raise LakehouseError(ErrorKind.INVALID, "an object is named twice", name=name)
    if request.columns:
        computed = check_columns(request.columns)
        if request.fingerprint and request.fingerprint != computed:
            raise LakehouseError(
                ErrorKind.INVALID,
                "the fingerprint is not that of the columns",
                fingerprint=request.fingerprint,
                computed=computed,
            )
    return name


def _holder(state: CatalogState, name: str) -> DatasetState | None:
    return state.datasets.get(state.names.holder(name_key(name)))


def _check_expected(existing: DatasetState | None, request: c.RegisterRequest) -> None:
    """Raise ``conflict`` if the request was made for another state of the name."""
    expected = request.expected_version
    if existing is not None:
        check_expected(existing, expected)
    elif expected:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the dataset is gone",
            name=request.name,
            expected_version=expected,
            hint="read it again and decide anew",
        )


def _current(dataset: DatasetState) -> tuple[Column, ...]:
    return dataset.schema(dataset.now.head.schema_id).columns


def _refuse_early(existing: DatasetState, request: c.RegisterRequest) -> None:
    """Stated columns are compared before an object is read; a fingerprint alone is not, for the
    refusal shows the difference column by column."""
    if request.columns and fingerprint(request.columns) != existing.now.head.fingerprint:
        raise drift(existing.now.head.name, _current(existing), request.columns)


def _columns(
    request: c.RegisterRequest, found: Sequence[Inspected], existing: DatasetState | None
) -> tuple[Column, ...]:
    """The schema all objects share: the stated one, or that of the first."""
    known = request.columns or (_current(existing) if existing is not None else ())
    columns = request.columns or _own(found[0], known, request.fingerprint)
    stated = check_columns(columns)
    for each in found:
        own = _own(each, columns, "")
        if fingerprint(own) != stated:
            raise LakehouseError(
                ErrorKind.INVALID,
                "an object has another schema than the registration",
                bucket=each.ref.bucket,
                key=each.ref.key,
                diff=diff_field(schema_diff(columns, own)),
            )
    if request.fingerprint and request.fingerprint != stated:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the fingerprint is not that of the objects",
            fingerprint=request.fingerprint,
            computed=stated,
        )
    return columns


def _own(each: Inspected, known: Sequence[Column], wanted: str) -> tuple[Column, ...]:
    """The columns of an object. A list of one size is a vector, but for a column that is known as
    a list, as it was before there were vectors: a dataset keeps its fingerprint."""
    columns = schema_from_arrow(each.schema).columns
    lists = schema_from_arrow(each.schema, vectors=False).columns
    if not known and wanted == fingerprint(lists):
        return lists
    kept = {(one.name, one.type) for one in known}
    return tuple(
        old if (old.name, old.type) in kept else new
        for new, old in zip(columns, lists, strict=True)
    )


def _decide(state: CatalogState, offer: _Offer) -> Planned:
    """Create the dataset, or replace the objects of the one that has the name."""
    existing = _holder(state, offer.name)
    _check_expected(existing, offer.request)
    _home(offer.request, existing)
    if existing is None:
        check_complete(offer.request.card)
        return _create(offer)
    head = existing.now.head
    if head.fingerprint != offer.fingerprint:
        raise drift(head.name, _current(existing), offer.columns)
    if offer.copies and existing.id != offer.dataset_id:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the dataset was made anew meanwhile",
            name=head.name,
            hint="repeat the request",
        )
    files = offer.files(existing.schema(head.schema_id))
    changes: list[Change] = [
        AddFiles(existing.id, files, replace=True, operation="register", source="register")
    ]
    card = merged_card(head.card, offer.card)
    if card != head.card:
        changes.append(SetCard(existing.id, card))
    if offer.request.primary_key and offer.request.primary_key != head.primary_key:
        changes.append(SetPrimaryKey(existing.id, offer.request.primary_key))
    return _stripped(changes), {"dataset_id": existing.id}


def _create(offer: _Offer) -> Planned:
    schema = Schema(1, offer.columns)
    files = offer.files(schema)
    create = CreateDataset(
        dataset_id=offer.dataset_id,
        name=offer.name,
        fingerprint=offer.fingerprint,
        schema=schema,
        card=offer.card,
        primary_key=offer.request.primary_key,
        bucket=offer.home,
    )
    add = AddFiles(offer.dataset_id, files, operation="register", source="register")
    return _stripped([create, add]), {"dataset_id": offer.dataset_id, "created": True}


def _stripped(changes: Sequence[Change]) -> list[Change]:
    return [without_foreign_stats(change) for change in changes]
