"""The objects that the catalog names, for who keeps copies of them: a part of its contract."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from lakehouse.model.dataset import DataFile, Dataset, VersionEntry
from lakehouse.model.refs import ObjectRef


@dataclass(frozen=True, slots=True)
class ObjectChangesRequest:
    """What came and went in one bucket after ``cursor`` ("": from the beginning), in the order of
    commits. ``limit`` in [1, 1000]; a cursor may be kept for ever."""

    bucket: str
    cursor: str = ""
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class ObjectChangesResult:
    """A page of changes; the next begins at ``cursor``.

    Attributes:
        added: files, of dropped datasets too, that the newest version names; without statistics.
        given_up: objects that no version names any more and whose deletion has been decided; known
            for an hour or more after that, then forgotten.
        live: how many files the newest version names, of datasets whose home is the bucket.
        waiting: at most so many files come behind this page, the first committed at
            ``waiting_since``; 0 and None at the end.
        since: when the first change of this page was committed; None for an empty one.
    """

    added: tuple[DataFile, ...]
    given_up: tuple[ObjectRef, ...]
    version: int
    cursor: str
    live: int
    waiting: int = 0
    waiting_since: datetime | None = None
    since: datetime | None = None


class ObjectStanding(StrEnum):
    """``NAMED``: by a version that can be read. ``GIVEN_UP``: by none, and none will name it again
    but by a new registration. ``UNKNOWN``: neither can be said, so nothing may follow from it."""

    NAMED = "named"
    GIVEN_UP = "given_up"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ObjectStatesRequest:
    """At most 1,000 objects."""

    objects: tuple[ObjectRef, ...]


@dataclass(frozen=True, slots=True)
class ObjectState:
    """``size_bytes`` (0: not known) and ``sha256`` of a named object; ``live``: the newest version
    names it; ``dataset``: the name of a dataset that does, by its files or by older versions of
    them ("" where that is not known)."""

    standing: ObjectStanding
    size_bytes: int = 0
    sha256: str = ""
    live: bool = False
    dataset: str = ""


@dataclass(frozen=True, slots=True)
class ObjectStatesResult:
    """``states`` in the order asked for."""

    states: tuple[ObjectState, ...]
    version: int


@dataclass(frozen=True, slots=True)
class JournalRequest:
    """What is to be read of a dataset's journal after version ``after``; dropped ones too.

    ``limit`` files and as many entries in [1, 1000]; ``cursor`` as in ``PageRequest``.
    """

    name: str
    after: int = 0
    limit: int = 1000
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class JournalResult:
    """``files``: the living event objects of which something is later than ``after``, by seq.
    ``entries``: commits that changed rows after ``after`` and whose entries are in no event object
    yet, rising. ``horizon``: versions below it cannot be read."""

    dataset: Dataset
    files: tuple[DataFile, ...]
    entries: tuple[VersionEntry, ...]
    horizon: int
    version: int
    cursor: str = ""
