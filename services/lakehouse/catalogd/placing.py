"""Which buckets hold objects of which datasets, kept up to date with every commit. Pure.

Counted by the residency that the datasets were made with: what tells whether a bucket may go, and
whether what it is called contradicts what is in it, must not cost a look at every file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from immutables import Map

from lakehouse.catalogd.state import DatasetState

__all__ = ["Placed", "counted", "places", "replaced"]

Placed = Map[str, Map[str, int]]
"""Bucket -> residency of datasets -> how many of them have objects there, in any version that is
kept, or have it as their home."""


def places(dataset: DatasetState) -> frozenset[str]:
    """The buckets in which a dataset has objects, dropped or not, and its home."""
    return dataset.log.elsewhere | {dataset.bucket}


def counted(datasets: Iterable[DatasetState]) -> Placed:
    """``Placed`` of all datasets there are."""
    found: dict[str, Counter[str]] = {}
    for dataset in datasets:
        for bucket in places(dataset):
            found.setdefault(bucket, Counter())[dataset.residency] += 1
    return Map({bucket: Map(counts) for bucket, counts in found.items()})


def replaced(
    placed: Placed,
    before: Map[str, DatasetState],
    after: Map[str, DatasetState],
    touched: Iterable[str],
) -> Placed:
    """``placed`` once the datasets ``touched`` are those of ``after`` and not of ``before``."""
    for dataset_id in touched:
        old, new = before.get(dataset_id), after.get(dataset_id)
        left = frozenset() if old is None else places(old)
        come = frozenset() if new is None else places(new)
        if old is not None:
            for bucket in left - come:
                placed = _add(placed, bucket, old.residency, -1)
        if new is not None:
            for bucket in come - left:
                placed = _add(placed, bucket, new.residency, 1)
    return placed


def _add(placed: Placed, bucket: str, residency: str, count: int) -> Placed:
    counts: Map[str, int] = placed.get(bucket, Map())
    total = counts.get(residency, 0) + count
    if total > 0:
        counts = counts.set(residency, total)
    elif residency in counts:
        counts = counts.delete(residency)
    if counts:
        return placed.set(bucket, counts)
    return placed.delete(bucket) if bucket in placed else placed
