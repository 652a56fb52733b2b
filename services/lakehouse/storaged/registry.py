"""The bucket registry: those of the configuration, and those an operator added at run time.

What was added is a document of the catalog, so it is the same for every process of the store and
survives all of them. Each process follows the documents; a process that meets a name it has not
heard of looks at them at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Final

from lakehouse.contracts.catalog import (
    BucketUse,
    CatalogService,
    CommitRequest,
    Document,
    DocumentsRequest,
    UsageRequest,
)
from lakehouse.contracts.readiness import Readiness
from lakehouse.contracts.storage import (
    AddBucketRequest,
    RemoveBucketRequest,
    RemoveBucketResult,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.acting import act_as
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.model.buckets import BUCKET_DOCUMENTS
from lakehouse.model.changes import Change, DeleteDocument, DocumentAt, PutDocument, Requirement
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.model.probe import ProbeReport
from lakehouse.model.refs import PRIMARY
from lakehouse.model.residency import strangers
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.identity import read_identity
from lakehouse.objectstore.places import overlapping
from lakehouse.objectstore.port import ObjectStore
from lakehouse.objectstore.probe import probe_store, refuse_unfit
from lakehouse.storaged.admission import check_endpoint, check_request, led_to
from lakehouse.storaged.settings import RegistrySettings
from lakehouse.storaged.trespass import refuse_trespass

__all__ = ["CONFIGURATION", "OPERATOR", "Registry"]

log = logging.getLogger(__name__)

CONFIGURATION: Final = "configuration"
OPERATOR: Final = "operator"
_STORAGED: Final = Principal(id="storaged", scopes=(Scope.OPERATOR,))
_GREET_SECONDS: Final = 30.0
_ADD_ROUTE: Final = "storage add_bucket"
_REMOVE_ROUTE: Final = "storage remove_bucket"


@dataclass(frozen=True, slots=True)
class _Added:
    """A bucket of a document; ``trouble``: why it is not open here, "" if it is. Of one that is not
    ``readable`` nothing but the name is known."""

    request: AddBucketRequest
    version: int
    trouble: str = ""
    readable: bool = True


class Registry:
    """Which buckets there are, and since when; one in every process that opens buckets."""

    def __init__(
        self,
        settings: RegistrySettings,
        buckets: Buckets,
        catalog: CatalogService,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._settings = settings
        self._buckets = buckets
        self._catalog = catalog
        self._clock = clock
        self._ids = ids
        self._configured = frozenset(buckets.names())
        self._added: dict[str, _Added] = {}
        self._version = -1
        self._used: tuple[BucketUse, ...] = ()
        self._unheard = ""
        self._proofs: dict[str, ProbeReport] = {}
        # Buckets that have not answered this process yet -> why, as far as they were asked.
        self._silent = {name: "" for name in buckets.names() if name != PRIMARY}
        self._greeted_at: float | None = None
        buckets.search = self.find

    # -- what is known here

    def origin(self, name: str) -> str:
        """``configuration`` or ``operator``."""
        return CONFIGURATION if name in self._configured else OPERATOR

    def request(self, name: str) -> AddBucketRequest | None:
        """What an operator asked for; None for a bucket of the configuration."""
        known = self._added.get(name)
        return None if known is None else known.request

    def closed(self) -> Mapping[str, str]:
        """Buckets that were added and cannot be opened in this process -> why."""
        return {name: each.trouble for name, each in self._added.items() if each.trouble}

    def trouble(self, name: str) -> str:
        """What is wrong with a bucket that is not its reachability; "" for nothing."""
        known = self._added.get(name)
        if known is not None and known.trouble:
            return known.trouble
        place = self._residency(name)
        odd = strangers([use.residency for use in self._used if use.bucket == name], place)
        if odd:
            return (
                f"its residency is {place or 'none'} and datasets in it record {', '.join(odd)}:"
                " nothing more is written to it"
            )
        return ""

    def readiness(self) -> Readiness:
        """Always ready: a bucket in trouble degrades the node, and its datasets suffer alone."""
        details, degraded = {}, []
        for name in (*self._buckets.names(), *self.closed()):
            said = self.trouble(name) or self._silent.get(name, "")
            if said:
                details[f"bucket_{name}"] = said[:300]
                degraded.append(f"{name}: {said[:300]}")
        if self._unheard:
            details["bucket_registry"] = self._unheard[:300]
            degraded.append(f"the registry cannot be read: {self._unheard[:300]}")
        return Readiness(True, (), details, tuple(degraded))

    def proof(self, name: str) -> ProbeReport | None:
        """What the probe said when the bucket was added by this process."""
        return self._proofs.get(name)

    # -- following

    async def find(self, ctx: Context, names: Collection[str]) -> None:
        """Open those of ``names`` that were added elsewhere and are not open here yet. Names that
        there are not stay so: opening them says it."""
        if any(name not in self._configured and name not in self._added for name in names):
            try:
                await self.refresh(ctx)
            except LakehouseError as error:
                if error.kind not in (ErrorKind.UNAUTHENTICATED, ErrorKind.FORBIDDEN):
                    raise
                # It is this node that was refused, and not its caller.
                raise LakehouseError(
                    ErrorKind.UNAVAILABLE,
                    "this node may not ask the catalog which buckets there are",
                    reason=str(error),
                    hint="node.secret_ref must lead to a token with the scope operator",
                ) from error
        for name in names:
            known = self._added.get(name)
            if known is not None:
                self._try_again(name, known)

    async def refresh(self, ctx: Context | None = None) -> None:
        """Take up and give up what the catalog's documents say. Raises what the catalog raises.

        Asked for whoever needs a bucket, and by this role itself: where buckets are and what opens
        them is told to operators only.
        """
        if ctx is None:
            ctx = Context(_STORAGED, self._ids.ulid(), source="registry")
        elif not ctx.principal.allows(Scope.OPERATOR):
            ctx = replace(ctx, principal=_STORAGED, credential=None)
        found = await self._catalog.documents(ctx, DocumentsRequest(BUCKET_DOCUMENTS))
        if found.version < self._version:
            return  # older than what this process did or saw since
        moved, self._version = found.version > self._version, found.version
        self._apply(found.documents)
        if moved:
            self._used = (await self._catalog.usage(ctx, UsageRequest())).buckets

    async def follow(self) -> None:
        """Look again and again; for a supervisor. A catalog that does not answer is waited for."""
        while True:
            await self._clock.sleep(self._settings.follow_seconds)
            try:
                await self.refresh()
                self._unheard = ""
            except LakehouseError as error:
                said = f"the catalog does not tell which buckets there are: {error}"
                if not self._unheard:
                    log.warning(
                        "the bucket registry cannot be followed", extra={"reason": str(error)}
                    )
                self._unheard = said

    async def greet(self) -> None:
        """Ask those that have not answered yet, now and then; for a supervisor. What is wrong with
        one from the start is seen before somebody needs it; one that answered has its health."""
        while True:
            with act_as(_STORAGED.id):
                await self._greet()
            await self._clock.sleep(self._settings.follow_seconds)

    async def _greet(self) -> None:
        now = self._clock.monotonic()
        fresh = any(not said for said in self._silent.values())
        late = self._greeted_at is None or now - self._greeted_at >= _GREET_SECONDS
        if self._silent and (fresh or late):
            self._greeted_at = now
            names = [name for name, said in self._silent.items() if late or not said]
            await asyncio.gather(*(self._ask(name) for name in names))

    async def _ask(self, name: str) -> None:
        try:
            # One attempt, and no bound but the store's own: who gives up would be in the journal.
            await self._buckets.raw(name).list(limit=1)
        except LakehouseError as error:
            self._silent[name] = f"it has not answered yet: {error}"
        else:
            self._silent.pop(name, None)

    def _apply(self, documents: Sequence[Document]) -> None:
        names = {document.id for document in documents}
        for name in [name for name in self._added if name not in names]:
            self._give_up(name)
        for document in documents:
            name, known = document.id, self._added.get(document.id)
            if name in self._configured:
                continue  # what this machine's configuration says of the name stands
            if known is not None and known.version == document.version:
                self._try_again(name, known)
                continue
            if known is not None:
                self._give_up(name)
            try:
                self._open(name, _Added(_decoded(document), document.version))
            except LakehouseError as error:
                bare = AddBucketRequest(name, "")
                self._added[name] = _Added(bare, document.version, str(error), readable=False)

    def _try_again(self, name: str, known: _Added) -> None:
        if known.trouble and known.readable:
            self._open(name, known)

    def _open(self, name: str, added: _Added) -> None:
        try:
            self._buckets.add(_settled(added.request))
            trouble = ""
            if name not in self._proofs:
                self._silent.setdefault(name, "")
        except LakehouseError as error:
            trouble = f"it cannot be opened here: {error}"
            if not added.trouble:
                log.warning(
                    "a bucket cannot be opened", extra={"bucket": name, "reason": str(error)}
                )
        self._added[name] = replace(added, trouble=trouble)

    def _give_up(self, name: str) -> None:
        self._silent.pop(name, None)
        self._proofs.pop(name, None)
        if not self._added.pop(name).trouble:
            self._buckets.remove(name)

    # -- adding and removing

    async def add_bucket(self, ctx: Context, request: AddBucketRequest) -> None:
        """Probe, keep and take up a bucket; raises as ``StorageService.add_bucket``."""
        check_request(request, self._settings)
        keyed = _keyed(_ADD_ROUTE, request)
        if ctx.idempotency_key and (await self._catalog.commit(ctx, keyed)).replayed:
            await self.refresh(ctx)
            return
        if await self._is_there(ctx, request):
            return
        others = self._all_settings()
        other = overlapping(request, others)
        if not other:
            await check_endpoint(request)
            other = await led_to(request, others)
        if other:
            raise LakehouseError(
                ErrorKind.INVALID,
                "the bucket's place is, or is within, that of another bucket, or holds it",
                bucket=request.name,
                other=other,
                hint="give each bucket a prefix of its own",
            )
        settings = _settled(request)
        await self._prove(settings)
        put = PutDocument(BUCKET_DOCUMENTS, request.name, _encoded(request))
        absent = DocumentAt(BUCKET_DOCUMENTS, request.name, 0)
        try:
            await self._commit(ctx, keyed, put, absent)
        except LakehouseError as error:
            # Somebody was quicker: the same bucket is as good, another has the name.
            if error.kind is not ErrorKind.CONFLICT or not await self._is_there(ctx, request):
                raise
        await self.refresh(ctx)

    async def remove_bucket(self, ctx: Context, request: RemoveBucketRequest) -> RemoveBucketResult:
        """Give a bucket up; raises as ``StorageService.remove_bucket``."""
        name = request.name
        keyed = _keyed(_REMOVE_ROUTE, request)
        if ctx.idempotency_key and (await self._catalog.commit(ctx, keyed)).replayed:
            await self.refresh(ctx)
            return RemoveBucketResult(name, removed=True)
        if name in self._configured:
            raise LakehouseError(
                ErrorKind.FORBIDDEN,
                "the bucket is in the configuration",
                bucket=name[:80],
                hint="take it out of lakehouse.toml and start the node again",
            )
        await self.refresh(ctx)
        known = self._added.get(name)
        if known is None:
            self._buckets.settings(name)
            raise LakehouseError(ErrorKind.NOT_FOUND, "no bucket has this name", bucket=name[:80])
        delete = DeleteDocument(BUCKET_DOCUMENTS, name)
        await self._commit(ctx, keyed, delete, DocumentAt(BUCKET_DOCUMENTS, name, known.version))
        await self.refresh(ctx)
        return RemoveBucketResult(name, removed=True)

    async def _commit(
        self, ctx: Context, keyed: CommitRequest, change: Change, need: Requirement
    ) -> None:
        done = await self._catalog.commit(
            ctx, replace(keyed, changes=(change,), requirements=(need,))
        )
        self._version = max(self._version, done.version - 1)

    async def _is_there(self, ctx: Context, request: AddBucketRequest) -> bool:
        """Whether this very bucket is there. Raises ``already_exists`` if another has the name."""
        await self.refresh(ctx)
        name, known = request.name, self._added.get(request.name)
        if name in self._configured:
            same = _alike(request, self._buckets.settings(name))
        elif known is None:
            return False
        else:
            same = known.request == request
        if not same:
            raise LakehouseError(
                ErrorKind.ALREADY_EXISTS,
                "there is a bucket of this name with other settings",
                bucket=name,
                origin=self.origin(name),
                hint="choose another name, or remove that one first",
            )
        return True

    async def _prove(self, settings: BucketSettings) -> None:
        """Raise unless the bucket can be asked, keeps its promises and is no other store's."""
        trial = self._buckets.trial(settings)
        try:
            store = trial.raw(settings.name)
            report = await probe_store(store, settings.name, self._clock, self._ids)
            refuse_unfit(report)
            await _refuse_primary(store, settings.name)
            await refuse_trespass(self._buckets, settings, store, self._ids)
            self._proofs[settings.name] = report
        finally:
            await trial.close()

    def _all_settings(self) -> list[BucketSettings]:
        return [self._buckets.settings(name) for name in self._buckets.names()]

    def _residency(self, name: str) -> str:
        return self._buckets.settings(name).residency if name in self._buckets.names() else ""


