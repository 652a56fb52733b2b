"""The file that ``lakehouse catalog import`` reads."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from lakehouse.contracts.catalog import ImportedDataset
from lakehouse.errors import ErrorKind, LakehouseError

__all__ = ["read_manifests"]


def read_manifests(file: Path) -> tuple[ImportedDataset, ...]:
    """The manifests of ``file``. Raises ``not_found``, or ``invalid`` naming manifest and field."""
    try:
        items = json.loads(file.read_text())
    except OSError as error:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "the file cannot be read",
            path=str(file),
            reason=(error.strerror or "").lower(),
        ) from error
    except ValueError as error:
        raise _no_manifests(file, "it is no json in utf-8") from error
    if not isinstance(items, list):
        raise _no_manifests(file, "it is no array")
    return tuple(_manifest(file, number, item) for number, item in enumerate(items, 1))


def _manifest(file: Path, number: int, item: Any) -> ImportedDataset:
    """The ``number``-th manifest of ``file``, from 1."""
    if not isinstance(item, dict):
        raise _no_manifests(file, f"manifest {number} is no object")
    for field in ("name", "keys", "updated_at"):
        if field not in item:
            raise _no_manifests(file, f"manifest {number} has no {field}")
    keys, rows = item["keys"], item.get("row_count")
    texts = (item["name"], item["updated_at"], item.get("bucket", "primary"))
    if not all(isinstance(text, str) for text in texts):
        raise _no_manifests(file, f"name, updated_at and bucket of manifest {number} must be texts")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _no_manifests(file, f"keys of manifest {number} is no array of texts")
    if rows is not None and (not isinstance(rows, int) or isinstance(rows, bool)):
        raise _no_manifests(file, f"row_count of manifest {number} is no whole number")
    try:
        updated = datetime.fromisoformat(item["updated_at"])
    except ValueError as error:
        raise _no_manifests(file, f"updated_at of manifest {number} is no time") from error
    return ImportedDataset(
        name=item["name"],
        keys=tuple(keys),
        row_count=rows,
        updated_at=updated,
        bucket=item.get("bucket", "primary"),
    )


def _no_manifests(file: Path, reason: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID,
        "the file is no array of manifests",
        path=str(file),
        reason=reason,
        hint="each is {name, keys, updated_at}, and if known row_count and bucket",
    )
