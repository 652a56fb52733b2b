"""One row at a time of a checkpoint: manifests, revisions, and the small things of the state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
import pyarrow as pa
from immutables import Map

from lakehouse.catalogd.codec import decode, encode
from lakehouse.catalogd.files import FileLog, Totals
from lakehouse.catalogd.persistent import Vector
from lakehouse.catalogd.state import (
    CatalogState,
    DatasetState,
    DocumentState,
    Head,
    Marks,
    Names,
    Revision,
    first_untold,
)
from lakehouse.catalogd.structures import of_documents
from lakehouse.catalogd.tagging import TAG_DOCUMENTS, pinned
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_datetime, to_micros
from lakehouse.ledger.machine import Entry, JsonObject
from lakehouse.model.dataset import VersionEntry
from lakehouse.model.schema import Schema
from lakehouse.model.vectors import INDEX_DOCUMENTS

__all__ = [
    "REVISION_SCHEMA",
    "STATE_KINDS",
    "conform_revisions",
    "decode_dataset",
    "decode_pending",
    "decode_state",
    "encode_dataset",
    "encode_revisions",
    "encode_state",
]

REVISION_SCHEMA: Final = pa.schema(
    [
        ("version", pa.int64()),
        ("at_us", pa.int64()),
        ("operation", pa.string()),
        ("actor", pa.string()),
        ("request_id", pa.string()),
        ("rows_added", pa.int64()),
        ("rows_removed", pa.int64()),
        ("files_added", pa.int64()),
        ("files_removed", pa.int64()),
        ("row_count", pa.int64()),
        ("schema_id", pa.int32()),
        ("content_digest", pa.string()),
        ("source", pa.string()),
        ("head", pa.int32()),
        ("files", pa.int64()),
        ("size_bytes", pa.int64()),
        ("rows", pa.int64()),
        ("updated_us", pa.int64()),
        ("workspace", pa.string()),
        ("reason", pa.string()),
        ("key_files", pa.int64()),
        ("event_files", pa.int64()),
        ("rows_version", pa.int64()),
        ("history_since", pa.int64()),
        ("journaled", pa.int64()),
        ("told", pa.bool_()),
    ]
)
"""One row a revision; ``head`` is its place in the manifest's ``heads``. ``rows_version`` is null
where the revision was written before there were ``Marks``: they follow from the rest."""

# Of columns that came later, what their absence means.
_ABSENT: Final = {
    "workspace": "",
    "reason": "",
    "key_files": 0,
    "event_files": 0,
    "rows_version": None,
    "history_since": 0,
    "journaled": 0,
    "told": False,
}
_ENTRY: Final = slice(2, 13)
_HEAD: Final = 13
_TOTALS: Final = slice(14, 17)
_UPDATED: Final = 17
_WHY: Final = slice(18, 20)
_CONTENTS: Final = slice(20, 22)
_MARKS: Final = slice(22, 25)
_TOLD: Final = 25

STATE_KINDS: Final = frozenset(
    {"meta", "name", "document", "ended", "adopted", "orphaned", "elsewhere", "pending"}
)
"""Kinds of rows that ``encode_state`` writes."""


@dataclass(frozen=True, slots=True)
class _Manifest:
    """A dataset's row: all of it but revisions and files."""

    bucket: str
    created_us: int
    schemas: tuple[Schema, ...]
    heads: tuple[Head, ...]
    totals: Totals
    next_ordinal: int
    start: int = 0
    rows_known: bool = True
    residency: str = ""


def _heads(history: Iterable[Revision]) -> tuple[list[Head], list[int]]:
    """The distinct heads in order, and for each revision the place of its own."""
    heads: list[Head] = []
    places: list[int] = []
    for revision in history:
        if not heads or (heads[-1] is not revision.head and heads[-1] != revision.head):
            heads.append(revision.head)
        places.append(len(heads) - 1)
    return heads, places


def encode_dataset(dataset: DatasetState) -> JsonObject:
    """The manifest of a dataset as a JSON object."""
    manifest = _Manifest(
        bucket=dataset.bucket,
        created_us=to_micros(dataset.created_at),
        schemas=dataset.schemas,
        heads=tuple(_heads(dataset.history)[0]),
        totals=dataset.log.totals,
        next_ordinal=dataset.log.next_ordinal,
        start=dataset.history.start,
        rows_known=dataset.rows_known,
        residency=dataset.residency,
    )
    return {
        **encode(manifest),
        "clears": [list(clear) for clear in dataset.log.clears],
        "digests": dict(dataset.digests),
    }


