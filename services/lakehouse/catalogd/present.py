"""The dataset that a requirement or a change is of, as it stands; and how a refusal is made."""

from __future__ import annotations

from typing import Any

from lakehouse.catalogd.draft import Draft, Work
from lakehouse.catalogd.state import CatalogState
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import DatasetStatus

__all__ = ["alive", "conflicting", "invalid", "known", "living"]


def invalid(message: str, **fields: Any) -> LakehouseError:
    return LakehouseError(ErrorKind.INVALID, message, **fields)


def conflicting(message: str, **fields: Any) -> LakehouseError:
    return LakehouseError(ErrorKind.CONFLICT, message, **fields)


def living(state: CatalogState, dataset_id: str) -> Work:
    """The dataset, if it lives; for requirements, a dropped one is a lost race."""
    work = Draft(state, 0, 0).work(dataset_id)
    if work is None or work.head.status is DatasetStatus.DROPPED:
        raise conflicting("the dataset is no longer there", dataset_id=dataset_id)
    return work


def known(draft: Draft, dataset_id: str) -> Work:
    """The dataset, dropped or not. Raises ``not_found``."""
    work = draft.work(dataset_id)
    if work is None:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "there is no dataset with this id",
            dataset_id=dataset_id,
            hint="it was purged, or the handle is of another store",
        )
    return work


def alive(draft: Draft, dataset_id: str) -> Work:
    """The dataset, if it lives: a handle of before a drop is stale, whoever has the name now."""
    work = known(draft, dataset_id)
    if work.head.status is DatasetStatus.DROPPED:
        raise conflicting(
            "the dataset was dropped",
            dataset_id=dataset_id,
            name=work.head.name,
            hint="restore it, or look its name up again",
        )
    return work
