"""Checking what the catalog names against what the buckets hold."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

import orjson

from lakehouse.catalogd.codec import decode, encode
from lakehouse.catalogd.core import Core, Planned
from lakehouse.catalogd.importing import check_plan
from lakehouse.catalogd.state import CatalogState, DatasetState
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.model.changes import Change, QuarantineDataset
from lakehouse.model.dataset import DataFile, DatasetStatus
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import PRIMARY
from lakehouse.model.vectors import VECTORS_FOLDER
from lakehouse.objectstore.port import ObjectStore, StreamingReads

__all__ = ["OBJECT_FOLDERS", "UNREACHED", "Fsck", "unreferenced"]

UNREACHED: Final = frozenset(
    {ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT, ErrorKind.FORBIDDEN, ErrorKind.NOT_FOUND}
)
"""Of a request that speaks of the bucket and not of an object: nobody there, or not for us."""
OBJECT_FOLDERS: Final = ("datasets/", VECTORS_FOLDER)
"""Below them a session writes, each in a folder of its own."""
_MARK = "fsck: "
_PAGE = 1000


@dataclass(slots=True)
class _Survey:
    """What was found; ``damaged``: dataset id -> why; ``unseen``: ids of datasets with files in a
    bucket of ``unreachable``, of which nothing is known."""

    findings: list[c.FsckFinding] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    unseen: set[str] = field(default_factory=set)
    unreachable: dict[str, str] = field(default_factory=dict)
    objects: int = 0
    bytes: int = 0


def unreferenced(state: CatalogState, key: str) -> bool:
    """True for an object of a session that does not live, which no retained version names, nor a
    document, and which the chain has not given up yet."""
    parts = key.split("/")
    ours = len(parts) == 4 if parts[0] == "datasets" else key.startswith(VECTORS_FOLDER)
    if not ours or len(parts) < 4 or parts[1] in state.objects.sessions:
        return False
    if key in state.objects.condemned or key in state.orphaned:
        return False
    return not state.names_object(key)


async def listed(store: ObjectStore, prefix: str) -> AsyncIterator[tuple[str, int]]:
    """(key, bytes) of everything below ``prefix``, page by page."""
    after = ""
    while True:
        page = await store.list(prefix, start_after=after, limit=_PAGE)
        for meta in page:
            yield meta.key, meta.size_bytes
        if len(page) < _PAGE:
            return
        after = page[-1].key


async def _sha256(store: ObjectStore, key: str) -> str:
    digest = hashlib.sha256()
    if isinstance(store, StreamingReads):
        async for chunk in store.stream(key):
            await run_blocking(digest.update, chunk)
    else:
        digest.update(await store.get(key))
    return digest.hexdigest()


class Fsck:
    """``CatalogService.fsck``."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def fsck(self, ctx: Context, request: c.FsckRequest) -> c.FsckReport:
        """Existence and size of every object that is named now (``deep``: its checksum), manifests
        that cannot be read, and objects that nothing names. A bucket that does not answer is told
        as such, and the rest goes on (the primary one is an error): damage is only what was seen.
        Of search structures only orphans are told: one that is missing is made anew.
        """
        state = await self._core.read(ctx, Scope.OPERATOR)
        known = None if request.dry_run else await self._core.recall(ctx, "fsck", request)
        if known is not None:
            return replace(decode(c.FsckReport, known.answer), version=known.seq)
        survey = _Survey()
        for broken in state.broken.values():
            survey.findings.append(c.FsckFinding("manifest", broken.name, "", broken.reason))
        await self._look_round(state, survey)
        await self._check_files(state, survey, deep=request.deep)
        await self._find_orphans(survey)
        for bucket, why in survey.unreachable.items():
            survey.findings.append(c.FsckFinding("unreachable", "", bucket, why))
        survey.findings.sort(key=lambda each: (each.dataset, each.kind, each.key))
        changes = _quarantines(state, survey, deep=request.deep)
        plan = _digest(survey.findings, changes)
        if not request.dry_run:
            check_plan(request.plan, plan)
        hidden = [each.dataset_id for each in changes if each.reason]
        report = c.FsckReport(
            plan=plan,
            applied=False,
            findings=tuple(survey.findings),
            objects_checked=survey.objects,
            bytes_checked=survey.bytes,
            quarantined=tuple(sorted(state.datasets[each].now.head.name for each in hidden)),
            version=state.version,
        )
        if not changes or request.dry_run:
            return report

        def decide(head: CatalogState) -> Planned:
            wanted = [each for each in changes if each.dataset_id in head.datasets]
            return wanted, encode(replace(report, applied=bool(wanted)))

        done = await self._core.commit(ctx, "fsck", request, decide)
        return replace(decode(c.FsckReport, done.answer), version=done.seq)

    async def _look_round(self, state: CatalogState, survey: _Survey) -> None:
        """Ask every bucket once: in one that is gone every object looks as if it alone were."""

        async def ask(bucket: str) -> None:
            with _Reached(survey, bucket):
                await self._core.buckets.get(bucket).list(limit=1)

        used = {*self._core.buckets.names(), *state.placed}
        await asyncio.gather(*(ask(bucket) for bucket in sorted(used)))

    async def _check_files(self, state: CatalogState, survey: _Survey, *, deep: bool) -> None:
        """An object that several datasets name is read once."""
        named: dict[tuple[str, str], list[tuple[DatasetState, DataFile]]] = {}
        for dataset in state.datasets.values():
            if dataset.live:
                for file in dataset.log.visible():
                    named.setdefault((file.bucket, file.key), []).append((dataset, file))
            await asyncio.sleep(0)
        work = iter(sorted(named.items()))

        async def worker() -> None:
            for (bucket, key), users in work:
                if bucket not in survey.unreachable:
                    with _Reached(survey, bucket):
                        await self._check_object(bucket, key, users, survey, deep=deep)
                if bucket in survey.unreachable:
                    survey.unseen.update(dataset.id for dataset, _ in users)

        await asyncio.gather(*(worker() for _ in range(self._core.settings.parallel)))

    async def _check_object(
        self,
        bucket: str,
        key: str,
        users: list[tuple[DatasetState, DataFile]],
        survey: _Survey,
        *,
        deep: bool,
    ) -> None:
        store = self._core.buckets.get(bucket)
        sha256 = ""
        try:
            size = (await store.head(key)).size_bytes
            survey.objects += 1
            if deep:
                sha256 = await _sha256(store, key)
                survey.bytes += size
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            for dataset, _ in users:
                _found(survey, dataset, "dangling", key, "named, but not there")
            return
        for dataset, file in users:
            if size != file.size_bytes:
                detail = f"has {size} bytes, the manifest says {file.size_bytes}"
                _found(survey, dataset, "size", key, detail)
            elif sha256 and sha256 != file.sha256:
                detail = f"sha256 is {sha256}, the manifest says {file.sha256}"
                _found(survey, dataset, "checksum", key, detail)

    async def _find_orphans(self, survey: _Survey) -> None:
        for bucket in self._core.buckets.names():
            if bucket in survey.unreachable:
                continue
            with _Reached(survey, bucket):
                for folder in OBJECT_FOLDERS:
                    await self._find_orphans_in(bucket, folder, survey)

    async def _find_orphans_in(self, bucket: str, folder: str, survey: _Survey) -> None:
        async for key, size in listed(self._core.buckets.get(bucket), folder):
            # The state of now, not of the start: what was committed since is no orphan.
            if unreferenced(self._core.ledger.state, key):
                detail = f"{size} bytes in {bucket}; collect gives it up"
                survey.findings.append(c.FsckFinding("orphan", "", key, detail))


