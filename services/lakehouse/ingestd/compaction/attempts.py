"""One compaction of one dataset: plan, make, commit; and again if the world moved meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, Protocol

from lakehouse.contracts.catalog import CommitRequest, DatasetSnapshot
from lakehouse.contracts.inventory import JournalRequest
from lakehouse.contracts.rows import CompactReport, CompactRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.compaction import reporting
from lakehouse.ingestd.compaction.planning import EVENTS_RUN, Plan, Run, plan
from lakehouse.ingestd.compaction.running import Runner, Stand
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.model.changes import Change, DatasetAt, InputsLive, Requirement, RewriteFiles
from lakehouse.model.dataset import DataFile, VersionEntry
from lakehouse.model.identity import Context

__all__ = ["Asked", "Compaction", "Level", "Others", "expected", "keyed"]

_ROUTE: Final = "compact"
_ENTRIES_MIN: Final = 8


class Level(IntEnum):
    """How much is asked; who asks for no more than is being done joins. SOON: what can be done in
    no time, beside another one if need be."""

    SOON = 0
    PAYING = 1
    FULL = 2


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for what, and how much of it."""

    ctx: Context
    request: CompactRequest
    level: Level


class Others(Protocol):
    """What else is being compacted of the dataset in this process."""

    def busy(self) -> frozenset[str]:
        """Inputs that another one has taken."""
        ...

    def take(self, keys: frozenset[str]) -> None:
        """These are this one's now."""
        ...


@dataclass(frozen=True, slots=True)
class _Done:
    """A run and what it came to. ``tells``: the version up to which it tells version entries."""

    run: Run
    outputs: tuple[DataFile, ...]
    tells: int = 0


