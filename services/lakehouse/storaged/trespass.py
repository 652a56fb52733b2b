"""Whether a new bucket is, whatever names lead there, a place of somebody else.

Names and addresses are compared before (``objectstore.places``); but a proxy or a second address of
a server has neither in common. So the place itself is asked: for an object that was just put into
it, by way of every bucket that could see it; and whether it lies within a store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.ids import Ids
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.identity import is_store
from lakehouse.objectstore.places import Site, inside, site_of
from lakehouse.objectstore.port import ObjectStore
from lakehouse.objectstore.probe import PREFIX

__all__ = ["refuse_trespass"]

_ASK_SECONDS: Final = 3.0
_Ways = dict[str, list[tuple[BucketSettings, str]]]


async def refuse_trespass(
    buckets: Buckets, new: BucketSettings, store: ObjectStore, ids: Ids
) -> None:
    """Raise ``conflict`` if objects of ``new`` are objects of a known bucket as well, or if its
    place lies within a store.

    Args:
        store: the new bucket, which is not taken up yet.

    Buckets that do not answer at once are passed over. What is written for this is removed.
    """
    mine = site_of(new)
    if mine is None:
        return
    if mine.scheme == "s3":
        others = (buckets.settings(name) for name in buckets.names())
        await _refuse_seen(buckets, _ways(mine, others, f"{PREFIX}{ids.ulid()}/place"), new, store)
    await _refuse_within(buckets, new, mine)


def _ways(mine: Site, others: Iterable[BucketSettings], mark: str) -> _Ways:
    """Key in the new bucket -> those that may see it there, each with the key it has for them."""
    ways: _Ways = {}
    for other in others:
        theirs = site_of(other)
        if theirs is not None and inside(mine, theirs):
            here = "/".join((*theirs.parts[len(mine.parts) :], mark))
            there = "/".join((*mine.parts[len(theirs.parts) :], mark))
            ways.setdefault(here, []).append((other, there))
    return ways


async def _refuse_seen(
    buckets: Buckets, ways: _Ways, new: BucketSettings, store: ObjectStore
) -> None:
    try:
        for key, others in ways.items():
            await store.put(key, b"place")
            seen = await asyncio.gather(*(_sees(buckets, *each) for each in others))
            for (other, _), is_there in zip(others, seen, strict=True):
                if is_there:
                    raise LakehouseError(
                        ErrorKind.CONFLICT,
                        "the place is, or is within, that of another bucket, or holds it, under"
                        " another name",
                        bucket=new.name,
                        other=other.name,
                        hint="give each bucket a prefix of its own",
                    )
    finally:
        if ways:
            with suppress(LakehouseError):
                await store.delete(list(ways))


async def _sees(buckets: Buckets, other: BucketSettings, key: str) -> bool:
    """Whether ``other`` has the object; by a handle of its own, for what fails here is no failure
    of that bucket."""
    try:
        trial = buckets.trial(other)
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                await trial.raw(other.name).head(key)
        finally:
            await trial.close()
    except (LakehouseError, TimeoutError):
        return False
    return True


async def _refuse_within(buckets: Buckets, new: BucketSettings, mine: Site) -> None:
    # Neither the place itself, which was looked at, nor the root of the file system.
    for count in range(len(mine.parts) - 1, 0, -1):
        outer = replace(new, url=_url(mine.scheme, mine.parts[:count]))
        trial = buckets.trial(outer)
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                found = await is_store(trial.raw(outer.name))
        except TimeoutError:
            return
        finally:
            await trial.close()
        if found:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "the place lies within the primary bucket of a store",
                bucket=new.name,
                store=outer.url,
                hint="use a prefix that is not inside another bucket's",
            )


def _url(scheme: str, parts: tuple[str, ...]) -> str:
    return "s3://" + "/".join(parts) if scheme == "s3" else Path("/", *parts).as_uri()