def encode_revisions(rows: Sequence[tuple[str, pa.Table | DatasetState]]) -> pa.Table:
    """The revisions of several datasets, with a first column ``dataset_id``."""
    tables: list[pa.Table] = []
    values: list[tuple[Any, ...]] = []
    owners: list[str] = []

    def flush() -> None:
        if values:
            columns = zip(*values, strict=True)
            arrays = [
                pa.array(column, field.type)
                for column, field in zip(columns, REVISION_SCHEMA, strict=True)
            ]
            tables.append(pa.Table.from_arrays(arrays, schema=REVISION_SCHEMA))
            values.clear()

    for dataset_id, item in rows:
        if isinstance(item, DatasetState):
            values.extend(_revision_rows(item))
            owners.extend([dataset_id] * len(item.history))
        else:
            flush()
            tables.append(item)
            owners.extend([dataset_id] * len(item))
    flush()
    table = pa.concat_tables(tables).combine_chunks() if tables else REVISION_SCHEMA.empty_table()
    return table.add_column(0, "dataset_id", pa.array(owners, pa.string()))


def _revision_rows(dataset: DatasetState) -> Iterator[tuple[Any, ...]]:
    _, places = _heads(dataset.history)
    for revision, head in zip(dataset.history, places, strict=True):
        entry, totals = revision.entry, revision.totals
        yield (
            entry.version,
            to_micros(entry.at),
            entry.operation,
            entry.actor,
            entry.request_id,
            entry.rows_added,
            entry.rows_removed,
            entry.files_added,
            entry.files_removed,
            entry.row_count,
            entry.schema_id,
            entry.content_digest,
            entry.source,
            head,
            totals.files,
            totals.size_bytes,
            totals.rows,
            to_micros(revision.updated_at),
            entry.workspace,
            entry.reason,
            totals.key_files,
            totals.event_files,
            *_values(revision.marks),
            revision.told,
        )


def _values(marks: Marks) -> tuple[int, int, int]:
    return marks.rows_version, marks.history_since, marks.journaled


def conform_revisions(table: pa.Table) -> pa.Table:
    """``table`` of any version, a part of a checkpoint, with the columns of ``REVISION_SCHEMA``
    behind its ``dataset_id``; unknown ones are left out."""
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.repeat(pa.scalar(_ABSENT[field.name], field.type), table.num_rows)
        for field in REVISION_SCHEMA
    ]
    found = pa.Table.from_arrays(columns, schema=REVISION_SCHEMA)
    return found.add_column(0, "dataset_id", table.column("dataset_id"))


def _marks(row: tuple[Any, ...], head: Head, before: Revision | None) -> Marks:
    """The marks of a revision; of one that was written without, what they would have been."""
    last = Marks() if before is None else before.marks
    marks = Marks(*row[_MARKS])
    if row[_MARKS.start] is None:
        version, moved = row[0], before is None or bool(row[7] or row[8])
        key = () if before is None else before.head.primary_key
        fresh = moved or head.primary_key != key
        since = version if fresh else last.history_since
        rows_version = version if moved else last.rows_version
        marks = Marks(rows_version, since if head.primary_key else 0, last.journaled)
    return last if marks == last else marks


def decode_dataset(
    dataset_id: str,
    body: JsonObject,
    revisions: Sequence[tuple[Any, ...]],
    files: tuple[pa.Table | None, frozenset[str]],
    removed: Map[int, int],
) -> DatasetState:
    """A dataset from its manifest and its rows of ``REVISION_SCHEMA``; ``files`` with the buckets
    they are in but for the primary one. Raises if they are not what was written."""
    manifest = decode(_Manifest, body)
    history: list[Revision] = []
    for row in revisions:
        at, head, updated = to_datetime(row[1]), manifest.heads[row[_HEAD]], row[_UPDATED]
        entry = VersionEntry(row[0], at, *row[_ENTRY], *row[_WHY])
        updated_at = at if updated == row[1] else to_datetime(updated)
        totals = Totals(*row[_TOTALS], *row[_CONTENTS])
        marks = _marks(row, head, history[-1] if history else None)
        history.append(Revision(head, entry, totals, updated_at, marks, row[_TOLD]))
    if not history or not 1 <= history[-1].head.schema_id <= len(manifest.schemas):
        raise LakehouseError(ErrorKind.CORRUPT, "a manifest contradicts itself", id=dataset_id)
    clears = tuple((int(version), int(bound)) for version, bound in body.get("clears", ()))
    kept = Vector.of(history, manifest.start)
    log = FileLog.of(files[0], removed, clears, manifest.next_ordinal, manifest.totals)
    return DatasetState(
        id=dataset_id,
        bucket=manifest.bucket,
        created_at=to_datetime(manifest.created_us),
        schemas=manifest.schemas,
        log=replace(log, elsewhere=files[1]) if files[1] else log,
        history=kept,
        rows_known=manifest.rows_known,
        digests=Map(body.get("digests", {})),
        residency=manifest.residency,
        untold=first_untold(kept, history[-1].marks.journaled),
    )