class Compaction:
    """``run`` it once."""

    def __init__(self, parts: RowParts, asked: Asked, runner: Runner, others: Others) -> None:
        self._parts = parts
        self._asked = asked
        self._runner = runner
        self._others = others
        self._sessions = AsyncExitStack()
        self._session_id = ""

    async def run(self) -> CompactReport:
        """What it came to. Raises ``conflict`` if its inputs were gone again and again, and what a
        ``Runner`` raises; nothing was changed then."""
        parts = self._parts
        started = parts.clock.monotonic()
        conflict: LakehouseError | None = None
        done: list[_Done] = []
        async with self._sessions:
            for rebased in range(parts.settings.compaction.rebases_max + 1):
                snapshot, version, files, entries = await self._look()
                report = reporting.standing(snapshot, version)
                done = await self._still(snapshot, files, done)
                if not done:
                    # Entries are told by who is alone with the dataset; else some other time.
                    done = await self._make(snapshot, files, entries if rebased == 0 else ())
                if done:
                    try:
                        report = await self._commit(snapshot, done, report)
                    except LakehouseError as error:
                        done = self._after(error, done)
                        conflict = error
                        continue
                elapsed = parts.clock.monotonic() - started
                return replace(report, rebased=rebased, elapsed_ms=round(elapsed * 1e3, 3))
        raise conflict or LakehouseError(ErrorKind.INTERNAL, "a compaction was never attempted")

    async def _look(
        self,
    ) -> tuple[DatasetSnapshot, int, Sequence[DataFile], Sequence[VersionEntry]]:
        ctx, name = self._asked.ctx, self._asked.request.dataset
        snapshot, version = await self._parts.reader.snapshot(ctx, name)
        return snapshot, version, *await _journal(self._parts, ctx, snapshot.dataset.name)

    async def _make(
        self,
        snapshot: DatasetSnapshot,
        files: Sequence[DataFile],
        entries: Sequence[VersionEntry],
    ) -> list[_Done]:
        """Plan, and do it. No other task gets between the plan and the inputs being taken."""
        level, settings = self._asked.level, self._parts.settings.compaction
        found = plan(
            snapshot,
            files,
            settings,
            full=level is Level.FULL,
            fold_rows=level is not Level.SOON,
            busy=self._others.busy(),
        )
        self._others.take(frozenset(file.key for file in found.inputs))
        if not found.runs:
            return []
        runs = list(found.runs)
        told = [run.strategy == EVENTS_RUN for run in runs]
        if not any(told) and len(entries) < _ENTRIES_MIN:
            # A few alone are not worth an object.
            entries = ()
        elif not any(told):
            runs.append(Run(EVENTS_RUN, ()))
        return await self._all(snapshot, runs, tuple(entries))

    async def _all(
        self,
        snapshot: DatasetSnapshot,
        runs: Sequence[Run],
        entries: tuple[VersionEntry, ...],
    ) -> list[_Done]:
        """Each of ``runs``; the first of events tells ``entries``."""
        if not self._session_id:
            writing = self._parts.sessions.writing()
            self._session_id = await self._sessions.enter_async_context(writing)
        stand = Stand(self._asked.ctx, snapshot, self._session_id)
        done: list[_Done] = []
        for run in runs:
            telling: tuple[VersionEntry, ...] = ()
            if run.strategy == EVENTS_RUN:
                telling, entries = entries, ()
            outputs = await self._runner.run(replace(stand, entries=telling), run)
            done.append(_Done(run, outputs, telling[-1].version if telling else 0))
        return done

    async def _still(
        self, snapshot: DatasetSnapshot, files: Sequence[DataFile], done: Sequence[_Done]
    ) -> list[_Done]:
        """Of what is done the runs whose inputs live: what came meanwhile is later than all of
        them, so they are as good as they were. Who told entries tells them no more."""
        live = {file.key for file in (*snapshot.files, *files)}
        alive = [one for one in done if one.run.keys and live.issuperset(one.run.keys)]
        again = [one.run for one in alive if one.tells]
        kept = [one for one in alive if not one.tells]
        return kept + (await self._all(snapshot, again, ()) if again else [])

    def _after(self, error: LakehouseError, done: list[_Done]) -> list[_Done]:
        """What is left of ``done`` after a commit that failed; raises a final ``error``."""
        if error.kind is not ErrorKind.CONFLICT:
            raise error
        if "keys" in error.fields:
            # As for an ingest: the catalog names objects only where their session has ended.
            self._parts.sessions.lost(self._session_id)
            self._session_id = ""
            return []
        return done

    async def _commit(
        self, snapshot: DatasetSnapshot, done: Sequence[_Done], report: CompactReport
    ) -> CompactReport:
        dataset, asked = snapshot.dataset, self._asked
        keys = tuple(key for one in done for key in one.run.keys)
        needs: list[Requirement] = [InputsLive(dataset.id, keys)]
        if any(one.tells for one in done):
            # Nobody else tells them meanwhile.
            needs.append(DatasetAt(dataset.id, dataset.version))
        changes: tuple[Change, ...] = tuple(
            RewriteFiles(dataset.id, one.run.keys, one.outputs, journaled=one.tells) for one in done
        )
        report = replace(
            reporting.done(
                report,
                Plan(tuple(one.run for one in done)),
                [file for one in done for file in one.outputs],
            ),
            bytes_read=self._runner.bytes_read,
            bytes_written=self._runner.bytes_written,
        )
        commit = keyed(asked.ctx, asked.request, CommitRequest(changes, tuple(needs)))
        if commit.request_sha256:
            commit = replace(commit, answer_json=reporting.kept_answer(report))
        result = await self._parts.catalog.commit(asked.ctx, commit)
        if result.replayed and result.answer_json:
            return reporting.told_again(result.answer_json, result.version)
        return replace(report, version=result.version)


async def expected(parts: RowParts, ctx: Context, request: CompactRequest) -> CompactReport:
    """What would be done, and what it is expected to gain."""
    snapshot, version = await parts.reader.snapshot(ctx, request.dataset)
    files, _ = await _journal(parts, ctx, snapshot.dataset.name)
    found = plan(snapshot, files, parts.settings.compaction, full=request.full)
    return reporting.expected(reporting.standing(snapshot, version), found)


def keyed(ctx: Context, request: CompactRequest, commit: CommitRequest) -> CommitRequest:
    """``commit`` with what makes a repeated call the same, if the caller repeats calls."""
    if not ctx.idempotency_key:
        return commit
    return replace(commit, request_sha256=reporting.asked_sha256(request), route=_ROUTE)


async def _journal(
    parts: RowParts, ctx: Context, name: str
) -> tuple[tuple[DataFile, ...], tuple[VersionEntry, ...]]:
    """The event objects of a dataset, and the version entries that none of them tells."""
    files: list[DataFile] = []
    entries: list[VersionEntry] = []
    cursor = ""
    while True:
        page = await parts.catalog.journal(ctx, JournalRequest(name, cursor=cursor))
        files += page.files
        entries += page.entries
        cursor = page.cursor
        if not cursor:
            return tuple(files), tuple(entries)
