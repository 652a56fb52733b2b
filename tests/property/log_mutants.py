"""The append log with one of its safeguards taken out: each must break a promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from unittest import mock

from lakehouse.appendlog import compaction, writer
from lakehouse.appendlog.batch import Header
from lakehouse.appendlog.compaction import Compactor
from lakehouse.appendlog.layout import Range
from lakehouse.appendlog.merged import merge
from lakehouse.appendlog.reading import LogReader
from lakehouse.appendlog.spool import Spool
from lakehouse.appendlog.tiers import Segment
from lakehouse.appendlog.writer import SlotWriter
from lakehouse.errors import LakehouseError
from lakehouse.ledger import chain, floor
from lakehouse.testing.simulation.bucket import Faults
from lakehouse.testing.simulation.logworld import SETTINGS, LogProfile

Mutant = tuple[LogProfile, Callable[[], AbstractContextManager[object]]]

DEFAULT = LogProfile()
# Eager compactors, long stops, a network that delivers twice: what the floor is for.
HARSH_LOG = LogProfile(
    nodes=3,
    compactors=3,
    compact_seconds=0.3,
    stop_seconds=20.0,
    retain_seconds=0.0,
    trouble_seconds=1.0,
    faults=Faults(before=0.05, again=0.6, late_seconds=20.0, usual_seconds=0.1),
    settings=replace(SETTINGS, merge_fan=2, slots_kept=1),
)
# Everything arrives twice, compactors are at it all the time and are stopped in the midst of it:
# so slots that were deleted hold a late writer's bytes when they are read.
GHOSTS = LogProfile(
    nodes=3,
    compactors=4,
    compact_seconds=0.1,
    stop_seconds=8.0,
    retain_seconds=0.0,
    trouble_seconds=0.2,
    doze_seconds=6.0,
    seconds=40.0,
    appends_each=30,
    faults=Faults(before=0.01, again=1.0, late_seconds=10.0, usual_seconds=0.1, slow=0.2),
    settings=replace(SETTINGS, merge_fan=2, slots_kept=1),
)


def _patched(*patches: AbstractContextManager[object]) -> Callable[[], ExitStack]:
    def enter() -> ExitStack:
        stack = ExitStack()
        for patch in patches:
            stack.enter_context(patch)
        return stack

    return enter


async def _not_found(self: SlotWriter, n: int, put_id: str) -> Header | None:
    return None


async def _no_floor_check(append: chain.Append[object]) -> chain.Outcome:
    return chain.Outcome.COMMITTED


_merge = Compactor._merge


async def _floor_first(self: Compactor, group: Sequence[Segment]) -> bool:
    """What is about to be merged may be given up now, may it not?"""
    await floor.raise_floor(self._access, group[-1].last)
    return await _merge_anyway(self, group)


async def _merge_anyway(self: Compactor, group: Sequence[Segment]) -> bool:
    with mock.patch.object(Compactor, "_above_floor", mock.AsyncMock(return_value=True)):
        return await _merge(self, group)


_write = Compactor._write


async def _delete_first(self: Compactor, one: Range, data: bytes) -> None:
    """Everything is in memory: the slots can go."""
    await self._delete([self._layout.slot(n) for n in range(one.first, one.last + 1)])
    await _write(self, one, data)


async def _send_and_forget(self: Compactor, one: Range, data: bytes) -> None:
    """It was sent: so it will be there."""
    with suppress(LakehouseError):
        await self._access.store.put(one.key, data, if_absent=True)
    await floor.raise_floor(self._access, one.last)


async def _nothing_raised(self: Compactor, n: int) -> int:
    return n


def _by_size(first: int, last: int, batches: Sequence[bytes]) -> bytes:
    """In the order in which replies arrive, the small ones first."""
    return merge(first, last, sorted(batches, key=len))


async def _no_floor(self: LogReader) -> int:
    return floor.NONE


async def _never_sent(self: SlotWriter, n: int, put_id: str) -> Header | None:
    return None


def _no_disk(self: Spool) -> None:
    return


LOG_MUTANTS: dict[str, Mutant] = {
    "no put id": (DEFAULT, _patched(mock.patch.object(writer, "is_mine", return_value=True))),
    "a slot that is taken is never ours": (
        DEFAULT,
        _patched(
            mock.patch.object(writer, "is_mine", return_value=False),
            mock.patch.object(SlotWriter, "find", _not_found),
        ),
    ),
    "no floor check after a write": (
        HARSH_LOG,
        _patched(mock.patch.object(chain.Append, "_check_floor", _no_floor_check)),
    ),
    "floor before the merge is verified": (
        DEFAULT,
        _patched(mock.patch.object(Compactor, "_merge", _floor_first)),
    ),
    "merge sent and forgotten": (
        DEFAULT,
        _patched(mock.patch.object(Compactor, "_write", _send_and_forget)),
    ),
    "delete before the merge is durable": (
        DEFAULT,
        _patched(mock.patch.object(Compactor, "_write", _delete_first)),
    ),
    "delete without a floor": (
        DEFAULT,
        _patched(mock.patch.object(Compactor, "_floor_at_least", _nothing_raised)),
    ),
    "merged in order of arrival": (
        DEFAULT,
        _patched(mock.patch.object(compaction, "merge", _by_size)),
    ),
    "readers trust a slot below the floor": (
        HARSH_LOG,
        _patched(mock.patch.object(LogReader, "_floor", _no_floor)),
    ),
    "spooled again without a look": (
        DEFAULT,
        _patched(mock.patch.object(SlotWriter, "_sent_before", _never_sent)),
    ),
    "no spool": (DEFAULT, _patched(mock.patch.object(Spool, "start", _no_disk))),
}
