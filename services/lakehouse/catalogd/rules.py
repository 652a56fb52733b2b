"""Why a commit is refused: requirements, and what each change asks of the state it meets.

Pure: a change is checked against the draft of those before it. Refusals carry the values that
were met, so that a caller can tell a race (``conflict``) from a mistake (``invalid``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from lakehouse.catalogd.bounds import check_card, check_file, check_ids, check_sums, check_texts
from lakehouse.catalogd.draft import Draft, Work
from lakehouse.catalogd.internal import Forget, GiveUp, ImportDataset, StoredChange
from lakehouse.catalogd.residing import (
    check_bucket_document,
    check_home,
    check_members,
    check_unused,
)
from lakehouse.catalogd.state import CatalogState
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.sessions import may_add
from lakehouse.model import changes as change_types
from lakehouse.model.buckets import BUCKET_DOCUMENTS
from lakehouse.model.changes import Requirement
from lakehouse.model.dataset import DataFile, DatasetStatus, objects_of, rows_key, stats_key
from lakehouse.model.refs import check_foreign_key, check_key, check_name, name_key
from lakehouse.model.schema import Column, Schema
from lakehouse.table.fingerprint import fingerprint
from lakehouse.table.types import to_arrow

__all__ = ["CHANGES_MAX", "check_change", "check_columns", "check_requirements", "drafted"]

CHANGES_MAX: Final = 10_000
_FILES_MAX: Final = 100_000
_DOCUMENT_BYTES_MAX: Final = 1 << 20
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def _invalid(message: str, **fields: Any) -> LakehouseError:
    return LakehouseError(ErrorKind.INVALID, message, **fields)


def _conflict(message: str, **fields: Any) -> LakehouseError:
    return LakehouseError(ErrorKind.CONFLICT, message, **fields)


# -- requirements


def _living(state: CatalogState, dataset_id: str) -> Work:
    """The dataset, if it lives; for requirements, a dropped one is a lost race."""
    work = Draft(state, 0, 0).work(dataset_id)
    if work is None or work.head.status is DatasetStatus.DROPPED:
        raise _conflict("the dataset is no longer there", dataset_id=dataset_id)
    return work


def _name_free(state: CatalogState, need: change_types.NameFree) -> None:
    holder = state.names.holder(name_key(need.name))
    if holder:
        raise _conflict("the name is taken", name=need.name, dataset_id=holder)


def _dataset_at(state: CatalogState, need: change_types.DatasetAt) -> None:
    at = _living(state, need.dataset_id).base.now.version
    if at != need.version:
        raise _conflict(
            "the dataset changed meanwhile",
            dataset_id=need.dataset_id,
            expected_version=need.version,
            version=at,
            hint="read it again and decide anew",
        )


def _schema_is(state: CatalogState, need: change_types.SchemaIs) -> None:
    held = _living(state, need.dataset_id).head.fingerprint
    if held != need.fingerprint:
        raise _conflict(
            "the schema changed meanwhile",
            dataset_id=need.dataset_id,
            expected_fingerprint=need.fingerprint,
            fingerprint=held,
        )


def _inputs_live(state: CatalogState, need: change_types.InputsLive) -> None:
    log = _living(state, need.dataset_id).log
    gone = [key for key in need.keys if log.find(key) is None]
    if gone:
        raise _conflict(
            "an input is no longer live",
            dataset_id=need.dataset_id,
            key=gone[0],
            gone=len(gone),
        )


def _digest_absent(state: CatalogState, need: change_types.DigestAbsent) -> None:
    version = _living(state, need.dataset_id).base.digests.get(need.content_digest)
    if version is not None:
        raise _conflict(
            "the same content is already there",
            dataset_id=need.dataset_id,
            content_digest=need.content_digest,
            version=version,
        )


def _document_at(state: CatalogState, need: change_types.DocumentAt) -> None:
    kind = state.documents.get(need.kind)
    document = None if kind is None else kind.get(need.id)
    at = 0 if document is None else document.version
    if at != need.version:
        raise _conflict(
            "the document changed meanwhile",
            document_kind=need.kind,
            id=need.id,
            expected_version=need.version,
            version=at,
        )


_REQUIREMENTS: Final[dict[type, Callable[[CatalogState, Any], None]]] = {
    change_types.NameFree: _name_free,
    change_types.DatasetAt: _dataset_at,
    change_types.SchemaIs: _schema_is,
    change_types.InputsLive: _inputs_live,
    change_types.DigestAbsent: _digest_absent,
    change_types.DocumentAt: _document_at,
}


def check_requirements(state: CatalogState, requirements: Iterable[Requirement]) -> None:
    """Raise ``conflict`` for the first requirement that does not hold."""
    for need in requirements:
        _REQUIREMENTS[type(need)](state, need)


# -- changes


def check_columns(columns: Sequence[Column]) -> str:
    """The fingerprint of ``columns``; raises ``invalid`` unless they make a schema."""
    ids = {column.id for column in columns}
    if not columns or len(ids) != len(columns) or min(ids) < 1:
        raise _invalid(
            "a schema needs columns with distinct ids from 1", columns=len(columns), ids=len(ids)
        )
    check_ids(list(columns))
    for column in columns:
        if not column.name:
            raise _invalid("a column needs a name", id=column.id)
        to_arrow(column.type)
    return fingerprint(columns)


def _check_schema(schema: Schema, stated: str) -> None:
    computed = check_columns(schema.columns)
    if stated != computed:
        raise _invalid(
            "the fingerprint is not that of the schema", fingerprint=stated, computed=computed
        )


def _check_primary_key(columns: tuple[str, ...], schema: Schema) -> None:
    missing = [name for name in columns if name not in schema.names()]
    if missing or len(set(columns)) != len(columns):
        raise _invalid(
            "the primary key names a column twice or one that is not there",
            primary_key=list(columns),
            columns=list(schema.names())[:100],
        )


def _known(draft: Draft, dataset_id: str) -> Work:
    work = draft.work(dataset_id)
    if work is None:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "there is no dataset with this id",
            dataset_id=dataset_id,
            hint="it was purged, or the handle is of another store",
        )
    return work


def _alive(draft: Draft, dataset_id: str) -> Work:
    """The dataset, if it lives: a handle of before a drop is stale, whoever has the name now."""
    work = _known(draft, dataset_id)
    if work.head.status is DatasetStatus.DROPPED:
        raise _conflict(
            "the dataset was dropped",
            dataset_id=dataset_id,
            name=work.head.name,
            hint="restore it, or look its name up again",
        )
    return work


def _free_name(draft: Draft, name: str, dataset_id: str) -> None:
    if check_name(name) != name:
        raise _invalid("a name must be in its display form", name=name, display=check_name(name))
    holder = draft.state.names.holder(name_key(name))
    if holder and holder != dataset_id:
        raise LakehouseError(
            ErrorKind.ALREADY_EXISTS,
            "a dataset with this name is there",
            name=name,
            dataset_id=holder,
            hint="names are compared without case and in Unicode NFC",
        )


def _create(draft: Draft, change: change_types.CreateDataset, *, imported: bool = False) -> None:
    if not _ID.fullmatch(change.dataset_id):
        raise _invalid("a dataset id has letters, digits, - and _", dataset_id=change.dataset_id)
    state = draft.state
    if change.dataset_id in state.datasets or change.dataset_id in state.broken:
        raise LakehouseError(
            ErrorKind.ALREADY_EXISTS,
            "a dataset with this id is there",
            dataset_id=change.dataset_id,
        )
    if imported:
        check_name(change.name)
    else:
        _free_name(draft, change.name, change.dataset_id)
    if change.schema.id != 1:
        raise _invalid("the first schema of a dataset has the id 1", id=change.schema.id)
    if not imported or change.schema.columns:
        _check_schema(change.schema, change.fingerprint)
    _check_primary_key(change.primary_key, change.schema)
    check_texts(bucket=change.bucket, fingerprint=change.fingerprint)
    check_card(change.card)
    check_home(draft, change)


def _check_file(draft: Draft, work: Work, file: DataFile) -> None:
    check_key(file.key)
    if not _SHA256.fullmatch(file.sha256) or file.size_bytes < 0 or file.rows < 0:
        raise _invalid("a file needs its size, rows and sha256", key=file.key)
    check_file(file)
    if not 1 <= file.schema_id <= len(work.base.schemas):
        raise _invalid(
            "a file has a schema id that the dataset does not have",
            key=file.key,
            schema_id=file.schema_id,
            schemas=len(work.base.schemas),
        )
    parts = file.key.split("/")
    ours = len(parts) == 4 and parts[0] == "datasets"
    beside = file.stats_sha256
    sound = not file.external and rows_key(stats_key(file.key)) == file.key
    if beside and not (sound and _SHA256.fullmatch(beside)):
        raise _invalid("only objects of ours have statistics beside them", key=file.key)
    if file.external:
        check_foreign_key(file.key)
        return
    if not ours or rows_key(file.key) != file.key:
        raise _invalid(
            "an object of ours is at datasets/<session>/<dataset>/<file>.parquet",
            key=file.key,
            hint="a foreign object is added with external set",
        )
    if file.key in draft.state.orphaned:
        raise _conflict("the object was given up", key=file.key)


def _add_files(draft: Draft, change: change_types.AddFiles) -> None:
    work = _alive(draft, change.dataset_id)
    if len(change.files) > _FILES_MAX:
        raise _invalid("too many files in one change", files=len(change.files), max=_FILES_MAX)
    check_texts(
        operation=change.operation, source=change.source, content_digest=change.content_digest
    )
    for file in change.files:
        _check_file(draft, work, file)
    check_members(draft, work, change.files)
    size, rows = sum(f.size_bytes for f in change.files), sum(f.rows for f in change.files)
    check_sums(work.log.totals.size_bytes + size, work.log.totals.rows + rows)
    check_sums(0, work.rows_added + rows)
    keys = [file.key for file in change.files]
    taken = None if change.replace else work.log.first_living(keys)
    if taken is not None or len(set(keys)) != len(keys):
        raise _conflict(
            "the object is already a file of the dataset, or named twice",
            dataset_id=change.dataset_id,
            key=taken,
        )
    ours = [key for file in change.files if not file.external for key in objects_of(file)]
    may_add(draft.state.objects, ours, draft.state.names_object)


def _remove_files(draft: Draft, change: change_types.RemoveFiles) -> None:
    work = _alive(draft, change.dataset_id)
    check_texts(operation=change.operation)
    gone = next((key for key in change.keys if work.log.find(key) is None), None)
    if gone is not None:
        raise _conflict("the file is not live", dataset_id=change.dataset_id, key=gone)


def _set_schema(draft: Draft, change: change_types.SetSchema) -> None:
    work = _alive(draft, change.dataset_id)
    schemas = work.base.schemas
    if change.schema.id != len(schemas) + 1:
        raise _conflict(
            "schema versions count up by one",
            dataset_id=change.dataset_id,
            id=change.schema.id,
            next_id=len(schemas) + 1,
        )
    _check_schema(change.schema, change.fingerprint)
    types = {column.id: column.type for schema in schemas for column in schema.columns}
    for column in change.schema.columns:
        if types.get(column.id, column.type) != column.type:
            raise _invalid(
                "a column id is never given to another type",
                id=column.id,
                column=column.name,
                type_text=column.type,
                was=types[column.id],
                hint="give the column a new id",
            )
    _check_primary_key(work.head.primary_key, change.schema)


def _set_card(draft: Draft, change: change_types.SetCard) -> None:
    _alive(draft, change.dataset_id)
    check_card(change.card)


def _set_primary_key(draft: Draft, change: change_types.SetPrimaryKey) -> None:
    work = _alive(draft, change.dataset_id)
    _check_primary_key(change.columns, work.base.schema(work.head.schema_id))


def _rename(draft: Draft, change: change_types.RenameDataset) -> None:
    _alive(draft, change.dataset_id)
    _free_name(draft, change.name, change.dataset_id)


def _drop(draft: Draft, change: change_types.DropDataset) -> None:
    _alive(draft, change.dataset_id)


def _restore(draft: Draft, change: change_types.RestoreDataset) -> None:
    work = _known(draft, change.dataset_id)
    if work.head.status is not DatasetStatus.DROPPED:
        raise _conflict("the dataset is not dropped", dataset_id=change.dataset_id)
    _free_name(draft, change.name or work.head.name, change.dataset_id)


def _purge(draft: Draft, change: change_types.PurgeDataset) -> None:
    if change.dataset_id in draft.state.broken:
        return
    work = _known(draft, change.dataset_id)
    if work.head.status is not DatasetStatus.DROPPED:
        raise _conflict("only a dropped dataset can be purged", dataset_id=change.dataset_id)


def _quarantine(draft: Draft, change: change_types.QuarantineDataset) -> None:
    _known(draft, change.dataset_id)
    check_texts(reason=change.reason)


def _put_document(draft: Draft, change: change_types.PutDocument) -> None:
    check_name(change.kind, "document kind")
    check_name(change.id, "document id")
    check_texts(_DOCUMENT_BYTES_MAX, body=change.body)
    if len(change.body.encode()) > _DOCUMENT_BYTES_MAX:
        raise _invalid("a document is at most 1 MiB", id=change.id, size=len(change.body))
    try:
        orjson.loads(change.body)
    except orjson.JSONDecodeError as error:
        raise _invalid("a document's body must be json", id=change.id, reason=str(error)) from None
    if change.kind == BUCKET_DOCUMENTS:
        check_bucket_document(draft, change)


def _delete_document(draft: Draft, change: change_types.DeleteDocument) -> None:
    kind = draft.state.documents.get(change.kind)
    if kind is None or change.id not in kind:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "there is no such document",
            document_kind=change.kind,
            id=change.id,
        )
    if change.kind == BUCKET_DOCUMENTS:
        check_unused(draft, change.id)


def _open_session(draft: Draft, change: change_types.OpenSession) -> None:
    check_texts(writer=change.writer, role=change.role)
    if not _ID.fullmatch(change.session_id) or change.session_id in draft.state.ended:
        raise _invalid("a session needs a new id", session_id=change.session_id)


def _close_session(draft: Draft, change: change_types.CloseSession) -> None:
    if change.session_id not in draft.state.objects.sessions:
        raise _conflict("the session has ended", session_id=change.session_id)


def _condemn(draft: Draft, change: change_types.Condemn | GiveUp) -> None:
    state = draft.state
    if not state.objects.horizon <= change.horizon <= state.version:
        raise _conflict("the horizon only rises", horizon=change.horizon, now=state.objects.horizon)


def _forget(draft: Draft, change: Forget) -> None:
    alive = [each for each in change.sessions if each in draft.state.objects.sessions]
    if alive:
        raise _conflict("the session lives", session_id=alive[0])


def _import(draft: Draft, change: ImportDataset) -> None:
    _create(draft, change.create, imported=True)


_CHANGES: Final[dict[type, Callable[[Draft, Any], None]]] = {
    change_types.CreateDataset: _create,
    change_types.AddFiles: _add_files,
    change_types.RemoveFiles: _remove_files,
    change_types.SetSchema: _set_schema,
    change_types.SetCard: _set_card,
    change_types.SetPrimaryKey: _set_primary_key,
    change_types.RenameDataset: _rename,
    change_types.DropDataset: _drop,
    change_types.RestoreDataset: _restore,
    change_types.PurgeDataset: _purge,
    change_types.QuarantineDataset: _quarantine,
    change_types.PutDocument: _put_document,
    change_types.DeleteDocument: _delete_document,
    change_types.OpenSession: _open_session,
    change_types.CloseSession: _close_session,
    change_types.Condemn: _condemn,
    ImportDataset: _import,
    GiveUp: _condemn,
    Forget: _forget,
}


def check_change(draft: Draft, change: StoredChange) -> None:
    """Raise unless ``change`` may follow what ``draft`` holds."""
    _CHANGES[type(change)](draft, change)


def drafted(
    state: CatalogState,
    version: int,
    changes: Sequence[StoredChange],
    configured: Mapping[str, str] | None = None,
) -> Draft:
    """The draft of ``changes``, each checked against those before it; ``configured`` as in
    ``Draft``."""
    draft = Draft(state, version, 0)
    draft.configured = configured
    for change in changes:
        check_change(draft, change)
        draft.apply(change)
    return draft