class _Reached:
    """Notes a bucket that did not answer instead of ending the survey, unless it is the primary."""

    def __init__(self, survey: _Survey, bucket: str) -> None:
        self._survey = survey
        self._bucket = bucket

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, LakehouseError) or self._bucket == PRIMARY:
            return False
        if error.kind not in UNREACHED:
            return False
        self._survey.unreachable.setdefault(self._bucket, str(error)[:200])
        return True


def _found(survey: _Survey, dataset: DatasetState, kind: str, key: str, detail: str) -> None:
    name = dataset.now.head.name
    survey.findings.append(c.FsckFinding(kind, name, key, detail))
    survey.damaged.setdefault(dataset.id, f"{_MARK}{kind} {key}")


def _quarantines(state: CatalogState, survey: _Survey, *, deep: bool) -> list[QuarantineDataset]:
    """Damaged datasets are hidden; one that an earlier run hid and that is whole again is shown.
    What a checksum hid, only checksums bring back."""
    changes = [
        QuarantineDataset(dataset_id, reason)
        for dataset_id, reason in sorted(survey.damaged.items())
        if state.datasets[dataset_id].now.head.status is DatasetStatus.LIVE
    ]
    for dataset in state.datasets.values():
        head = dataset.now.head
        ours = head.status is DatasetStatus.QUARANTINED and head.reason.startswith(_MARK)
        seen = deep or not head.reason.startswith(f"{_MARK}checksum")
        known = dataset.id not in survey.damaged and dataset.id not in survey.unseen
        if ours and seen and known:
            changes.append(QuarantineDataset(dataset.id, ""))
    return changes


def _digest(findings: Iterable[c.FsckFinding], changes: Iterable[Change]) -> str:
    lines = [[each.kind, each.dataset, each.key, each.detail] for each in findings]
    return hashlib.sha256(orjson.dumps([lines, [repr(each) for each in changes]])).hexdigest()
