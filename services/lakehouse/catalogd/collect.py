"""Collection: giving up what no readable version names, and deleting it later.

First a commit condemns, then, after reader retention, objects go; so even a collector that was
asleep for a week deletes only what the chain has given up. Never by age alone, never by listing a
whole bucket: only the folders of sessions that ended are listed. What a tag keeps (``tagging``) is
named by a version that can be read, whatever the horizon.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson
from immutables import Map

from lakehouse.catalogd.codec import decode, encode
from lakehouse.catalogd.core import Core, Planned
from lakehouse.catalogd.dead import dead
from lakehouse.catalogd.draft import Draft
from lakehouse.catalogd.fsck import OBJECT_FOLDERS, UNREACHED, listed, unreferenced
from lakehouse.catalogd.importing import check_plan
from lakehouse.catalogd.internal import Forget, GiveUp, StoredChange
from lakehouse.catalogd.state import CatalogState
from lakehouse.catalogd.tagging import kept_at
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_micros
from lakehouse.model.buckets import BUCKET_DOCUMENTS
from lakehouse.model.changes import PurgeDataset
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import PRIMARY

__all__ = ["CollectPlan", "Collecting", "plan_collect"]

log = logging.getLogger(__name__)

_KEYS_MAX = 50_000
_DELETES_A_CALL = 500
_AHEAD_US = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Swept:
    """Unreferenced objects found in folders of ended sessions, and the sessions fully listed, with
    the version at which each ended: one to be swept once more has another."""

    objects: Mapping[tuple[str, str], int] = field(default_factory=dict)
    sessions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CollectPlan:
    """``name`` is the horizon and a digest: a plan is made again for the same horizon."""

    name: str
    horizon: int
    changes: tuple[StoredChange, ...]
    keys: tuple[str, ...]
    size_bytes: int


def _refuse_broken(state: CatalogState) -> None:
    """What a manifest that cannot be read names is not known: while there is one, nothing goes."""
    if state.broken:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "a manifest cannot be read, so what it names is not known: nothing is collected",
            datasets=[*sorted(each.name for each in state.broken.values())[:10]],
            count=len(state.broken),
            hint="start the version that wrote it, restore it from a backup, or purge the dataset",
        )


def _session_lives(state: CatalogState, key: str) -> bool:
    return key.split("/")[1] in state.objects.sessions


def plan_collect(
    state: CatalogState, horizon: int, purge_before_us: int, swept: Swept
) -> CollectPlan:
    """What would be given up now. Pure.

    Args:
        horizon: the new one; versions below it will not be readable.
        purge_before_us: datasets dropped before are purged, unless a tag keeps them.
    """
    purges = [
        PurgeDataset(dataset_id)
        for _, dataset_id in state.names.dropped.after(("", ""))
        if to_micros(state.datasets[dataset_id].now.entry.at) < purge_before_us
        and kept_at(state, dataset_id) is None
    ]
    draft = Draft(state, state.version + 1, state.ts_us)
    for purge in purges:
        draft.apply(purge)
    after = draft.state
    objects = dead(after, horizon)
    objects.update({(bucket, key): 0 for key, bucket in after.orphaned.items()})
    objects.update(
        {ref: size for ref, size in swept.objects.items() if unreferenced(after, ref[1])}
    )
    given = sorted(ref for ref in objects if not _session_lives(after, ref[1]))[:_KEYS_MAX]
    changes: list[StoredChange] = list(purges)
    if given or horizon > state.objects.horizon:
        keys, buckets = tuple(key for _, key in given), tuple(bucket for bucket, _ in given)
        changes.append(GiveUp(horizon, keys, buckets))
    facts = [[each.dataset_id for each in purges], [list(ref) for ref in given]]
    digest = hashlib.sha256(orjson.dumps([horizon, facts])).hexdigest()
    return CollectPlan(
        name=f"{horizon}-{digest}",
        horizon=horizon,
        changes=tuple(changes),
        keys=tuple(key for _, key in given),
        size_bytes=sum(objects[ref] for ref in given),
    )


class Collecting:
    """``CatalogService.collect``."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def collect(self, ctx: Context, request: c.PlanRequest) -> c.CollectReport:
        """Give up, delete what was given up long enough ago, and pack old records."""
        state = await self._core.read(ctx, Scope.OPERATOR)
        _refuse_broken(state)
        known = None if request.dry_run else await self._core.recall(ctx, "collect", request)
        if known is not None:
            return replace(decode(c.CollectReport, known.answer), version=known.seq)
        now_us, settings = self._core.clock.now_us(), self._core.settings
        purge_before_us = now_us - int(settings.undrop_seconds * 1e6)
        horizon = self._horizon(state, request, now_us)
        swept = await self._sweep(state)
        plan = plan_collect(state, horizon, purge_before_us, swept)
        check_plan(request.plan, plan.name)
        if request.dry_run:
            return _report(plan, state.version)
        if plan.changes and not request.plan:
            self._refuse_leap(state, now_us)
        # First, so that the commit can keep the whole answer.
        packed = await self._pack()
        report = replace(_report(plan, state.version), applied=True, records_packed=packed)

        def decide(head: CatalogState) -> Planned:
            _refuse_broken(head)
            again = plan_collect(head, horizon, purge_before_us, swept)
            check_plan(request.plan, again.name)
            told = replace(_report(again, 0), applied=True, records_packed=packed)
            return again.changes, encode(told)

        if plan.changes:
            done = await self._core.commit(ctx, "collect", request, decide, "condemn")
            report = replace(decode(c.CollectReport, done.answer), version=done.seq)
        return replace(report, unreachable=await self._delete(ctx, now_us, swept))

    def _refuse_leap(self, state: CatalogState, now_us: int) -> None:
        """A clock that leapt must not make yesterday's drop a month old: what is given up by time
        is given up only up to a day past the newest commit and the idle time seen since."""
        ahead_us = now_us - state.ts_us - self._core.idle_us
        if ahead_us > _AHEAD_US:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "the clock is more than a day past the newest commit, so nothing is given up by it",
                days_ahead=round(ahead_us / 86_400e6, 1),
                hint="set the clock right; if it is, dry-run collect and apply its plan by name",
            )

    def _horizon(self, state: CatalogState, request: c.PlanRequest, now_us: int) -> int:
        """The newest version that is older than time travel reaches; that of the plan if it is no
        newer."""
        limit_us = now_us - int(self._core.settings.history_seconds * 1e6)
        newest = max(state.objects.horizon, state.times.bisect(limit_us, lambda ts: ts) - 1)
        planned, _, _ = request.plan.partition("-")
        if planned.isdecimal() and state.objects.horizon <= int(planned) <= newest:
            return int(planned)
        return max(newest, 0)

    async def _sweep(self, state: CatalogState) -> Swept:
        """Look into the folders of sessions that ended. A bucket that does not answer, or that was
        added and is not open here, is left for the next time, and with it the session."""
        added = state.documents.get(BUCKET_DOCUMENTS, Map())
        buckets = dict.fromkeys((*self._core.buckets.names(), *sorted(added)))
        objects: dict[tuple[str, str], int] = {}
        sessions: dict[str, int] = {}
        for session_id, seq in sorted(state.ended.items()):
            whole = True
            for bucket in buckets:
                try:
                    store = self._core.buckets.get(bucket)
                    for folder in OBJECT_FOLDERS:
                        async for key, size in listed(store, f"{folder}{session_id}/"):
                            if unreferenced(state, key):
                                objects[(bucket, key)] = size
                except LakehouseError as error:
                    if bucket == PRIMARY or error.kind not in UNREACHED:
                        raise
                    whole = False
            if whole:
                sessions[session_id] = seq
        return Swept(objects, sessions)

    async def _delete(self, ctx: Context, now_us: int, swept: Swept) -> tuple[str, ...]:
        """Delete what was condemned longer ago than a reader may take, then forget it. In buckets
        that do not answer, which are returned, it is due again the next time."""
        state = self._core.ledger.state
        retention_us = int(self._core.settings.ledger.reader_retention_seconds * 1e6)
        due: dict[str, list[str]] = {}
        for key, seq in state.objects.condemned.items():
            if _time_of(state, seq) + retention_us <= now_us:
                due.setdefault(state.elsewhere.get(key, PRIMARY), []).append(key)
        gone: list[str] = []
        unreachable: list[str] = []
        for bucket, keys in sorted(due.items()):
            try:
                store = self._core.buckets.get(bucket)
                for start in range(0, len(keys), _DELETES_A_CALL):
                    part = keys[start : start + _DELETES_A_CALL]
                    await store.delete(part)
                    gone.extend(part)
            except LakehouseError as error:
                if bucket == PRIMARY or error.kind not in UNREACHED:
                    raise
                log.warning(
                    "what is given up in a bucket could not be deleted",
                    extra={"bucket": bucket, "objects": len(keys), "reason": str(error)},
                )
                unreachable.append(bucket)
        left = set(state.objects.condemned) - set(gone)
        done = _finished(state, swept, left, now_us - retention_us)
        if gone or done:

            def decide(head: CatalogState) -> Planned:
                sessions = tuple(each for each in done if _as_swept(head, swept, each))
                return [Forget(tuple(gone), sessions)], {}

            await self._core.commit(self._plain(ctx), "collect", None, decide)
        return tuple(unreachable)

    @staticmethod
    def _plain(ctx: Context) -> Context:
        return Context(ctx.principal, ctx.request_id, ctx.deadline)

    async def _pack(self) -> int:
        return (await self._core.ledger.collect_records()).packed_records


