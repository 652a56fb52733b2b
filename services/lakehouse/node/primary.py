"""The primary bucket before anything is opened on it: the right store, on a fit bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lakehouse import __version__
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.kit.retry import Backoff
from lakehouse.model.refs import PRIMARY
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.identity import (
    StoreIdentity,
    confirm,
    init_store,
    read_identity,
    remember,
    remember_position,
)
from lakehouse.objectstore.port import ObjectStore
from lakehouse.objectstore.probe import probe_store, refuse_unfit
from lakehouse.objectstore.retrying import RetryingStore

# Whoever starts a node waits for the answer: what is not there in seconds is told.
_AT_START: Final = Backoff(budget_seconds=2.5)
_NOTE_RECORDS: Final = 32
_MADE_BY_ITSELF: Final = ("file:", "memory:")


async def prepare_primary(
    buckets: Buckets, clock: Clock, ids: Ids, state: Path, pinned: str
) -> StoreIdentity:
    """Identify the store, make it in an empty local place, and prove that the bucket is fit.

    The proof is made once for a store, a release and a machine; `lakehouse doctor` makes it anew.

    Args:
        state: folder in which this machine remembers stores by URL.
        pinned: the store id that the configuration demands; "" demands none.

    Raises:
        not_found: no store here, and the place is no empty local folder.
        conflict: another store than was here before, or than is demanded.
        forbidden: the bucket fails the conformance probe; ``failed`` names the checks (P9).
    """
    store = RetryingStore(buckets.raw(PRIMARY), clock, ids, _AT_START)
    with _said_of(store.url):
        identity = await _identify(store, clock, ids, state, pinned)
    proof = _proof(state, store.url, identity.store_id)
    if not proof.is_file():
        with _said_of(store.url):
            report = await probe_store(buckets.raw(PRIMARY), PRIMARY, clock, ids)
        refuse_unfit(report)
    remember(state, store.url, identity.store_id)
    if not store.url.startswith("memory:"):
        proof.parent.mkdir(parents=True, exist_ok=True)
        proof.touch()
    return identity


def _proof(state: Path, url: str, store_id: str) -> Path:
    """A mark that this bucket passed, seen from this machine: a probe costs requests and time."""
    name = hashlib.sha256(f"{url} {store_id} {__version__}".encode()).hexdigest()[:32]
    return state / "probed" / name


async def initialise(
    buckets: Buckets, clock: Clock, ids: Ids, state: Path, pinned: str
) -> StoreIdentity:
    """Make a store in the primary bucket, on a server too, or return the one that is there."""
    store = RetryingStore(buckets.raw(PRIMARY), clock, ids, _AT_START)
    # First who is there: a bucket that is missing or closed to us is no matter of conformance.
    with _said_of(store.url):
        confirm(state, store.url, await _found(store), pinned)
        report = await probe_store(buckets.raw(PRIMARY), PRIMARY, clock, ids)
    refuse_unfit(report)
    identity = await init_store(store, clock, ids)
    remember(state, store.url, identity.store_id)
    return identity


@contextmanager
def _said_of(url: str) -> Iterator[None]:
    """Errors of the store name the place, and what to do about it."""
    try:
        yield
    except LakehouseError as error:
        fields = {"url": url, "hint": _hint(error, url), **error.fields}
        if error.fields.get("what") == "bucket":
            fields["hint"] = "check the url, or make the bucket: lakehouse init --create-bucket"
        raise LakehouseError(error.kind, error.message, **fields) from error


def _hint(error: LakehouseError, url: str) -> str:
    if url.startswith("file:"):
        return "check that the folder can be written to, its disk is mounted and has space"
    if error.kind is ErrorKind.FORBIDDEN:
        return "check the credentials that buckets.primary.secret_ref names: lakehouse doctor"
    if error.kind in (ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT):
        return "check buckets.primary.endpoint, and that its server is up: lakehouse doctor"
    return ""


async def _found(store: ObjectStore) -> StoreIdentity | None:
    try:
        return await read_identity(store)
    except LakehouseError as error:
        if error.kind is not ErrorKind.NOT_FOUND or error.fields.get("what") == "bucket":
            raise
        return None


async def _identify(
    store: ObjectStore, clock: Clock, ids: Ids, state: Path, pinned: str
) -> StoreIdentity:
    found = await _found(store)
    confirm(state, store.url, found, pinned)
    if found is not None:
        return found
    if not store.url.startswith(_MADE_BY_ITSELF):
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "there is no store in the primary bucket",
            url=store.url,
            hint="check the url, or make a store there with: lakehouse init",
        )
    if await store.list(limit=1):
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the folder of the primary bucket is not empty and holds no store",
            url=store.url,
            hint="check the url, or make a store there all the same with: lakehouse init",
        )
    return await init_store(store, clock, ids)


class PositionNote:
    """Keeps this machine's note of the newest record it saw, so that a bucket which was rolled back
    is known for that. Best effort: a folder that cannot be written stops no node."""

    def __init__(
        self, state: Path, url: str, store_id: str, position: Callable[[], tuple[int, str]]
    ) -> None:
        self._state = state
        self._url = url
        self._store_id = store_id
        self._position = position
        self._noted = -1

    async def refresh(self) -> None:
        """Write the note if there are enough records since the last one."""
        if self._noted < 0 or self._position()[0] - self._noted >= _NOTE_RECORDS:
            await self.close()

    async def close(self) -> None:
        """Write the note."""
        position = self._position()
        self._noted = position[0]
        await run_blocking(remember_position, self._state, self._url, self._store_id, position)
