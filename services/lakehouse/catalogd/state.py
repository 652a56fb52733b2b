"""The catalog as a value: every dataset with its history, names, documents, sessions.

Everything is persistent (structural sharing): applying a commit costs O(what it changes), keeping
the state of before costs nothing, and a reader of an old state is never disturbed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
from immutables import Map

from lakehouse.catalogd.files import FileLog, Totals
from lakehouse.catalogd.persistent import SortedNames, Vector
from lakehouse.catalogd.structures import Structures, unit_of
from lakehouse.ledger.machine import Entry
from lakehouse.ledger.sessions import Objects
from lakehouse.model.dataset import Card, Dataset, DatasetStatus, VersionEntry, rows_key
from lakehouse.model.schema import Schema
from lakehouse.model.vectors import VECTORS_FOLDER

__all__ = [
    "Broken",
    "CatalogState",
    "DatasetState",
    "DocumentState",
    "Head",
    "Marks",
    "Names",
    "Revision",
    "first_untold",
]


@dataclass(frozen=True, slots=True)
class Head:
    """What a dataset is, apart from its files; shared by the revisions that did not change it."""

    name: str
    status: DatasetStatus
    fingerprint: str
    schema_id: int
    card: Card
    primary_key: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Marks:
    """How far a dataset's rows and their journal are, as in ``model.dataset.Dataset``; shared by
    the revisions that did not move them."""

    rows_version: int = 0
    history_since: int = 0
    journaled: int = 0


@dataclass(frozen=True, slots=True)
class Revision:
    """A dataset right after one commit.

    ``updated_at`` differs from the commit's time for a manifest that was imported, and after a
    rewrite, which updates nothing. ``told``: what the commit did to rows is in events of its own.
    """

    head: Head
    entry: VersionEntry
    totals: Totals
    updated_at: datetime
    marks: Marks = Marks()
    told: bool = False

    @property
    def version(self) -> int:
        return self.entry.version

    @property
    def untold(self) -> bool:
        """It changed rows, and its entry alone tells so: it is an event of the journal itself."""
        entry = self.entry
        moved = entry.files_added or entry.files_removed
        return bool(moved) and self.marks.rows_version == entry.version and not self.told


def first_untold(history: Vector[Revision], after: int) -> int:
    """The first version later than ``after`` that is ``Revision.untold``; 0 if none is."""
    start = history.bisect(after, lambda revision: revision.version)
    found = (history[at] for at in range(start, history.end))
    return next((each.version for each in found if each.untold), 0)


@dataclass(frozen=True, slots=True)
class DatasetState:
    """``schemas`` by id from 1. ``digests``: content digest of rows that live -> its version.

    ``untold``: the first version whose change of rows is in no event object, 0 if there is none; it
    follows from the rest. History is kept from there on: until it is folded into events, the entry
    is the only word of it.
    """

    id: str
    bucket: str
    created_at: datetime
    schemas: tuple[Schema, ...]
    log: FileLog
    history: Vector[Revision]
    rows_known: bool = True
    digests: Map[str, int] = field(default_factory=Map)
    residency: str = ""
    untold: int = 0
    # The manifest's bytes once a checkpoint made them; a changed dataset starts without.
    encoded: list[bytes] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def now(self) -> Revision:
        return self.history[self.history.end - 1]

    @property
    def live(self) -> bool:
        """Has its name; quarantined datasets do."""
        return self.now.head.status is not DatasetStatus.DROPPED

    def at(self, version: int) -> Revision | None:
        """The revision that stood at ``version``; None before it was made or no longer kept."""
        found = self.history.bisect(version, lambda revision: revision.version)
        return self.history[found - 1] if found > self.history.start else None

    def schema(self, schema_id: int) -> Schema:
        return self.schemas[schema_id - 1]

    def view(self, revision: Revision) -> Dataset:
        """The dataset as callers see it."""
        head, totals = revision.head, revision.totals
        return Dataset(
            id=self.id,
            name=head.name,
            fingerprint=head.fingerprint,
            schema=self.schema(head.schema_id),
            status=head.status,
            card=head.card,
            created_at=self.created_at,
            updated_at=revision.updated_at,
            version=revision.version,
            files=totals.files,
            size_bytes=totals.size_bytes,
            row_count=revision.entry.row_count,
            primary_key=head.primary_key,
            bucket=self.bucket,
            residency=self.residency,
            rows_version=revision.marks.rows_version,
            history_since=revision.marks.history_since,
            journaled=revision.marks.journaled,
            key_files=totals.key_files,
            event_files=totals.event_files,
        )


@dataclass(frozen=True, slots=True)
class Names:
    """Who had a name when: ``holders`` by name key, (version, dataset id or "" for nobody), rising.

    ``order`` has all datasets with a name, ``dropped`` those that lost theirs, both by name key.
    A name has more than one dataset only after an import; its holder is then the preferred one.
    """

    holders: Map[str, tuple[tuple[int, str], ...]] = field(default_factory=Map)
    order: SortedNames = SortedNames()
    dropped: SortedNames = SortedNames()

    def holder(self, key: str, version: int | None = None) -> str:
        """The id of the dataset that has the name (at ``version``), or ""."""
        past = self.holders.get(key, ())
        if version is None:
            return past[-1][1] if past else ""
        return next((id_ for since, id_ in reversed(past) if since <= version), "")

    def sharing(self, key: str) -> Iterator[str]:
        """The ids of all live datasets with this name."""
        for name, dataset_id in self.order.after((key, "")):
            if name != key:
                return
            yield dataset_id


@dataclass(frozen=True, slots=True)
class DocumentState:
    body: str
    version: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A manifest as the checkpoint has it: its row, and those of its revisions and files.

    ``pending`` are the commits since that name the dataset, as the chain has them: applied once a
    version that can read the manifest loads it. ``keys``: all objects that any of it names.
    """

    name: str
    body: bytes
    revisions: pa.Table
    files: pa.Table | None
    removed: Map[int, int]
    reason: str
    pending: tuple[Entry, ...] = ()
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CatalogState:
    """Everything at one version.

    Attributes:
        times: microseconds of version ``times.start`` and on, one a version.
        documents: by kind, then by id.
        adopted: object key -> ids of datasets that name it though it was written for another.
        orphaned: keys of purged datasets with their bucket, not yet condemned.
        dirty: dataset id -> first version that removed a file the log still holds.
        objects: live sessions, condemned keys, and the horizon below which nothing is read.
        ended: sessions that ended -> when; their unreferenced objects are not yet swept.
        elsewhere: condemned keys that are not in the primary bucket -> their bucket.
        broken: manifests of a checkpoint that could not be read, kept as they are, by dataset id;
            such a dataset is shown quarantined and hides nobody else.
        unknown: parts and kinds of rows in the checkpoint that this version does not know; such a
            state can be read, and no checkpoint is made of it.
        placed: bucket -> residency -> datasets with objects there (``placing``); derived from the
            rest, so no checkpoint holds it.
        pins: dataset id, or "" for all of them -> the versions that tags keep readable, rising, one
            a tag (``tagging``); derived from documents.
        structures: key of a search structure -> how many documents of indexes name it
            (``structures``); derived from documents.
    """

    version: int = 0
    times: Vector[int] = Vector(start=1)
    datasets: Map[str, DatasetState] = field(default_factory=Map)
    names: Names = Names()
    documents: Map[str, Map[str, DocumentState]] = field(default_factory=Map)
    objects: Objects = Objects()
    ended: Map[str, int] = field(default_factory=Map)
    adopted: Map[str, tuple[str, ...]] = field(default_factory=Map)
    orphaned: Map[str, str] = field(default_factory=Map)
    dirty: Map[str, int] = field(default_factory=Map)
    elsewhere: Map[str, str] = field(default_factory=Map)
    broken: Map[str, Broken] = field(default_factory=Map)
    unknown: tuple[str, ...] = ()
    placed: Map[str, Map[str, int]] = field(default_factory=Map)
    pins: Map[str, tuple[int, ...]] = field(default_factory=Map)
    structures: Structures = field(default_factory=Map)

    @property
    def ts_us(self) -> int:
        """The time of the newest version; 0 for an empty store."""
        return self.times[self.times.end - 1] if len(self.times) else 0

    def pins_of(self, dataset_id: str) -> tuple[int, ...]:
        """The versions at which tags keep the dataset as it was, rising."""
        every, own = self.pins.get("", ()), self.pins.get(dataset_id, ())
        return tuple(sorted((*every, *own))) if every and own else every or own

    def tagged(self, version: int) -> bool:
        """True if some tag keeps something of ``version``."""
        return any(version in versions for versions in self.pins.values())

    def document_count(self) -> int:
        return sum(len(kind) for kind in self.documents.values())

    def broken_names(self, key: str) -> bool:
        """True if a manifest that cannot be read may name the object ``key``."""
        parts = key.split("/")
        return (len(parts) > 2 and parts[2] in self.broken) or any(
            key in each.keys for each in self.broken.values()
        )

    def names_object(self, key: str) -> bool:
        """True if a retained version names the object ``key`` that a session wrote, or the rows
        that it has the statistics of. Of a manifest that cannot be read, everything in its folder
        may be named. Of a search structure: if a document names it, or the folder that it is in."""
        if key.startswith(VECTORS_FOLDER):
            return any(unit in self.structures for unit in unit_of(key))
        key = rows_key(key)
        if key in self.adopted:
            return True
        parts = key.split("/")
        if self.broken and self.broken_names(key):
            return True
        dataset = self.datasets.get(parts[2]) if len(parts) == 4 else None
        return dataset is not None and dataset.log.find(key, retained=True) is not None
