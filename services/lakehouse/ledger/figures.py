"""What a ledger's writer counts of its commits: plain numbers, read when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lakehouse.kit.figures import COUNTS, Distribution, Figure, Kind, Readout, alone

_COMMITS: Final = Figure(
    "lakehouse_ledger_commits",
    Kind.COUNTER,
    "proposals answered: committed, replayed (a known key), no_op, given_up, or the error's kind",
    ("outcome",),
)
_COMMIT_SECONDS: Final = Figure(
    "lakehouse_ledger_commit_seconds",
    Kind.DISTRIBUTION,
    "from a proposal's arrival to its record in the bucket, waiting in the queue included",
)
_RECORD_SECONDS: Final = Figure(
    "lakehouse_ledger_record_seconds",
    Kind.DISTRIBUTION,
    "one record: its put and the look at the floor, all attempts",
)
_GROUP: Final = Figure(
    "lakehouse_ledger_group_commits", Kind.DISTRIBUTION, "commits that shared one record"
)
_UNSETTLED: Final = Figure(
    "lakehouse_ledger_unsettled",
    Kind.COUNTER,
    "records whose outcome was not known within the budget and had to be settled",
)
_QUEUED: Final = Figure("lakehouse_ledger_queued", Kind.GAUGE, "proposals that wait for a record")
_UNFOLDED: Final = Figure(
    "lakehouse_ledger_unfolded_records", Kind.GAUGE, "records after the newest checkpoint"
)
_EPOCH: Final = Figure(
    "lakehouse_ledger_epoch", Kind.GAUGE, "rises with every take-over of the store"
)
_RECORD: Final = Figure(
    "lakehouse_ledger_record", Kind.GAUGE, "number of the newest record this writer knows"
)
_VERSION: Final = Figure("lakehouse_store_version", Kind.GAUGE, "the newest version of the store")
_KEYS: Final = Figure(
    "lakehouse_ledger_idempotency_keys", Kind.GAUGE, "idempotency keys that are remembered"
)


class CommitFigures:
    """Counters of one writer."""

    def __init__(self) -> None:
        self._ended: dict[tuple[str, ...], int] = {}
        self._commit_seconds = Distribution()
        self._record_seconds = Distribution()
        self._group = Distribution(COUNTS)
        self._unsettled = 0

    def answered(self, outcome: str, seconds: float) -> None:
        """A proposal got its answer."""
        self._ended[(outcome,)] = self._ended.get((outcome,), 0) + 1
        if outcome == "committed":
            self._commit_seconds.observe(seconds)

    def recorded(self, commits: int, seconds: float) -> None:
        """A record with so many commits is in the bucket."""
        self._record_seconds.observe(seconds)
        if commits:
            self._group.observe(commits)

    def unsettled(self) -> None:
        self._unsettled += 1

    def figures(self) -> Iterator[Readout]:
        yield _COMMITS, self._ended
        yield alone(_COMMIT_SECONDS, self._commit_seconds)
        yield alone(_RECORD_SECONDS, self._record_seconds)
        yield alone(_GROUP, self._group)
        yield alone(_UNSETTLED, self._unsettled)


def standing(
    queued: int, unfolded: int, epoch: int, record: int, version: int
) -> Iterator[Readout]:
    """Where a ledger stands."""
    for figure, value in (
        (_QUEUED, queued),
        (_UNFOLDED, unfolded),
        (_EPOCH, epoch),
        (_RECORD, record),
        (_VERSION, version),
    ):
        yield alone(figure, value)


def keys_remembered(count: int) -> Readout:
    return alone(_KEYS, count)
