"""Where bytes may be: labels of buckets, of datasets, and the one rule between them. Pure.

A label such as ``eu`` is an operator's promise about a bucket. A dataset takes the label of its
home bucket when it is made and keeps it, whatever the configuration says later.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError

__all__ = ["check_label", "check_may_keep", "check_member", "check_place", "may_keep", "strangers"]

_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def check_label(label: str, bucket: str = "") -> str:
    """Return ``label`` if it is "" or lower-case letters, digits, ``_`` and ``-``, else raise
    ``invalid``: two spellings of one place would be two places."""
    if label and not _LABEL.fullmatch(label):
        raise LakehouseError(
            ErrorKind.INVALID,
            "a residency is a label of 1 to 63 characters a-z, 0-9, _ and -",
            bucket=bucket,
            residency=ascii(label[:80])[1:-1],
            hint="for example eu",
        )
    return label


def may_keep(label: str, place: str) -> bool:
    """Whether bytes of residency ``label`` may be put into a bucket of residency ``place``: a copy
    for rescue or backup, a compacted file. Bytes without a label may be anywhere."""
    return not label or label == place


def check_may_keep(source: tuple[str, str], target: tuple[str, str]) -> None:
    """Raise ``forbidden`` unless bytes may go from ``source`` to ``target``, each a bucket's name
    and its residency."""
    if not may_keep(source[1], target[1]):
        raise LakehouseError(
            ErrorKind.FORBIDDEN,
            "the objects would leave the residency of their bucket",
            bucket=source[0],
            residency=source[1],
            target=target[0],
            target_residency=target[1],
            hint="copy them into a bucket of the same residency",
        )


def check_member(dataset: tuple[str, str, str], bucket: str, place: str) -> None:
    """Raise ``forbidden`` unless an object in ``bucket`` may be one of a dataset's: its rows, dead
    letters, deltas or statistics.

    Stricter than ``may_keep``: an object is rewritten into its dataset's home some day, so one that
    has a label may not join a dataset that has none.

    Args:
        dataset: its name, its home bucket, and the residency it was made with.
        place: the residency of ``bucket``.
    """
    name, home, label = dataset
    if label == place or (not label and bucket == home):
        return
    raise LakehouseError(
        ErrorKind.FORBIDDEN,
        "the bucket has another residency than the dataset",
        dataset=name,
        home=home,
        residency=label,
        bucket=bucket,
        bucket_residency=place,
        hint="rows of a dataset stay in buckets of the residency it was made with",
    )


def strangers(recorded: Collection[str], place: str) -> tuple[str, ...]:
    """The labels among ``recorded``, of datasets that have objects in a bucket, which contradict
    that the bucket is called ``place`` now; sorted."""
    return tuple(sorted(label for label in recorded if label and label != place))


def check_place(bucket: str, place: str, recorded: Mapping[str, int]) -> None:
    """Raise ``forbidden`` if the bucket's residency contradicts what datasets in it recorded: one
    of the two is wrong, and nothing more is written until that is settled.

    Args:
        recorded: residency -> datasets that have objects in the bucket.
    """
    odd = strangers(recorded.keys(), place)
    if odd:
        raise LakehouseError(
            ErrorKind.FORBIDDEN,
            "the bucket's residency contradicts that of datasets in it",
            bucket=bucket,
            bucket_residency=place,
            residency=odd[0],
            datasets=sum(recorded[label] for label in odd),
            hint="set the bucket's residency right; it is a fact about the place, not a setting",
        )
