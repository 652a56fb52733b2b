"""Search structures of vector indexes as the state holds them: what index documents name.

Objects below ``_vectors/<session>/<dataset_id>/`` are caches of rows. No version names them, only
the documents of now; so there is no history of them to keep, and what no document names any more is
swept like what a session never had committed. A structure is one object, or a folder (key with a
slash at its end) with everything below it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from immutables import Map

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.refs import PRIMARY, check_key
from lakehouse.model.vectors import VECTORS_FOLDER

__all__ = ["Named", "Structures", "named_by", "named_keys", "of_documents", "replaced", "unit_of"]

_UNIT_PARTS: Final = 4
_KEY: Final = re.compile(re.escape(VECTORS_FOLDER) + r"[^/]+/[^/]+/[^/]+(/?)")

Structures = Map[str, int]
"""Key of an object or folder -> how many documents name it."""


@dataclass(frozen=True, slots=True)
class Named:
    """A key that a document names, in what bucket, and the dataset whose vectors are in it."""

    key: str
    bucket: str
    dataset_id: str


def named_by(body: str) -> tuple[Named, ...]:
    """What the document of an index names. Raises ``invalid`` for what is no such document."""
    try:
        versions = orjson.loads(body)["versions"]
        found = [one for each in versions for one in _named(each, each.get("structures", ()))]
        for one in found:
            match = _KEY.fullmatch(one.key)
            if match is None or not isinstance(one.bucket, str):
                raise ValueError(one.key)
            check_key(one.key.removesuffix("/"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the document is not one of a vector index",
            reason=str(error)[:200],
            hint=f"structures are at {VECTORS_FOLDER}<session>/<dataset>/<file>, or in a folder"
            " of that name with a slash at its end",
        ) from None
    return tuple(found)


def _named(version: dict[str, Any], structures: Iterable[dict[str, Any]]) -> list[Named]:
    found: list[Named] = []
    for each in structures:
        bucket, dataset_id = each.get("bucket", PRIMARY), version.get("vectors_dataset_id", "")
        found.append(Named(each["key"], bucket, dataset_id))
        labels = each.get("labels_key", "")
        if labels:
            found.append(Named(labels, bucket, dataset_id))
    return found


def named_keys(body: str) -> frozenset[str]:
    """The keys that a document names; none of one that cannot be read, or of ""."""
    try:
        return frozenset(each.key for each in named_by(body)) if body else frozenset()
    except LakehouseError:
        return frozenset()


def unit_of(key: str) -> tuple[str, str]:
    """What a document would call the object ``key``: by itself, or by the folder that it is in."""
    parts = key.split("/", _UNIT_PARTS)
    return key, "/".join(parts[:_UNIT_PARTS]) + "/"


def replaced(structures: Structures, old: str, new: str) -> tuple[Structures, list[str]]:
    """``structures`` once the document ``old`` is ``new`` ("" is none), and the keys that no
    document names any more."""
    before, after = named_keys(old), named_keys(new)
    gone: list[str] = []
    for key in after - before:
        structures = structures.set(key, structures.get(key, 0) + 1)
    for key in sorted(before - after):
        count = structures.get(key, 0) - 1
        if count > 0:
            structures = structures.set(key, count)
        else:
            structures = structures.delete(key) if key in structures else structures
            gone.append(key)
    return structures, gone


def of_documents(bodies: Iterable[str]) -> Structures:
    """``CatalogState.structures`` of all documents of indexes."""
    structures: Structures = Map()
    for body in bodies:
        structures, _ = replaced(structures, "", body)
    return structures