async def _refuse_primary(store: ObjectStore, name: str) -> None:
    try:
        identity = await read_identity(store)
    except LakehouseError as error:
        if error.kind is ErrorKind.NOT_FOUND:
            return
        raise
    raise LakehouseError(
        ErrorKind.CONFLICT,
        "the place is the primary bucket of a store",
        bucket=name,
        store_id=identity.store_id,
        hint="use a prefix of its own for this bucket",
    )


def _settled(request: AddBucketRequest) -> BucketSettings:
    return BucketSettings(
        name=request.name,
        url=request.url,
        endpoint=request.endpoint,
        region=request.region,
        bucket_class=request.bucket_class,
        residency=request.residency,
        secret_ref=request.secret_ref,
    )


def _alike(request: AddBucketRequest, settings: BucketSettings) -> bool:
    mine = (request.url, request.endpoint, request.region, request.bucket_class, request.residency)
    return mine == (
        settings.url,
        settings.endpoint,
        settings.region,
        settings.bucket_class,
        settings.residency,
    )


def _encoded(request: AddBucketRequest) -> str:
    return json.dumps(asdict(request), sort_keys=True)


def _decoded(document: Document) -> AddBucketRequest:
    """The request of a document; fields that a newer version added are passed over. Raises
    ``corrupt`` for a body that no version writes."""
    try:
        body = json.loads(document.body)
        given = {
            field.name: body[field.name]
            for field in fields(AddBucketRequest)
            if body.get(field.name)
        }
        if not all(isinstance(value, str) for value in given.values()):
            raise TypeError("a bucket's document has texts only")
        return AddBucketRequest(**{**given, "name": document.id, "url": body["url"]})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LakehouseError(
            ErrorKind.CORRUPT, "the bucket's document cannot be read", bucket=document.id
        ) from error


def _keyed(route: str, request: AddBucketRequest | RemoveBucketRequest) -> CommitRequest:
    """A commit that is known again by what was asked, and asks nothing yet."""
    text = json.dumps(asdict(request), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return CommitRequest((), request_sha256=digest, route=route)
