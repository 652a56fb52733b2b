"""LIST by boto3: one request for a page, in the store's own keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lakehouse.errors import LakehouseError
from lakehouse.kit.clock import to_micros
from lakehouse.model.refs import check_key
from lakehouse.objectstore.arguments import FAR
from lakehouse.objectstore.port import Level, ObjectMeta


@dataclass(frozen=True, slots=True)
class Listing:
    """``root`` is the prefix of the bucket's URL; the others are relative to it."""

    bucket: str
    root: str
    prefix: str
    start_after: str
    limit: int


def list_objects(client: Any, asked: Listing) -> list[ObjectMeta]:
    """One request; more only where the server answers with less than it has and was asked for."""
    found: list[ObjectMeta] = []
    after = asked.root + asked.start_after if asked.start_after else ""
    while True:
        page = client.list_objects_v2(
            Bucket=asked.bucket,
            Prefix=asked.root + asked.prefix,
            StartAfter=after,
            MaxKeys=asked.limit - len(found),
        )
        contents = page.get("Contents", [])
        for entry in contents:
            after = entry["Key"]
            meta = _listed(after[len(asked.root) :], entry)
            if meta is not None:
                found.append(meta)
        if not page.get("IsTruncated") or not contents or len(found) >= asked.limit:
            return found


def browse_objects(client: Any, asked: Listing, folders: bool) -> Level:
    """A page as ``port.Browsing``. One request; more only where the server's answer is empty and
    says that there is more."""
    after = asked.root + asked.start_after if asked.start_after else ""
    while True:
        page = client.list_objects_v2(
            Bucket=asked.bucket,
            Prefix=asked.root + asked.prefix,
            StartAfter=after,
            MaxKeys=asked.limit,
            **({"Delimiter": "/"} if folders else {}),
        )
        entries = page.get("Contents", [])
        common = [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        last = max([entry["Key"] for entry in entries] + [name + FAR for name in common] or [""])
        objects = [_listed(entry["Key"][len(asked.root) :], entry) for entry in entries]
        found = tuple(m for m in objects if m is not None)
        names = tuple(n for n in (name[len(asked.root) :] for name in common) if _names_folder(n))
        if not page.get("IsTruncated") or not last:
            return Level(found, names)
        if found or names:
            return Level(found, names, last[len(asked.root) :])
        after = last


def _names_folder(prefix: str) -> bool:
    """Whether objects of ours can be below it: others may have put any name there."""
    try:
        return check_key(prefix.removesuffix("/")) != ""
    except LakehouseError:
        return False


def _listed(key: str, entry: Mapping[str, Any]) -> ObjectMeta | None:
    """An entry of a listing, or None for an object that others put there and no key can name."""
    try:
        check_key(key)
    except LakehouseError:
        return None
    return ObjectMeta(key, entry["Size"], entry.get("ETag", ""), to_micros(entry["LastModified"]))
