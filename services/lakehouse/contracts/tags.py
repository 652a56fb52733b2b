"""Tags: names for versions, which stay readable as long as their tag is there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lakehouse.contracts.as_of import AsOf


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for a version of the store, which stays readable as long as the tag is there: all of
    it, or of one dataset (``dataset_id``, ``dataset``)."""

    name: str
    version: int
    at: datetime
    dataset: str = ""
    dataset_id: str = ""
    note: str = ""
    created_by: str = ""


@dataclass(frozen=True, slots=True)
class SetTagRequest:
    """Tag ``as_of``; ``dataset`` "" is the whole store. A tag that is there with another version
    is a ``conflict``; ``remove`` takes it away, and what it kept is collected as all else is."""

    name: str
    dataset: str = ""
    as_of: AsOf = AsOf()
    note: str = ""
    remove: bool = False


@dataclass(frozen=True, slots=True)
class TagResult:
    """``created``: False where it was there as asked, or was removed."""

    tag: Tag
    version: int
    created: bool = False


@dataclass(frozen=True, slots=True)
class TagsRequest:
    """``dataset`` "" is all tags; ``prefix``: of names, without case. ``limit`` in [1, 1000]."""

    dataset: str = ""
    limit: int = 1000
    cursor: str = ""
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class TagsResult:
    """By name."""

    tags: tuple[Tag, ...]
    version: int
    cursor: str = ""
