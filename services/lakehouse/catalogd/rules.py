"""Why a commit is refused: what each change asks of the state it meets.

Pure: a change is checked against the draft of those before it. Refusals carry the values that
were met, so that a caller can tell a race (``conflict``) from a mistake (``invalid``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from lakehouse.catalogd.bounds import check_card, check_ids, check_texts
from lakehouse.catalogd.draft import Draft
from lakehouse.catalogd.filerules import check_add, check_remove, check_replacement
from lakehouse.catalogd.internal import Forget, GiveUp, ImportDataset, StoredChange
from lakehouse.catalogd.present import alive, conflicting, invalid, known
from lakehouse.catalogd.residing import check_bucket_document, check_home, check_unused
from lakehouse.catalogd.state import CatalogState
from lakehouse.catalogd.structurerules import check_index_document
from lakehouse.catalogd.tagging import kept_at
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model import changes as change_types
from lakehouse.model.buckets import BUCKET_DOCUMENTS
from lakehouse.model.dataset import DatasetStatus
from lakehouse.model.refs import check_name, name_key
from lakehouse.model.schema import Column, Schema
from lakehouse.model.vectors import INDEX_DOCUMENTS
from lakehouse.table.fingerprint import fingerprint
from lakehouse.table.keys import check_key_columns
from lakehouse.table.types import to_arrow
from lakehouse.table.widening import may_widen

__all__ = ["CHANGES_MAX", "check_change", "check_columns", "drafted"]

CHANGES_MAX: Final = 10_000
_DOCUMENT_BYTES_MAX: Final = 1 << 20
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def check_columns(columns: Sequence[Column]) -> str:
    """The fingerprint of ``columns``; raises ``invalid`` unless they make a schema."""
    ids = {column.id for column in columns}
    if not columns or len(ids) != len(columns) or min(ids) < 1:
        raise invalid(
            "a schema needs columns with distinct ids from 1", columns=len(columns), ids=len(ids)
        )
    check_ids(list(columns))
    for column in columns:
        if not column.name:
            raise invalid("a column needs a name", id=column.id)
        to_arrow(column.type)
    return fingerprint(columns)


def _check_schema(schema: Schema, stated: str) -> None:
    computed = check_columns(schema.columns)
    if stated != computed:
        raise invalid(
            "the fingerprint is not that of the schema", fingerprint=stated, computed=computed
        )


def _check_primary_key(columns: tuple[str, ...], schema: Schema) -> None:
    missing = [name for name in columns if name not in schema.names()]
    if missing or len(set(columns)) != len(columns):
        raise invalid(
            "the primary key names a column twice or one that is not there",
            primary_key=list(columns),
            columns=list(schema.names())[:100],
        )


def _check_new_key(columns: tuple[str, ...], schema: Schema) -> None:
    """As above, and of types that rows can be told apart by; what was declared before this was
    asked stays as it is until its first row change."""
    _check_primary_key(columns, schema)
    if columns:
        check_key_columns(schema, columns)


def _free_name(draft: Draft, name: str, dataset_id: str) -> None:
    if check_name(name) != name:
        raise invalid("a name must be in its display form", name=name, display=check_name(name))
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
        raise invalid("a dataset id has letters, digits, - and _", dataset_id=change.dataset_id)
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
        raise invalid("the first schema of a dataset has the id 1", id=change.schema.id)
    if not imported or change.schema.columns:
        _check_schema(change.schema, change.fingerprint)
    _check_new_key(change.primary_key, change.schema)
    check_texts(bucket=change.bucket, fingerprint=change.fingerprint)
    check_card(change.card)
    check_home(draft, change)


def _set_schema(draft: Draft, change: change_types.SetSchema) -> None:
    work = alive(draft, change.dataset_id)
    check_texts(source=change.source, workspace=change.workspace, reason=change.reason)
    schemas = work.base.schemas
    if change.schema.id != len(schemas) + 1:
        raise conflicting(
            "schema versions count up by one",
            dataset_id=change.dataset_id,
            id=change.schema.id,
            next_id=len(schemas) + 1,
        )
    _check_schema(change.schema, change.fingerprint)
    types = {column.id: column.type for schema in schemas for column in schema.columns}
    for column in change.schema.columns:
        before = types.get(column.id, column.type)
        if before != column.type and not may_widen(before, column.type):
            raise invalid(
                "a column id is never given to another type, unless it is a wider one",
                id=column.id,
                column=column.name,
                type_text=column.type,
                was=types[column.id],
                hint="give the column a new id",
            )
    _check_primary_key(work.head.primary_key, change.schema)


def _set_card(draft: Draft, change: change_types.SetCard) -> None:
    alive(draft, change.dataset_id)
    check_card(change.card)


def _set_primary_key(draft: Draft, change: change_types.SetPrimaryKey) -> None:
    work = alive(draft, change.dataset_id)
    check_texts(source=change.source, workspace=change.workspace, reason=change.reason)
    _check_new_key(change.columns, work.base.schema(work.head.schema_id))
    totals = work.log.totals
    if change.columns != work.head.primary_key and totals.key_files:
        raise conflicting(
            "rows are hidden by the primary key that stands",
            dataset=work.head.name,
            primary_key=list(work.head.primary_key),
            key_files=totals.key_files,
            hint="compact the dataset in full first",
        )


def _rename(draft: Draft, change: change_types.RenameDataset) -> None:
    alive(draft, change.dataset_id)
    _free_name(draft, change.name, change.dataset_id)


def _drop(draft: Draft, change: change_types.DropDataset) -> None:
    alive(draft, change.dataset_id)


def _restore(draft: Draft, change: change_types.RestoreDataset) -> None:
    work = known(draft, change.dataset_id)
    if work.head.status is not DatasetStatus.DROPPED:
        raise conflicting("the dataset is not dropped", dataset_id=change.dataset_id)
    _free_name(draft, change.name or work.head.name, change.dataset_id)


def _purge(draft: Draft, change: change_types.PurgeDataset) -> None:
    if change.dataset_id in draft.state.broken:
        return
    work = known(draft, change.dataset_id)
    if work.head.status is not DatasetStatus.DROPPED:
        raise conflicting("only a dropped dataset can be purged", dataset_id=change.dataset_id)
    kept = kept_at(draft.state, change.dataset_id)
    if kept is not None:
        raise conflicting(
            "a tag keeps the dataset",
            dataset=work.head.name,
            version=kept,
            hint="remove the tags of this version first",
        )


def _quarantine(draft: Draft, change: change_types.QuarantineDataset) -> None:
    known(draft, change.dataset_id)
    check_texts(reason=change.reason)


def _put_document(draft: Draft, change: change_types.PutDocument) -> None:
    check_name(change.kind, "document kind")
    check_name(change.id, "document id")
    check_texts(_DOCUMENT_BYTES_MAX, body=change.body)
    if len(change.body.encode()) > _DOCUMENT_BYTES_MAX:
        raise invalid("a document is at most 1 MiB", id=change.id, size=len(change.body))
    try:
        orjson.loads(change.body)
    except orjson.JSONDecodeError as error:
        raise invalid("a document's body must be json", id=change.id, reason=str(error)) from None
    if change.kind == BUCKET_DOCUMENTS:
        check_bucket_document(draft, change)
    elif change.kind == INDEX_DOCUMENTS:
        check_index_document(draft, change)


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
        raise invalid("a session needs a new id", session_id=change.session_id)


def _close_session(draft: Draft, change: change_types.CloseSession) -> None:
    if change.session_id not in draft.state.objects.sessions:
        raise conflicting("the session has ended", session_id=change.session_id)


def _condemn(draft: Draft, change: change_types.Condemn | GiveUp) -> None:
    state = draft.state
    if not state.objects.horizon <= change.horizon <= state.version:
        raise conflicting(
            "the horizon only rises", horizon=change.horizon, now=state.objects.horizon
        )


def _forget(draft: Draft, change: Forget) -> None:
    alive = [each for each in change.sessions if each in draft.state.objects.sessions]
    if alive:
        raise conflicting("the session lives", session_id=alive[0])


def _import(draft: Draft, change: ImportDataset) -> None:
    _create(draft, change.create, imported=True)


_CHANGES: Final[dict[type, Callable[[Draft, Any], None]]] = {
    change_types.CreateDataset: _create,
    change_types.AddFiles: check_add,
    change_types.RemoveFiles: check_remove,
    change_types.RewriteFiles: check_replacement,
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
    draft.keyed = frozenset(
        each.dataset_id
        for each in changes
        if isinstance(each, change_types.SetPrimaryKey) and each.columns
    )
    for change in changes:
        check_change(draft, change)
        draft.apply(change)
    return draft
