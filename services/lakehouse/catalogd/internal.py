"""Changes that only the catalog itself makes: stored like the others, never taken from a caller."""

from __future__ import annotations

from dataclasses import dataclass

from lakehouse.model.changes import Change, CreateDataset

__all__ = ["Forget", "GiveUp", "ImportDataset", "StoredChange"]


@dataclass(frozen=True, slots=True)
class ImportDataset:
    """``create`` from a catalog without the gate: its name may be taken; the dataset keeps its own
    ``updated_us`` and, with ``rows_known`` False, has no row count."""

    create: CreateDataset
    updated_us: int
    rows_known: bool = True


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Condemn ``keys``, each in its bucket of ``buckets``, and all versions below ``horizon``."""

    horizon: int
    keys: tuple[str, ...]
    buckets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """These condemned objects are deleted, these ended sessions left no other: forget both."""

    keys: tuple[str, ...]
    sessions: tuple[str, ...] = ()


StoredChange = Change | ImportDataset | GiveUp | Forget
