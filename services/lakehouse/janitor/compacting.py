"""Which datasets are worth a look, and which were looked at as they are. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from lakehouse.janitor.settings import JanitorSettings
from lakehouse.model.dataset import Dataset, DatasetStatus

__all__ = ["Seen", "Visits", "worth_a_look"]

_SKIPPED_MAX: Final = 60


def worth_a_look(dataset: Dataset, settings: JanitorSettings) -> bool:
    """By the counts of its objects alone."""
    if dataset.status is not DatasetStatus.LIVE:
        return False
    rows = dataset.files - dataset.key_files - dataset.event_files
    small = dataset.size_bytes < rows * settings.small_file_bytes
    return (
        dataset.key_files > settings.key_files
        or dataset.event_files > settings.event_files
        or (rows > settings.small_files and small)
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """A dataset as it was left. ``failures`` in a row; ``skip``: passes that leave it alone."""

    version: int
    failures: int = 0
    skip: int = 0


class Visits:
    """What is remembered of datasets that were worth a look, from one pass to the next."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}

    def due(self, datasets: Iterable[Dataset]) -> list[Dataset]:
        """Those that changed since they were left, and of those that failed the ones whose time
        has come. What is not among ``datasets`` is forgotten."""
        found: list[Dataset] = []
        kept: dict[str, Seen] = {}
        for dataset in datasets:
            seen = self._seen.get(dataset.id)
            if seen is not None and seen.skip > 0:
                kept[dataset.id] = replace(seen, skip=seen.skip - 1)
                continue
            if seen is not None:
                kept[dataset.id] = seen
            if seen is None or seen.failures or seen.version != dataset.version:
                found.append(dataset)
        self._seen = kept
        return found

    def left(self, dataset: Dataset, version: int) -> None:
        """Nothing more pays while it is at ``version``."""
        self._seen[dataset.id] = Seen(version)

    def failed(self, dataset: Dataset) -> None:
        """Try again after twice as many passes as the last time."""
        seen = self._seen.get(dataset.id)
        failures = 1 if seen is None else seen.failures + 1
        skip = min(2 ** (failures - 1), _SKIPPED_MAX)
        self._seen[dataset.id] = Seen(dataset.version, failures, skip)

    @property
    def waiting(self) -> bool:
        """Whether some failed and are to be tried again although nothing changed."""
        return any(seen.failures for seen in self._seen.values())
