"""Vectors that another version of an index has already: a switch of backend, of chunking or of
anything but the model asks the model for nothing but what is new."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lakehouse.model.vectors import Distance, IndexVersion, VectorIndexInfo
from lakehouse.vectord.image import Image
from lakehouse.vectord.ports import Labels, Vectors

__all__ = ["donor_of", "reused"]


def donor_of(info: VectorIndexInfo, version: IndexVersion) -> IndexVersion | None:
    """The version whose vectors ``version`` may take over, the live one before others."""
    fit = [each for each in info.versions if each.chunks and _fits(each, version)]
    return max(fit, key=lambda each: (each.number == info.live, each.number), default=None)


def _fits(donor: IndexVersion, version: IndexVersion) -> bool:
    if donor.number == version.number or donor.model != version.model:
        return False
    if donor.dimensions != version.dimensions or donor.model_digest != version.model_digest:
        return False
    known = donor.model_digest or donor.canary_sha256
    if not known or donor.canary_sha256 != version.canary_sha256:
        return False
    # For cosine vectors are kept without their length, which the others need.
    distances = (donor.profile.distance, version.profile.distance)
    return distances[0] is distances[1] or distances[1] is Distance.COSINE


def reused(image: Image, entities: Sequence[str], digests: Sequence[str]) -> tuple[Labels, Vectors]:
    """Of chunks by entity and digest of their text: positions of those that ``image`` has, rising,
    and their vectors."""
    rows = image.book.find(list(dict.fromkeys(entities)))
    rows = rows[rows < image.count]
    rows = rows[image.live[rows]]
    if not len(rows):
        return np.empty(0, np.int64), np.empty((0, image.dimensions), np.float32)
    table = image.book.table(rows)
    keys = zip(table.column("entity").to_pylist(), table.column("digest").to_pylist(), strict=True)
    there = dict(zip(keys, rows.tolist(), strict=True))
    wanted = zip(entities, digests, strict=True)
    found = [(at, there[key]) for at, key in enumerate(wanted) if key in there]
    positions = np.array([at for at, _ in found], np.int64)
    return positions, image.vectors(np.array([row for _, row in found], np.int64))
