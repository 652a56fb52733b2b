"""What was put into a simulated log, what its users were told, and whether both agree."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from lakehouse.appendlog.batch import read_batch
from lakehouse.appendlog.event import LogEvent, batch_of
from lakehouse.appendlog.layout import LogLayout
from lakehouse.testing.simulation.ledgerbook import Violation


@dataclass(slots=True)
class Logbook:
    """``history`` is the log as it truly is: the first bytes ever put into each slot.

    ``offered`` tells for each id of an event whether it must be in the log; ``read`` are whole
    scans: first and last batch they had to show, and what they showed.
    """

    layout: LogLayout
    history: dict[int, bytes] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    offered: dict[str, bool] = field(default_factory=dict)
    read: list[tuple[int, int, list[tuple[int, str]]]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def violate(self, what: str) -> None:
        self.violations.append(what)

    def put(self, key: str, data: bytes) -> None:
        """An object was made. A slot that is used again is no part of the log."""
        if key.startswith(self.layout.slots):
            self.history.setdefault(self.layout.slot_number(key), data)

    @property
    def newest(self) -> int:
        return max(self.history, default=-1)

    def events(self, first: int = 0) -> list[LogEvent]:
        """The true events of the batches from ``first`` on, a token once."""
        found: list[LogEvent] = []
        seen: set[str] = set()
        for n in range(first, self.newest + 1):
            for one in read_batch(self.history[n], str(n)).events():
                token = str(one.event["token"])
                if token not in seen:
                    seen.add(token)
                    found.append(one)
        return found

    def check(self, retained: int, shown: list[LogEvent]) -> None:
        """Raise ``Violation`` for the first promise that was broken.

        Args:
            retained: batches up to this one were given up.
            shown: everything a reader without faults finds at the end.
        """
        if sorted(self.history) != list(range(self.newest + 1)):
            raise Violation("the slots have a gap")
        truth = [
            one
            for n in range(self.newest + 1)
            for one in read_batch(self.history[n], str(n)).events()
        ]
        # Of an offered event whose outcome a crash left open, one more is stored if retention gave
        # that part up before anybody could look; of what is left each is there once.
        tokens = Counter(
            str(one.event["token"])
            for one in truth
            if batch_of(one.seq) > retained or "id" not in one.event
        )
        twice = [token for token, count in tokens.items() if count > 1]
        if twice:
            raise Violation(f"stored more than once: {twice[:5]}")
        places = {str(one.event["token"]): one.seq for one in truth}
        for token, seq in self.acknowledged.items():
            if places.get(token) != seq:
                raise Violation(f"{token} was acknowledged at {seq}, is at {places.get(token)}")
        for token in self.absent & places.keys():
            raise Violation(f"{token} was refused and is there")
        for token, must in self.offered.items():
            if must and token not in places:
                raise Violation(f"{token} was offered, its process lived on, and it is not there")
        if shown != self.events(retained + 1):
            raise Violation(_difference(shown, self.events(retained + 1)))
        self._check_reads(retained)
        if self.violations:
            raise Violation("; ".join(self.violations[:5]))

    def _check_reads(self, retained: int) -> None:
        """Every scan showed all batches of its span, in order, but for what was given up."""
        seqs = {
            n: [
                (one.seq, str(one.event["token"]))
                for one in read_batch(self.history[n], str(n)).events()
            ]
            for n in self.history
        }
        for first, last, shown in self.read:
            if shown != sorted(shown):
                raise Violation(f"a scan was out of order: {shown}")
            found = set(shown)
            if len(found) != len(shown) or found - {one for some in seqs.values() for one in some}:
                raise Violation("a scan showed what is not in the log, or something twice")
            for n in range(max(first, retained + 1), last + 1):
                if not found.issuperset(seqs[n]):
                    raise Violation(f"a scan from {first} to {last} left out batch {n}")


def _difference(shown: list[LogEvent], truth: list[LogEvent]) -> str:
    seen, true = [one.seq for one in shown], [one.seq for one in truth]
    if sorted(seen) == sorted(true):
        return "a reader sees the events in another order"
    lost, more = set(true) - set(seen), set(seen) - set(true)
    return f"a reader misses {sorted(lost)[:5]} and sees {sorted(more)[:5]} that are not there"