def _report(plan: CollectPlan, version: int) -> c.CollectReport:
    return c.CollectReport(
        plan=plan.name,
        applied=False,
        horizon=plan.horizon,
        objects=plan.keys,
        size_bytes=plan.size_bytes,
        records_packed=0,
        version=version,
    )


def _finished(state: CatalogState, swept: Swept, left: set[str], before_us: int) -> Sequence[str]:
    """Sessions that ended before ``before_us``, so that no late write of theirs is under way, and
    whose folders hold nothing any more but what versions name."""
    waiting = {key.split("/")[1] for key in (*left, *state.orphaned)}
    waiting |= {key.split("/")[1] for _, key in swept.objects if unreferenced(state, key)}
    waiting |= {each for each, seq in state.ended.items() if _time_of(state, seq) > before_us}
    return sorted(
        each for each in swept.sessions if _as_swept(state, swept, each) and each not in waiting
    )


def _as_swept(state: CatalogState, swept: Swept, session_id: str) -> bool:
    """True if nothing of the session was let go since its folders were listed."""
    return state.ended.get(session_id) == swept.sessions[session_id]


def _time_of(state: CatalogState, version: int) -> int:
    """When ``version`` was made, in microseconds; 0 if that is no longer kept."""
    return state.times[version] if version >= state.times.start else 0
