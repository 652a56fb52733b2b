"""A dataset as the catalog holds it: manifest, card, files, versions."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from lakehouse.model.refs import PRIMARY
from lakehouse.model.schema import Schema

ROWS: Final = "rows"
KEYS: Final = "keys"
EVENTS: Final = "events"
CONTENTS: Final = frozenset({ROWS, KEYS, EVENTS})
"""What ``DataFile.content`` may say.

``rows``: exactly the columns of its schema. ``keys``: the key of every row that the commit replaced
or deleted; it hides rows with that key in files of a lower ``seq``, each exactly one. ``events``:
the journal of the commit (``table.events``)."""


class Sensitivity(StrEnum):
    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"


class DatasetStatus(StrEnum):
    LIVE = "live"
    DROPPED = "dropped"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class PiiFinding:
    """A column that seems to hold personal data; ``confidence`` in [0, 1]."""

    column: str
    kind: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where the rows came from: source system -> ingest -> dataset (ADR-013)."""

    source_system: str = ""
    ingest: str = ""
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """What makes a dataset more than a mystery file (ADR-013).

    ``detected`` names the fields of this card that were filled by detection, not by a person.
    """

    owner: str = ""
    description: str = ""
    sensitivity: Sensitivity = Sensitivity.INTERNAL
    tags: tuple[str, ...] = ()
    lineage: Lineage = field(default_factory=Lineage)
    freshness_sla_seconds: int | None = None
    pii: tuple[PiiFinding, ...] = ()
    detected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ColumnStats:
    """Bounds of one column in one file, as text by logical type.

    Strings are cut to 64 bytes, the maximum rounded up; numbers and times in their shortest exact
    text (times RFC 3339); None means no bound (NaN seen, all null, or a type without order).
    """

    column_id: int
    null_count: int | None = None
    minimum: str | None = None
    maximum: str | None = None


@dataclass(frozen=True, slots=True)
class DataFile:
    """An immutable object with rows of a dataset.

    Attributes:
        sha256: lower-case hex of the object's bytes.
        rows_hash: commutative hash of the rows, ``rh1:`` and 16 hex digits; "" where not computed.
            Of ``keys``: of the rows that they hide, so that the rows that can be seen have the hash
            of all ``rows`` less that of all ``keys``.
        external: a foreign object, registered and not written by us; never deleted by us.
        ordinal: position in the dataset, rising with commit order; set by the catalog.
        content: what the object holds, of the closed set ``CONTENTS``; a reader that does not know
            it must refuse the dataset, not pass the file over.
        seq: the commit that it stands for; it orders deltas; set by the catalog: the one that added
            it, or for what a rewrite made the newest of those it was made of.
        encryption: how its bytes are encrypted; "" for not at all.
        stats_sha256: of the object beside it that has its statistics (``stats_key``), for rows
            outside the primary bucket; "" where there is none.
    """

    key: str
    size_bytes: int
    rows: int
    sha256: str
    bucket: str = PRIMARY
    schema_id: int = 1
    rows_hash: str = ""
    external: bool = False
    ordinal: int = 0
    stats: tuple[ColumnStats, ...] = ()
    content: str = "rows"
    seq: int = 0
    encryption: str = ""
    stats_sha256: str = ""


_ROWS_ENDING: Final = ".parquet"
_STATS_ENDING: Final = ".stats.parquet"


def stats_key(key: str) -> str:
    """Where the statistics of the rows at ``key`` are: an object beside it, in the same bucket."""
    return key.removesuffix(_ROWS_ENDING) + _STATS_ENDING


def rows_key(key: str) -> str:
    """The rows that an object of ours is about: the inverse of ``stats_key``, and rows' own key."""
    if key.endswith(_STATS_ENDING):
        return key.removesuffix(_STATS_ENDING) + _ROWS_ENDING
    return key


def objects_of(file: DataFile) -> tuple[str, ...]:
    """The keys of all objects that live and go with ``file``: its rows, and their statistics."""
    return (file.key, stats_key(file.key)) if file.stats_sha256 else (file.key,)


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset at one version of the store. ``version`` is the seq of its last change;
    ``bucket`` its home, and ``residency`` what that bucket was called when it was made.

    Attributes:
        rows_version: the seq of the last change to its rows; a rewrite of files is none.
        history_since: from this version on the journal tells every change to every row; 0 for a
            dataset without a key.
        journaled: version entries up to this version are in event objects too.
        key_files, event_files: of ``files``, those with that content.
    """

    id: str
    name: str
    fingerprint: str
    schema: Schema
    status: DatasetStatus
    card: Card
    created_at: datetime
    updated_at: datetime
    version: int
    files: int
    size_bytes: int
    row_count: int | None
    primary_key: tuple[str, ...] = ()
    bucket: str = PRIMARY
    residency: str = ""
    rows_version: int = 0
    history_since: int = 0
    journaled: int = 0
    key_files: int = 0
    event_files: int = 0


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """One commit that touched a dataset; ``operation`` e.g. create append replace rename drop."""

    version: int
    at: datetime
    operation: str
    actor: str
    request_id: str
    rows_added: int
    rows_removed: int
    files_added: int
    files_removed: int
    row_count: int | None
    schema_id: int
    content_digest: str = ""
    source: str = ""
    workspace: str = ""
    reason: str = ""
