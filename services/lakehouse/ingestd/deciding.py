"""What an ingest does to the dataset it meets: modes, no-ops, refusals. Pure.

Defaults (docs/api): absent, it is created; the same content already there, a no-op unless forced;
other content without a mode, a conflict that names append and replace.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from lakehouse.contracts.ingest import IngestMode, IngestOptions, IngestRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import Dataset, DatasetStatus, VersionEntry
from lakehouse.model.refs import name_key

_LOOKED_AT: Final = ("content_type", "file_name", "force")


class Action(StrEnum):
    CREATE = "create"
    APPEND = "append"
    REPLACE = "replace"
    UPSERT = "upsert"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is there under the name now.

    Attributes:
        dataset: None if nothing lives under the name.
        entry: the version whose rows came from the same content and still live, if any.
        only: those rows are all the rows there are.
    """

    dataset: Dataset | None = None
    entry: VersionEntry | None = None
    only: bool = False


def content_digest(body_sha256: str, options: IngestOptions) -> str:
    """What makes a second ingest of the same a no-op: the sha256 of the bytes as they were sent.

    Options that change what the bytes say (delimiter, types, ...) are hashed in where they are
    given; hints that only help detection (content type, file name) are not.
    """
    given = {
        name: value
        for name, value in asdict(options).items()
        if name not in _LOOKED_AT and value != getattr(IngestOptions(), name)
    }
    if not given:
        return body_sha256
    text = body_sha256 + json.dumps(given, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def decide(request: IngestRequest, standing: Standing) -> Action:
    """Raises ``already_exists`` (mode create), ``conflict`` (no mode and other content, another
    home than the bucket asked for, or a dataset that is quarantined), ``invalid`` (an upsert
    without a key)."""
    dataset = standing.dataset
    if dataset is None:
        if request.mode is IngestMode.UPSERT and not request.key:
            raise _keyless(request.dataset, "say key=<columns> to make it with a primary key")
        return Action.CREATE
    if dataset.status is not DatasetStatus.LIVE:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            f"the dataset is {dataset.status.value}",
            dataset=dataset.name,
            hint="have an operator look at it, or ingest under another name",
        )
    if request.bucket and request.bucket != dataset.bucket:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the dataset has another home",
            dataset=dataset.name,
            bucket=request.bucket,
            home=dataset.bucket,
            hint="leave the bucket out, or ingest under another name: rows do not move",
        )
    same = standing.entry is not None and not request.options.force
    if request.mode is IngestMode.CREATE:
        raise LakehouseError(
            ErrorKind.ALREADY_EXISTS,
            "a dataset with this name is there",
            dataset=dataset.name,
            same_content=standing.entry is not None,
            hint="use mode=append to add rows, mode=replace to put these in their place",
        )
    if request.mode is IngestMode.REPLACE:
        return Action.NOTHING if same and standing.only else Action.REPLACE
    if request.mode is IngestMode.UPSERT:
        # Rows of the same content may have been changed since: row by row it is found out.
        if not dataset.primary_key and not request.key:
            raise _keyless(dataset.name, "say key=<columns> to declare its primary key with this")
        return Action.UPSERT
    if same:
        return Action.NOTHING
    if request.mode is IngestMode.APPEND:
        return Action.APPEND
    raise LakehouseError(
        ErrorKind.CONFLICT,
        "the dataset is there, with other content",
        dataset=dataset.name,
        dataset_id=dataset.id,
        modes=["append", "replace", *(["upsert"] if dataset.primary_key else [])],
        hint="say mode=append to add these rows, mode=replace to put them in their place",
    )


def _keyless(dataset: str, hint: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID, "an upsert needs a primary key", dataset=dataset, hint=hint
    )


def resolve_key(key: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """The key's columns as the schema writes them; raises ``invalid`` for one it does not have."""
    by_key = {name_key(name): name for name in names}
    missing = [name for name in key if name_key(name) not in by_key]
    if missing or len({name_key(name) for name in key}) != len(key):
        raise LakehouseError(
            ErrorKind.INVALID,
            "the key names a column twice or one that is not there",
            key=list(key),
            missing=list(missing),
            columns=list(names[:100]),
            hint="name columns of the file",
        )
    return tuple(by_key[name_key(name)] for name in key)


def check_same_key(request: IngestRequest, dataset: Dataset) -> tuple[str, ...]:
    """The key that rows of an existing dataset are checked against."""
    if not request.key:
        return dataset.primary_key
    key = resolve_key(request.key, dataset.schema.names())
    if dataset.primary_key and set(key) != set(dataset.primary_key):
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the dataset has another primary key",
            dataset=dataset.name,
            key=list(key),
            primary_key=list(dataset.primary_key),
            hint="leave the key out, or ingest under another name",
        )
    return key
