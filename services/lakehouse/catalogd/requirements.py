"""What a commit requires of the state it meets. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from lakehouse.catalogd.present import conflicting, living
from lakehouse.catalogd.state import CatalogState
from lakehouse.model import changes as change_types
from lakehouse.model.changes import Requirement
from lakehouse.model.refs import name_key

__all__ = ["check_requirements"]


def _name_free(state: CatalogState, need: change_types.NameFree) -> None:
    holder = state.names.holder(name_key(need.name))
    if holder:
        raise conflicting("the name is taken", name=need.name, dataset_id=holder)


def _dataset_at(state: CatalogState, need: change_types.DatasetAt) -> None:
    at = living(state, need.dataset_id).base.now.version
    if at != need.version:
        raise conflicting(
            "the dataset changed meanwhile",
            dataset_id=need.dataset_id,
            expected_version=need.version,
            version=at,
            hint="read it again and decide anew",
        )


def _schema_is(state: CatalogState, need: change_types.SchemaIs) -> None:
    held = living(state, need.dataset_id).head.fingerprint
    if held != need.fingerprint:
        raise conflicting(
            "the schema changed meanwhile",
            dataset_id=need.dataset_id,
            expected_fingerprint=need.fingerprint,
            fingerprint=held,
        )


def _inputs_live(state: CatalogState, need: change_types.InputsLive) -> None:
    log = living(state, need.dataset_id).log
    there = log.living_files(need.keys)
    gone = [key for key in need.keys if key not in there]
    if gone:
        raise conflicting(
            "an input is no longer live",
            dataset_id=need.dataset_id,
            key=gone[0],
            gone=len(gone),
        )


def _digest_absent(state: CatalogState, need: change_types.DigestAbsent) -> None:
    version = living(state, need.dataset_id).base.digests.get(need.content_digest)
    if version is not None:
        raise conflicting(
            "the same content is already there",
            dataset_id=need.dataset_id,
            content_digest=need.content_digest,
            version=version,
        )


def _rows_at(state: CatalogState, need: change_types.RowsAt) -> None:
    at = living(state, need.dataset_id).base.now.marks.rows_version
    if at != need.version:
        raise conflicting(
            "the rows changed meanwhile",
            dataset_id=need.dataset_id,
            expected_version=need.version,
            version=at,
            hint="read them again and decide anew",
        )


def _document_at(state: CatalogState, need: change_types.DocumentAt) -> None:
    kind = state.documents.get(need.kind)
    document = None if kind is None else kind.get(need.id)
    at = 0 if document is None else document.version
    if at != need.version:
        raise conflicting(
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
    change_types.RowsAt: _rows_at,
}


def check_requirements(state: CatalogState, requirements: Iterable[Requirement]) -> None:
    """Raise ``conflict`` for the first requirement that does not hold."""
    for need in requirements:
        _REQUIREMENTS[type(need)](state, need)
