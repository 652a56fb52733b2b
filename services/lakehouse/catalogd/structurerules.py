"""Which search structures the document of an index may name. Pure."""

from __future__ import annotations

from lakehouse.catalogd.draft import Draft
from lakehouse.catalogd.present import alive
from lakehouse.catalogd.residing import residency_of
from lakehouse.catalogd.structures import Named, named_by, named_keys
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.sessions import may_add
from lakehouse.model.changes import PutDocument
from lakehouse.model.residency import check_place

__all__ = ["check_index_document"]


def check_index_document(draft: Draft, change: PutDocument) -> None:
    """Raise unless each structure that the document did not name before was written in a session
    that lives and lies where its vectors do: ``conflict`` where it may be gone or its dataset is,
    ``forbidden`` for another bucket, ``invalid`` for what is no document of an index.

    What it named before it may name further, whatever became of session and dataset.
    """
    of_kind = draft.state.documents.get(change.kind)
    old = None if of_kind is None else of_kind.get(change.id)
    before = named_keys("" if old is None else old.body)
    new = [each for each in named_by(change.body) if each.key not in before]
    for each in new:
        _check_place(draft, each)
    may_add(draft.state.objects, (each.key for each in new), draft.state.names_object)


def _check_place(draft: Draft, named: Named) -> None:
    """In the home of its vectors: so residency and the removal of buckets need no rule of their
    own."""
    base = alive(draft, named.dataset_id).base
    if named.bucket != base.bucket:
        raise LakehouseError(
            ErrorKind.FORBIDDEN,
            "a search structure lies in the bucket of its vectors",
            key=named.key,
            bucket=named.bucket[:80],
            home=base.bucket,
            residency=base.residency,
        )
    if draft.configured is not None:
        place = residency_of(draft, base.bucket)
        check_place(base.bucket, place, draft.state.placed.get(base.bucket, {}))
