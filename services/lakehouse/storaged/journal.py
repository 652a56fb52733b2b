"""The error journal: every failed attempt at a bucket, kept where it can be read at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from lakehouse.contracts.storage import ErrorsRequest, ErrorsResult
from lakehouse.model.failures import FailedAttempt
from lakehouse.storaged.errors import Selection
from lakehouse.storaged.settings import JournalSettings


class Journal:
    """The ``FailureSink`` of storaged's process, and what other processes report to."""

    def __init__(self, settings: JournalSettings) -> None:
        self._ring: deque[FailedAttempt] = deque()
        self._ids: set[str] = set()
        self._room = max(1, settings.errors_ring)
        self._dropped_elsewhere = 0

    def failed(self, attempt: FailedAttempt) -> None:
        """Remember it; one that is known already changes nothing."""
        if attempt.id in self._ids:
            return
        if len(self._ring) >= self._room:
            self._ids.discard(self._ring.popleft().id)
        self._ring.append(attempt)
        self._ids.add(attempt.id)

    def reported(self, attempts: Iterable[FailedAttempt], dropped: int) -> None:
        """Take over what another process saw, and how many it could not keep."""
        self._dropped_elsewhere += dropped
        for attempt in attempts:
            self.failed(attempt)

    async def errors(self, request: ErrorsRequest) -> ErrorsResult:
        """Raises ``invalid`` for a limit, a time or a cursor that is none; nothing else."""
        found = Selection(request)
        for attempt in self._ring:
            found.take(attempt)
        page, following = found.page()
        return ErrorsResult(
            errors=page,
            counts=found.counts(),
            dropped=self._dropped_elsewhere,
            spooled=0,
            next=following,
        )
