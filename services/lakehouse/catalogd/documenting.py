"""Documents, and what the state derives from them: pins of tags, structures of indexes. Pure."""

from __future__ import annotations

from dataclasses import replace

from immutables import Map

from lakehouse.catalogd import structures
from lakehouse.catalogd.state import CatalogState, DocumentState
from lakehouse.catalogd.tagging import TAG_DOCUMENTS, repinned
from lakehouse.model.vectors import INDEX_DOCUMENTS

__all__ = ["documented"]


def documented(
    state: CatalogState, kind: str, document_id: str, new: DocumentState | None, version: int
) -> CatalogState:
    """``state`` with the document as it is from ``version`` on; None is no document."""
    of_kind = state.documents.get(kind, Map())
    old = of_kind.get(document_id)
    if old is None and new is None:
        return state
    bodies = ("" if old is None else old.body, "" if new is None else new.body)
    if kind == TAG_DOCUMENTS:
        state = replace(state, pins=repinned(state.pins, *bodies))
    elif kind == INDEX_DOCUMENTS:
        state = _restructured(state, *bodies, version)
    of_kind = of_kind.delete(document_id) if new is None else of_kind.set(document_id, new)
    documents = state.documents
    documents = documents.set(kind, of_kind) if of_kind else documents.delete(kind)
    return replace(state, documents=documents)


def _restructured(state: CatalogState, old: str, new: str, version: int) -> CatalogState:
    """What is named no more is garbage of its session: one that ended is to be swept once more,
    one that lives will be when it ends."""
    named, gone = structures.replaced(state.structures, old, new)
    sessions = {key.split("/")[1] for key in gone}
    ended = state.ended.update(
        {each: version for each in sessions if each not in state.objects.sessions}
    )
    return replace(state, structures=named, ended=ended)
