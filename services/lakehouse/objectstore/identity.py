"""Which store this is: ``store.json`` in the bucket, and what this machine has seen at a URL.

A typo in a URL, an unmounted disk or another project's bucket must never become a second, empty
store. So a store is made only where nothing was seen before, and opened only if it is the one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock, to_datetime
from lakehouse.kit.ids import Ids
from lakehouse.objectstore.port import ObjectStore

STORE_FILE: Final = "store.json"
STORE_KIND: Final = "lakehouse.store"
FORMAT: Final = 1
_RECORDS: Final = "_catalog/"
_SIZE_MAX: Final = 65_536


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """``store_id`` is a ULID made once; ``format`` the newest layout that the store uses;
    ``min_writer`` the oldest format whose programs may still write to it."""

    store_id: str
    format: int
    min_writer: int = 1


async def init_store(store: ObjectStore, clock: Clock, ids: Ids) -> StoreIdentity:
    """Make a store here, or return the one that is here: of two callers one wins, both agree.

    Raises ``corrupt`` where a ledger stands without its ``store.json``, and all that
    ``read_identity`` raises.
    """
    try:
        return await read_identity(store)
    except LakehouseError as error:
        if error.kind is not ErrorKind.NOT_FOUND or error.fields.get("what") == "bucket":
            raise
    if await store.list(_RECORDS, limit=1):
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "the bucket holds a ledger but no store file",
            url=store.url,
            missing=STORE_FILE,
            hint="restore the store file from a backup; it names the store's id and format",
        )
    body = {
        "kind": STORE_KIND,
        "format": FORMAT,
        "min_reader": FORMAT,
        "min_writer": FORMAT,
        "store_id": ids.ulid(),
        "created": to_datetime(clock.now_us()).isoformat(),
    }
    data = json.dumps(body, indent=1).encode() + b"\n"
    try:
        await store.put(STORE_FILE, data, if_absent=True)
    except LakehouseError as lost:
        if lost.kind is not ErrorKind.ALREADY_EXISTS:
            raise
    return await read_identity(store)


async def read_identity(store: ObjectStore) -> StoreIdentity:
    """The identity in the bucket.

    Raises ``not_found`` (nothing here; with ``what="bucket"`` where the bucket itself is missing),
    ``corrupt`` (not readable), ``conflict`` (another program's file, or a newer format).
    """
    try:
        data = await store.get(STORE_FILE)
    except LakehouseError as error:
        if error.kind is ErrorKind.NOT_FOUND:
            # A missing bucket may look like a missing key; a list of it does not.
            await store.list(limit=1)
            raise LakehouseError(
                ErrorKind.NOT_FOUND,
                "there is no store here",
                url=store.url,
                missing=STORE_FILE,
                hint="check the bucket's url, or make a store with: lakehouse init",
            ) from error
        raise
    return _parse(data, store.url)


async def is_store(store: ObjectStore) -> bool:
    """Whether a store of this program is seen here, of whatever format; False also where nothing
    may be read. Costs one read."""
    try:
        data = await store.get(STORE_FILE)
        body = json.loads(data) if len(data) <= _SIZE_MAX else None
    except (LakehouseError, ValueError, RecursionError):
        return False
    return isinstance(body, dict) and body.get("kind") == STORE_KIND


def _parse(data: bytes, url: str) -> StoreIdentity:
    try:
        body = json.loads(data) if len(data) <= _SIZE_MAX else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise LakehouseError(
            ErrorKind.CORRUPT, "the store file cannot be read", url=url, file=STORE_FILE
        )
    if body.get("kind") != STORE_KIND:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the store file belongs to another program",
            url=url,
            file=STORE_FILE,
            hint="use another bucket, or a prefix of this one",
        )
    store_id, version, reader = body.get("store_id"), body.get("format"), body.get("min_reader")
    if not (isinstance(store_id, str) and store_id and type(version) is type(reader) is int):
        raise LakehouseError(
            ErrorKind.CORRUPT, "the store file lacks its id or format", url=url, file=STORE_FILE
        )
    if not isinstance(version, int) or not isinstance(reader, int) or reader > FORMAT:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the store has a newer format than this program reads",
            url=url,
            format=version,
            readable=FORMAT,
            hint="upgrade this program",
        )
    writer = body.get("min_writer", 1)
    if type(writer) is not int:
        raise LakehouseError(
            ErrorKind.CORRUPT, "the store file has no valid min_writer", url=url, file=STORE_FILE
        )
    return StoreIdentity(store_id, version, writer)


def check_writer(identity: StoreIdentity, url: str) -> None:
    """Raise ``conflict`` if this program is too old to write to the store: reading it is fine."""
    if identity.min_writer > FORMAT:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the store was written by a newer version",
            url=url,
            min_writer=identity.min_writer,
            writes=FORMAT,
            hint="upgrade this node; its data can still be read without one",
        )


# -- what this machine has seen ---------------------------------------------------------------


def state_folder(environ: Mapping[str, str]) -> Path:
    """The user's state folder for this program (XDG base directory specification)."""
    base = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(environ.get("HOME", "") or os.path.expanduser("~"), ".local/state")
    return Path(base) / "lakehouse"


def remember(folder: Path, url: str, store_id: str) -> None:
    """Note that the store ``store_id`` was seen at ``url``; a store in memory is not noted.

    Raises ``forbidden`` where the folder cannot be written.
    """
    if url.startswith("memory:") or recall(folder, url) == store_id:
        return
    try:
        _write_note(folder, url, {"url": url, "store_id": store_id})
    except OSError as error:
        raise LakehouseError(
            ErrorKind.FORBIDDEN,
            "the state folder cannot be written",
            folder=str(folder),
            reason=(error.strerror or "").lower(),
            hint="set XDG_STATE_HOME to a folder that can be written",
        ) from error


def recall(folder: Path, url: str) -> str | None:
    """The id of the store last seen at ``url``, or None. An unreadable note is no note."""
    found = _read_note(folder, url).get("store_id")
    return found if isinstance(found, str) else None


def remember_position(folder: Path, url: str, store_id: str, position: tuple[int, str]) -> bool:
    """Note the newest record (number, SHA-256) of the store; whether that could be done."""
    if url.startswith("memory:"):
        return False
    n, sha256 = position
    try:
        _write_note(
            folder, url, {"url": url, "store_id": store_id, "record": n, "record_sha256": sha256}
        )
    except OSError:
        return False
    return True


def recall_position(folder: Path, url: str, store_id: str) -> tuple[int, str] | None:
    """The newest record of this store that this machine has seen, or None."""
    note = _read_note(folder, url)
    n, sha256 = note.get("record"), note.get("record_sha256")
    if note.get("store_id") != store_id or not isinstance(n, int) or not isinstance(sha256, str):
        return None
    return n, sha256


def forget(folder: Path, url: str) -> None:
    """Drop the note of ``url``: an operator says that the store there is gone for good."""
    _note(folder, url).unlink(missing_ok=True)


def confirm(folder: Path, url: str, found: StoreIdentity | None, pinned: str = "") -> None:
    """Raise ``conflict`` unless ``found`` may be written to (or, if None, made) at ``url``.

    Args:
        found: what ``read_identity`` returned; None if it raised ``not_found``.
        pinned: the id that the configuration demands; "" demands none.
    """
    known = recall(folder, url)
    if found is None and (known or pinned):
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "a store was here before, and the place is empty now",
            url=url,
            store_id=known or pinned,
            hint="is the disk mounted and the url right? if the store is gone for good,"
            f" delete {_note(folder, url)}",
        )
    if found is not None:
        check_writer(found, url)
        for expected, by in ((pinned, "the configuration"), (known or "", "this machine")):
            if expected and expected != found.store_id:
                raise LakehouseError(
                    ErrorKind.CONFLICT,
                    f"another store is here than {by} expects",
                    url=url,
                    store_id=found.store_id,
                    expected=expected,
                    hint=f"check the url; to accept the new store, delete {_note(folder, url)}"
                    if by == "this machine"
                    else "check the url and the pinned store id",
                )


def _read_note(folder: Path, url: str) -> dict[str, object]:
    try:
        note = json.loads(_note(folder, url).read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _write_note(folder: Path, url: str, note: dict[str, object]) -> None:
    path = _note(folder, url)
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_suffix(f".{os.getpid()}.tmp")
    temp.write_text(json.dumps(note) + "\n")
    temp.replace(path)


def _note(folder: Path, url: str) -> Path:
    name = hashlib.sha256(url.encode()).hexdigest()[:32]
    return folder / "stores" / f"{name}.json"
