"""Reading a catalog's state: names and points in time to datasets. Pure."""

from __future__ import annotations

import difflib
from datetime import datetime
from typing import Final

from immutables import Map

from lakehouse.catalogd.state import Broken, CatalogState, DatasetState, Revision
from lakehouse.catalogd.tagging import TAG_DOCUMENTS, TagBody, read_tag
from lakehouse.contracts.catalog import AsOf
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_datetime, to_micros
from lakehouse.ledger.sessions import check_version
from lakehouse.model.dataset import Card, Dataset, DatasetStatus
from lakehouse.model.refs import name_key
from lakehouse.model.schema import Schema

__all__ = [
    "broken_view",
    "check_readable",
    "dataset_at",
    "dropped_dataset",
    "live_dataset",
    "no_such_dataset",
    "tag_named",
    "version_of",
]

_NEIGHBOURS: Final = 64
_ALL_NAMES_MAX: Final = 1000
_LIKENESS: Final = 0.6


def version_of(state: CatalogState, as_of: AsOf) -> int | None:
    """The version that ``as_of`` means; None is the newest.

    Raises ``invalid`` for more than one of version, time and tag, ``not_found`` for what is ahead
    of the store, before it, or below the horizon and not tagged, and for a tag that is not there;
    ``unavailable`` if ``min_version`` is not reached. Whether a dataset can be read at a version
    below the horizon is for ``dataset_at``: a tag may be of another one.
    """
    if (as_of.version is not None) + (as_of.time is not None) + bool(as_of.tag) > 1:
        raise LakehouseError(
            ErrorKind.INVALID, "as_of takes a version or a time or a tag, not several"
        )
    if as_of.min_version is not None and as_of.min_version > state.version:
        raise LakehouseError(
            ErrorKind.UNAVAILABLE,
            "the store has not reached this version",
            min_version=as_of.min_version,
            version=state.version,
        )
    if as_of.time is not None:
        return _version_at(state, as_of.time)
    if as_of.tag:
        return tag_named(state, as_of.tag).version
    if as_of.version is None:
        return None
    if not 0 <= as_of.version <= state.version:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "the store has no such version yet",
            as_of=as_of.version,
            version=state.version,
        )
    if not state.tagged(as_of.version):
        check_version(state.objects, as_of.version)
    return as_of.version


def tag_named(state: CatalogState, name: str) -> TagBody:
    """Raises ``not_found``, with a hint that names the nearest tag there is."""
    tags, key = state.documents.get(TAG_DOCUMENTS, Map()), name_key(name)
    document = tags.get(key)
    if document is not None:
        return read_tag(document.body)
    near = difflib.get_close_matches(key, list(tags), n=1, cutoff=_LIKENESS)
    error = LakehouseError(
        ErrorKind.NOT_FOUND,
        "there is no tag of this name",
        tag=name[:255],
        hint="list the tags to see their names",
    )
    if near:
        nearest = read_tag(tags[near[0]].body).name
        error.fields.update(nearest=nearest, hint=f"did you mean {nearest}")
    raise error


def _version_at(state: CatalogState, time: datetime) -> int:
    if time.tzinfo is None:
        raise LakehouseError(ErrorKind.INVALID, "a time needs its zone", as_of=time.isoformat())
    version = state.times.bisect(to_micros(time), lambda ts_us: ts_us) - 1
    # Versions are 1 and up and ``times`` is indexed by them.
    if version < max(state.times.start, state.objects.horizon):
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "the store cannot be read as of this time",
            as_of=time.isoformat(),
            horizon=state.objects.horizon,
            hint="it is before the first version, or below the horizon of time travel",
        )
    return version


def _likely_name(state: CatalogState, key: str) -> str:
    """The nearest name there is, or ""."""
    order = state.names.order
    found = order.around((key, ""), _ALL_NAMES_MAX if len(order) <= _ALL_NAMES_MAX else _NEIGHBOURS)
    near = difflib.get_close_matches(key, [name for name, _ in found], n=1, cutoff=_LIKENESS)
    return near[0] if near else ""


def no_such_dataset(state: CatalogState, name: str, version: int | None = None) -> LakehouseError:
    """``not_found`` for ``name``, with a hint that names the nearest name there is."""
    key = name_key(name)
    dropped = next((each for each, _ in state.names.dropped.after((key, "")) if each == key), None)
    near = _likely_name(state, key) if dropped is None else ""
    if dropped is not None:
        hint = "it was dropped; restore it"
    elif near:
        hint = f"did you mean {near}"
    else:
        hint = "list the datasets to see their names"
    error = LakehouseError(
        ErrorKind.NOT_FOUND, "there is no dataset of this name", name=name[:255], hint=hint
    )
    if near:
        error.fields["nearest"] = near
    if version is not None:
        error.fields["as_of"] = version
    return error


def live_dataset(state: CatalogState, name: str) -> DatasetState:
    """The dataset that has ``name`` now. Raises ``not_found``, ``corrupt`` if it is broken."""
    holder = state.names.holder(name_key(name))
    dataset = state.datasets.get(holder)
    if dataset is None:
        if holder in state.broken:
            raise _broken(state.broken[holder], name)
        raise no_such_dataset(state, name)
    return dataset


def dropped_dataset(state: CatalogState, name: str) -> DatasetState:
    """The dataset of this name that was dropped last. Raises ``not_found``."""
    key = name_key(name)
    found: DatasetState | None = None
    for each, dataset_id in state.names.dropped.after((key, "")):
        if each != key:
            break
        dataset = state.datasets[dataset_id]
        if found is None or dataset.now.version > found.now.version:
            found = dataset
    if found is None:
        raise no_such_dataset(state, name)
    return found


def dataset_at(
    state: CatalogState, name: str, version: int | None = None, *, include_dropped: bool = False
) -> tuple[DatasetState, Revision]:
    """The dataset that had ``name`` at ``version`` (None: now), and its revision of then. Raises
    ``not_found``, also for one that no tag keeps at a version below the horizon."""
    holder = state.names.holder(name_key(name), version)
    if holder in state.broken:
        raise _broken(state.broken[holder], name)
    dataset = state.datasets.get(holder)
    if dataset is None and include_dropped:
        dataset = dropped_dataset(state, name)
    if dataset is None:
        raise no_such_dataset(state, name, version)
    if version is not None and version not in state.pins_of(dataset.id):
        check_version(state.objects, version)
    revision = dataset.now if version is None else dataset.at(version)
    if revision is None:
        raise no_such_dataset(state, name, version)
    return dataset, revision


def check_readable(revision: Revision) -> None:
    """Raise ``conflict`` for a quarantined dataset: its rows are not to be trusted."""
    if revision.head.status is DatasetStatus.QUARANTINED:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the dataset is quarantined",
            name=revision.head.name,
            reason=revision.head.reason,
            hint="restore the damaged objects and run fsck, or drop it and ingest it anew",
        )


def _broken(broken: Broken, name: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CORRUPT,
        "the manifest of the dataset cannot be read",
        name=name,
        reason=broken.reason,
        hint="other datasets are not affected; restore the manifest or purge it",
    )


def broken_view(dataset_id: str, broken: Broken) -> Dataset:
    """What can be shown of a dataset whose manifest cannot be read."""
    return Dataset(
        id=dataset_id,
        name=broken.name,
        fingerprint="",
        schema=Schema(1, ()),
        status=DatasetStatus.QUARANTINED,
        card=Card(description=f"manifest cannot be read: {broken.reason}"),
        created_at=to_datetime(0),
        updated_at=to_datetime(0),
        version=0,
        files=0,
        size_bytes=0,
        row_count=None,
    )
