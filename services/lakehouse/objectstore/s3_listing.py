"""LIST by boto3: one request for a page, in the store's own keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from botocore.parsers import ResponseParserError

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_micros
from lakehouse.model.refs import check_key
from lakehouse.objectstore.arguments import FAR
from lakehouse.objectstore.port import Level, ObjectMeta

_WANTED: Final = frozenset({"Key", "Size", "LastModified"})


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
        page = _page(client, asked, after, MaxKeys=asked.limit - len(found))
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
        delimiter = {"Delimiter": "/"} if folders else {}
        page = _page(client, asked, after, MaxKeys=asked.limit, **delimiter)
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


def _page(client: Any, asked: Listing, after: str, **more: Any) -> dict[str, Any]:
    """One answer that is a listing. Raises ``corrupt`` for any other: taken for an empty one, it
    would make a store look as if nothing were in it."""
    try:
        page: dict[str, Any] = client.list_objects_v2(
            Bucket=asked.bucket, Prefix=asked.root + asked.prefix, StartAfter=after, **more
        )
    except (ValueError, ResponseParserError) as error:
        raise _garbled(asked) from error
    if "IsTruncated" not in page:
        raise _garbled(asked)
    if not all(entry.keys() >= _WANTED for entry in page.get("Contents", [])):
        raise _garbled(asked)
    return page


def _garbled(asked: Listing) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CORRUPT,
        "the object store's answer is no listing",
        operation="list",
        key=asked.prefix,
        truncated=True,
    )


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
