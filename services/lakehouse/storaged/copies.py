"""What the copier keeps in the rescue bucket: whose copies these are, and how far it has come.

``_rescue/owner.json`` is written once and names the store: the copies of one store must not be
taken for those of another, which would delete them. ``_rescue/state.json`` is a note: without it,
or with an old one, work is done again and nothing else happens.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import orjson

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.port import ObjectStore

__all__ = ["OWNER", "STATE", "claim", "load_cursors", "save_cursors"]

log = logging.getLogger(__name__)

OWNER: Final = "_rescue/owner.json"
STATE: Final = "_rescue/state.json"
_FORMAT: Final = 1


async def claim(store: ObjectStore, store_id: str) -> None:
    """Make the copies in ``store`` those of the lakehouse ``store_id``.

    Raises ``conflict`` if they are another's, or of a newer format.
    """
    mine = {"format": _FORMAT, "store_id": store_id}
    try:
        await store.put(OWNER, orjson.dumps(mine), if_absent=True)
        return
    except LakehouseError as error:
        if error.kind is not ErrorKind.ALREADY_EXISTS:
            raise
    found = _parsed(await store.get(OWNER))
    if found != mine:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the rescue bucket keeps the copies of another store, or of a newer version",
            store_id=store_id,
            found=str(found.get("store_id", ""))[:80],
            hint="give each store a rescue bucket, or a prefix of one, of its own",
        )


async def load_cursors(store: ObjectStore) -> dict[str, str]:
    """Bucket -> cursor of all that is copied; empty where that is not known."""
    try:
        found = _parsed(await store.get(STATE))
    except LakehouseError as error:
        if error.kind is ErrorKind.NOT_FOUND:
            return {}
        raise
    cursors = found.get("cursors")
    if found.get("format") != _FORMAT or not isinstance(cursors, dict):
        log.warning("the copier's note cannot be read; the copies are looked through again")
        return {}
    return {str(bucket): str(cursor) for bucket, cursor in cursors.items()}


async def save_cursors(store: ObjectStore, cursors: Mapping[str, str]) -> None:
    """Keep how far the copies go, over what was kept before."""
    body = {"format": _FORMAT, "cursors": dict(cursors)}
    await store.put(STATE, orjson.dumps(body, option=orjson.OPT_SORT_KEYS))


def _parsed(data: bytes) -> dict[str, object]:
    try:
        found = orjson.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