def _told(entry: Entry) -> JsonObject:
    return {
        "seq": entry.seq,
        "ts": entry.ts_us,
        "changes": list(entry.changes),
        "actor": entry.actor,
        "request_id": entry.request_id,
    }


def decode_pending(rows: Iterable[tuple[str, str, bytes]]) -> dict[str, tuple[Entry, ...]]:
    """The commits kept with each manifest that could not be read, by dataset id."""
    return {
        key: tuple(
            Entry(
                seq=each["seq"],
                ts_us=each["ts"],
                changes=tuple(each["changes"]),
                actor=each["actor"],
                request_id=each["request_id"],
            )
            for each in orjson.loads(value)
        )
        for kind, key, value in rows
        if kind == "pending"
    }


def encode_state(state: CatalogState, version: int) -> Iterator[tuple[str, str, bytes]]:
    """Everything small as (kind, key, JSON), sorted; ``version`` is that of the format."""
    meta = {
        "format": version,
        "version": state.version,
        "times_start": state.times.start,
        "dirty": dict(sorted(state.dirty.items())),
    }
    yield "meta", "", orjson.dumps(meta)
    for name, holders in sorted(state.names.holders.items()):
        yield "name", name, orjson.dumps(holders)
    for kind, documents in sorted(state.documents.items()):
        for document_id, document in sorted(documents.items()):
            key = orjson.dumps([kind, document_id]).decode()
            yield "document", key, orjson.dumps([document.version, document.body])
    for session_id, version_ended in sorted(state.ended.items()):
        yield "ended", session_id, orjson.dumps(version_ended)
    for key, ids in sorted(state.adopted.items()):
        yield "adopted", key, orjson.dumps(ids)
    for key, bucket in sorted(state.orphaned.items()):
        yield "orphaned", key, orjson.dumps(bucket)
    for dataset_id, broken in sorted(state.broken.items()):
        if broken.pending:
            yield "pending", dataset_id, orjson.dumps([_told(each) for each in broken.pending])
    for key, bucket in sorted(state.elsewhere.items()):
        yield "elsewhere", key, orjson.dumps(bucket)


def decode_state(rows: Sequence[tuple[str, str, bytes]], newest: int) -> tuple[CatalogState, int]:
    """The state without times and datasets, and the version of the first time."""
    found: dict[str, dict[str, Any]] = {}
    for kind, key, value in rows:
        found.setdefault(kind, {})[key] = orjson.loads(value)
    meta = found.get("meta", {}).get("")
    if meta is None or meta["format"] > newest:
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "the checkpoint has a format that this version does not read",
            format=None if meta is None else meta["format"],
            newest=newest,
            hint="a newer version wrote it; upgrade this node",
        )
    documents: dict[str, dict[str, DocumentState]] = {}
    for key, (version, body) in found.get("document", {}).items():
        kind, document_id = orjson.loads(key)
        documents.setdefault(kind, {})[document_id] = DocumentState(body, version)
    holders = {
        name: tuple((since, dataset_id) for since, dataset_id in past)
        for name, past in found.get("name", {}).items()
    }
    state = CatalogState(
        version=meta["version"],
        names=Names(holders=Map(holders)),
        documents=Map({kind: Map(each) for kind, each in documents.items()}),
        ended=Map(found.get("ended", {})),
        adopted=Map({key: tuple(ids) for key, ids in found.get("adopted", {}).items()}),
        orphaned=Map(found.get("orphaned", {})),
        dirty=Map(meta["dirty"]),
        elsewhere=Map(found.get("elsewhere", {})),
        pins=pinned(each.body for each in documents.get(TAG_DOCUMENTS, {}).values()),
        structures=of_documents(each.body for each in documents.get(INDEX_DOCUMENTS, {}).values()),
    )
    return state, meta["times_start"]
