"""What a commit says: changes to apply and requirements to check. Closed unions, frozen values.

The catalog's records are made of these, in JSON: a field may be added with a default, never renamed
or removed, for users' only copy is in them.
"""

from __future__ import annotations

from dataclasses import dataclass

from lakehouse.model.dataset import Card, DataFile
from lakehouse.model.refs import PRIMARY
from lakehouse.model.schema import Schema


@dataclass(frozen=True, slots=True)
class CreateDataset:
    """``residency`` is that of ``bucket``, the dataset's home; the catalog puts it in."""

    dataset_id: str
    name: str
    fingerprint: str
    schema: Schema
    card: Card
    primary_key: tuple[str, ...] = ()
    bucket: str = PRIMARY
    residency: str = ""


@dataclass(frozen=True, slots=True)
class AddFiles:
    """Add objects; with ``replace`` all files live before are removed in the same commit.

    ``content_digest`` (sha256 of the source bytes, "" if none) is what makes re-ingest a no-op.
    ``operation``, ``source``, ``workspace`` and ``reason`` go into the version entry. A row change
    adds its ``rows``, its ``keys`` and its ``events`` together; what a dataset with a primary key
    gains or loses without events starts its row history anew. ``replace`` leaves the events.
    """

    dataset_id: str
    files: tuple[DataFile, ...]
    replace: bool = False
    content_digest: str = ""
    operation: str = "append"
    source: str = ""
    workspace: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RemoveFiles:
    dataset_id: str
    keys: tuple[str, ...]
    operation: str = "remove"


@dataclass(frozen=True, slots=True)
class RewriteFiles:
    """Put ``files`` in the place of the living files ``keys``: the same rows and the same events in
    other objects (compaction).

    Each file comes with its ``seq``, at most the highest of its inputs: what was committed later
    goes on hiding it. Rows less keys, and their hashes, are the same before and after, or the
    commit is refused. ``journaled``: version entries up to it are among the events now; 0 for as
    before.
    """

    dataset_id: str
    keys: tuple[str, ...]
    files: tuple[DataFile, ...]
    operation: str = "compact"
    journaled: int = 0


@dataclass(frozen=True, slots=True)
class SetSchema:
    """``source``, ``workspace`` and ``reason`` as in ``AddFiles``."""

    dataset_id: str
    schema: Schema
    fingerprint: str
    source: str = ""
    workspace: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SetCard:
    dataset_id: str
    card: Card


@dataclass(frozen=True, slots=True)
class SetPrimaryKey:
    """``source``, ``workspace`` and ``reason`` as in ``AddFiles``."""

    dataset_id: str
    columns: tuple[str, ...]
    source: str = ""
    workspace: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RenameDataset:
    dataset_id: str
    name: str


@dataclass(frozen=True, slots=True)
class DropDataset:
    dataset_id: str


@dataclass(frozen=True, slots=True)
class RestoreDataset:
    """Bring a dropped dataset back, under ``name`` if given (its own may be taken)."""

    dataset_id: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class PurgeDataset:
    dataset_id: str


@dataclass(frozen=True, slots=True)
class QuarantineDataset:
    """Hide a dataset whose manifest or objects are damaged; ``reason`` "" lifts it."""

    dataset_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class PutDocument:
    """A small JSON document (token, profile, tool, ...) by kind and id; ``body`` is JSON text."""

    kind: str
    id: str
    body: str


@dataclass(frozen=True, slots=True)
class DeleteDocument:
    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class OpenSession:
    session_id: str
    writer: str
    role: str


@dataclass(frozen=True, slots=True)
class CloseSession:
    session_id: str


@dataclass(frozen=True, slots=True)
class Condemn:
    """Give up ``keys`` and every version below ``horizon`` for good; deletion follows later."""

    horizon: int
    keys: tuple[str, ...]


Change = (
    CreateDataset
    | AddFiles
    | RemoveFiles
    | SetSchema
    | SetCard
    | SetPrimaryKey
    | RenameDataset
    | DropDataset
    | RestoreDataset
    | PurgeDataset
    | QuarantineDataset
    | PutDocument
    | DeleteDocument
    | OpenSession
    | CloseSession
    | Condemn
    | RewriteFiles
)


@dataclass(frozen=True, slots=True)
class NameFree:
    """No live dataset has this name (compared by ``refs.name_key``)."""

    name: str


@dataclass(frozen=True, slots=True)
class DatasetAt:
    """The dataset lives and its last change is ``version``."""

    dataset_id: str
    version: int


@dataclass(frozen=True, slots=True)
class SchemaIs:
    """The dataset lives and still has this fingerprint."""

    dataset_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class InputsLive:
    """These objects are still live files of the dataset."""

    dataset_id: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DigestAbsent:
    """No live rows of the dataset came from this content; ``conflict`` otherwise."""

    dataset_id: str
    content_digest: str


@dataclass(frozen=True, slots=True)
class DocumentAt:
    """The document's last change is ``version``; 0 means it is not there."""

    kind: str
    id: str
    version: int


@dataclass(frozen=True, slots=True)
class RowsAt:
    """The dataset lives and the last change to its rows is ``version``; a rewrite is none."""

    dataset_id: str
    version: int


Requirement = NameFree | DatasetAt | SchemaIs | InputsLive | DigestAbsent | DocumentAt | RowsAt
