"""In which bucket a dataset's objects may be: the rules of homes and residency. Pure.

What a bucket is called now comes from the configuration of this node or, for one that was added at
run time, from its document, which is part of the same state; what a dataset was made with is its
own. So of two commits that race for a bucket the second always sees the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson
from immutables import Map

from lakehouse.catalogd.draft import Draft
from lakehouse.catalogd.state import CatalogState
from lakehouse.catalogd.work import Work
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.buckets import BUCKET_DOCUMENTS, check_bucket_name
from lakehouse.model.changes import CreateDataset, PutDocument
from lakehouse.model.dataset import DataFile
from lakehouse.model.residency import check_label, check_member, check_place

__all__ = [
    "added_residency",
    "check_bucket_document",
    "check_home",
    "check_members",
    "check_unused",
    "residency_of",
]


_REQUIRED: Final = ("name", "url")


def added_residency(state: CatalogState, bucket: str) -> str | None:
    """The residency of a bucket that was added at run time; None if there is none of this name."""
    document = state.documents.get(BUCKET_DOCUMENTS, Map()).get(bucket)
    return None if document is None else _residency(document.body)


def _residency(body: str) -> str:
    value = orjson.loads(body)
    found = value.get("residency", "") if isinstance(value, dict) else ""
    return found if isinstance(found, str) else ""


def residency_of(draft: Draft, bucket: str) -> str:
    """The residency of ``bucket`` now. Raises ``not_found`` if there is no such bucket."""
    assert draft.configured is not None
    if bucket in draft.configured:
        return draft.configured[bucket]
    found = added_residency(draft.state, bucket)
    if found is None:
        added = draft.state.documents.get(BUCKET_DOCUMENTS, Map())
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "no bucket has this name",
            bucket=bucket[:80],
            buckets=[*draft.configured, *sorted(added)],
            hint="declare it in lakehouse.toml under [buckets.<name>], or add it",
        )
    return found


def check_home(draft: Draft, change: CreateDataset) -> None:
    """Raise unless a dataset of the stated residency may be made in its bucket: ``not_found`` for
    no bucket, ``forbidden`` where one of the labels is wrong."""
    if draft.configured is None:
        return
    place = residency_of(draft, change.bucket)
    if change.residency != place:
        raise LakehouseError(
            ErrorKind.FORBIDDEN,
            "the dataset states another residency than its bucket has",
            dataset=change.name,
            residency=change.residency[:80],
            bucket=change.bucket,
            bucket_residency=place,
        )
    check_place(change.bucket, place, draft.state.placed.get(change.bucket, Map()))


def check_members(draft: Draft, work: Work, files: Sequence[DataFile]) -> None:
    """Raise ``forbidden`` unless each of ``files`` is where objects of the dataset may be."""
    if draft.configured is None:
        return
    base = work.base
    for bucket in dict.fromkeys(file.bucket for file in files):
        place = residency_of(draft, bucket)
        check_member((work.head.name, base.bucket, base.residency), bucket, place)
        check_place(bucket, place, draft.state.placed.get(bucket, Map()))


def check_unused(draft: Draft, bucket: str) -> None:
    """Raise ``conflict`` while a dataset has objects in a bucket that is to be removed, in any
    version that is kept."""
    count = draft.uses(bucket)
    if count:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "datasets have objects in the bucket",
            bucket=bucket,
            datasets=count,
            hint="purge them first; those that were dropped can be restored for a while and count",
        )
    if draft.state.broken:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "a manifest cannot be read, so what it has in the bucket is not known",
            bucket=bucket,
            datasets=[*sorted(each.name for each in draft.state.broken.values())[:10]],
        )


def check_bucket_document(draft: Draft, change: PutDocument) -> None:
    """Raise unless the document describes a bucket that may be: a name the configuration does not
    have, a sound label, and no other label than before while datasets have objects in it."""
    name, residency = check_bucket_name(change.id), check_label(_residency(change.body))
    body = orjson.loads(change.body)
    if not isinstance(body, dict) or not all(isinstance(body.get(key), str) for key in _REQUIRED):
        raise LakehouseError(
            ErrorKind.INVALID, "a bucket's document has its name and url", bucket=name
        )
    if draft.configured is not None and name in draft.configured:
        raise LakehouseError(
            ErrorKind.ALREADY_EXISTS,
            "there is a bucket of this name in the configuration",
            bucket=name,
        )
    check_place(name, residency, draft.state.placed.get(name, Map()))
