"""Tags as the state holds them: documents of a kind that nobody else writes, and what they pin.

**What a tag keeps.** Of each dataset that it is of (one, or all), the files that were seen at its
version: one that was added after it and removed again before the horizon goes, one old tag keeps no
more than one version of the files. Of what is small it keeps more: version entries of those
datasets from the tag on, and who had a name at its version. The horizon itself passes by: a version
below it can be read if it is tagged, and then only the datasets the tag is of. Removing a tag takes
its pin away, and the next collection what only it kept. A dataset that a tag keeps is not purged.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import orjson
from immutables import Map

from lakehouse.catalogd.codec import decode, encode
from lakehouse.catalogd.state import CatalogState
from lakehouse.contracts.tags import Tag
from lakehouse.kit.clock import to_datetime
from lakehouse.model.dataset import DatasetStatus

__all__ = [
    "TAG_DOCUMENTS",
    "TagBody",
    "kept_at",
    "pinned",
    "read_tag",
    "repinned",
    "tag_body",
    "tag_of",
]

TAG_DOCUMENTS: Final = "tag of a version"
"""The kind of their documents; it has a form that a commit by others cannot name."""

Pins = Map[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class TagBody:
    """``at_us``: when its version was made. ``dataset_id`` "" is the whole store."""

    name: str
    version: int
    at_us: int
    dataset_id: str = ""
    note: str = ""
    created_by: str = ""


def tag_body(body: TagBody) -> str:
    """As the document holds it."""
    return orjson.dumps(encode(body)).decode()


def read_tag(body: str) -> TagBody:
    """The inverse of ``tag_body``."""
    return decode(TagBody, orjson.loads(body))


def tag_of(body: TagBody, dataset: str) -> Tag:
    """The tag as callers see it; ``dataset`` is what its dataset is called now."""
    return Tag(
        name=body.name,
        version=body.version,
        at=to_datetime(body.at_us),
        dataset=dataset,
        dataset_id=body.dataset_id,
        note=body.note,
        created_by=body.created_by,
    )


def repinned(pins: Pins, old: str, new: str) -> Pins:
    """``pins`` once the document ``old`` is ``new``; "" is none."""
    if old:
        tag = read_tag(old)
        left = list(pins.get(tag.dataset_id, ()))
        if tag.version in left:
            left.remove(tag.version)
        pins = pins.delete(tag.dataset_id) if tag.dataset_id in pins else pins
        pins = pins.set(tag.dataset_id, tuple(left)) if left else pins
    if new:
        tag = read_tag(new)
        grown = list(pins.get(tag.dataset_id, ()))
        bisect.insort(grown, tag.version)
        pins = pins.set(tag.dataset_id, tuple(grown))
    return pins


def kept_at(state: CatalogState, dataset_id: str) -> int | None:
    """A version at which a tag keeps the dataset; None if none does, or it was not there then."""
    dataset = state.datasets.get(dataset_id)
    for version in state.pins_of(dataset_id) if dataset is not None else ():
        revision = dataset.at(version) if dataset is not None else None
        if revision is not None and revision.head.status is not DatasetStatus.DROPPED:
            return version
    return None


def pinned(bodies: Iterable[str]) -> Pins:
    """``CatalogState.pins`` of all documents of tags."""
    pins: Pins = Map()
    for body in bodies:
        pins = repinned(pins, "", body)
    return pins
