"""The newest events in memory, and the ids seen lately."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from lakehouse.appendlog.event import LogEvent
from lakehouse.ledger.machine import JsonObject


class SeenIds:
    """The last ``size`` ids, to tell an event that comes again."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, event_id: object) -> bool:
        return isinstance(event_id, str) and event_id in self._ids

    def add(self, event_id: object) -> bool:
        """Remember it; false if it was known. What is no text is always new."""
        if not isinstance(event_id, str):
            return True
        if event_id in self._ids:
            return False
        self._ids[event_id] = None
        if len(self._ids) > self._size:
            self._ids.popitem(last=False)
        return True


class Ring:
    """At most ``size`` events, in the order in which they came."""

    def __init__(self, size: int) -> None:
        self._events: deque[LogEvent] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._events)

    def extend(self, events: Iterable[LogEvent]) -> None:
        self._events.extend(events)

    def fill(self, events: Iterable[LogEvent]) -> None:
        """Older events, found after newer ones came: in front, as far as there is room."""
        newer = list(self._events)
        known = {one.event.get("id") for one in newer} - {None}
        older = [one for one in events if one.event.get("id") not in known]
        self._events.clear()
        self._events.extend(older + newer)

    def newest(
        self, limit: int, where: Callable[[JsonObject], bool] | None = None
    ) -> list[LogEvent]:
        """At most ``limit`` events, newest first."""
        found: list[LogEvent] = []
        for one in reversed(self._events):
            if len(found) >= limit:
                break
            if where is None or where(one.event):
                found.append(one)
        return found
