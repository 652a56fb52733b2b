"""Which of several datasets of one name is preferred (ADR-020)."""

from __future__ import annotations

from collections.abc import Sequence

from lakehouse.catalogd.state import DatasetState
from lakehouse.model.dataset import DatasetStatus

__all__ = ["preferred"]


def preferred(datasets: Sequence[DatasetState]) -> DatasetState | None:
    """A live one before a quarantined one, which answers nobody; then the one with a row count,
    then the most recently updated, then the greatest id (the newest made). A dataset that the
    commit at hand makes has no history yet and comes last."""

    def rank(dataset: DatasetState) -> tuple[bool, bool, float, str]:
        if not len(dataset.history):
            return (False, False, 0.0, dataset.id)
        now = dataset.now
        live = now.head.status is DatasetStatus.LIVE
        counted = now.entry.row_count is not None
        return (live, counted, now.updated_at.timestamp(), dataset.id)

    return max(datasets, key=rank, default=None)
