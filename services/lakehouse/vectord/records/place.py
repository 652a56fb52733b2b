"""Where retrievals are kept: a log and objects below ``_retrievals/`` of the primary."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lakehouse.appendlog.layout import LogLayout
from lakehouse.contracts.catalog import StatusRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.ids import ulid_millis
from lakehouse.model.refs import PRIMARY
from lakehouse.model.retrieval import Retrieval
from lakehouse.objectstore.identity import read_identity
from lakehouse.objectstore.port import ObjectMeta, ObjectStore
from lakehouse.objectstore.scoped import ScopedStore
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.vectord.identity import own_context
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.records.values import packed, unpacked

__all__ = ["FOLDER", "LAYOUT", "Place", "local_folder"]

FOLDER: Final = "_retrievals/"
LAYOUT: Final = LogLayout(f"{FOLDER}searches")
OBJECTS: Final = f"{FOLDER}objects/"
PINNED: Final = f"{FOLDER}pinned/"
_SUFFIX: Final = ".json.zst"
_PROVE_SECONDS: Final = 5.0
_PAGE: Final = 1000
_PLACE_DIGITS: Final = 16


def local_folder(parts: VectorParts, *below: str) -> str:
    """Where something waits on this machine for the store in the primary, and for it alone: a
    machine may run several, and what one of them left is no other's. "" where nothing does."""
    folder = parts.retrievals.spool_dir
    if not folder:
        return ""
    primary = parts.buckets.settings(PRIMARY)
    digest = hashlib.sha256(f"{primary.endpoint} {primary.url}".encode()).hexdigest()
    return str(Path(folder, *below, digest[:_PLACE_DIGITS]))


class _Proof:
    """Raises while it is not known that the store in the primary is the catalog's."""

    def __init__(self, parts: VectorParts) -> None:
        self._parts = parts
        self._proven = False

    async def check(self, store: ObjectStore) -> None:
        if self._proven:
            return
        try:
            async with asyncio.timeout(_PROVE_SECONDS):
                identity = await read_identity(store)
                ctx = own_context(self._parts.ids)
                known = (await self._parts.catalog.status(ctx, StatusRequest())).store_id
        except TimeoutError as error:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE, "nobody said in time which store this is", url=store.url
            ) from error
        if known != identity.store_id:
            raise LakehouseError(
                ErrorKind.FORBIDDEN,
                "the store in the primary bucket is not the catalog's",
                found=identity.store_id,
                catalog=known,
                key="buckets.primary.url",
            )
        self._proven = True


class _ProvenStore(ForwardingStore):
    """Writes and deletes nothing before it is proven that this is the place it should be."""

    def __init__(self, inner: ObjectStore, proof: _Proof) -> None:
        super().__init__(inner)
        self._proof = proof

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        await self._proof.check(self.inner)
        return await self.inner.put(key, data, if_absent=if_absent)

    async def delete(self, keys: Sequence[str]) -> None:
        await self._proof.check(self.inner)
        await self.inner.delete(keys)


class Place:
    """The log's store, and objects by the id of their retrieval.

    Args:
        store: in place of the primary, for both.
    """

    def __init__(self, parts: VectorParts, store: ObjectStore | None = None) -> None:
        proof = _Proof(parts)
        buckets = parts.buckets
        self.log = _owned(store or buckets.raw(PRIMARY), proof)
        self._objects = _owned(store or buckets.get(PRIMARY), proof)

    async def put(self, known: str, body: bytes) -> None:
        """The object of a record."""
        await self._objects.put(f"{OBJECTS}{known}{_SUFFIX}", body)

    async def get(self, known: str, sha256: str) -> Retrieval:
        """What ``put`` wrote. Raises ``corrupt`` where it is damaged or gone."""
        key = f"{OBJECTS}{known}{_SUFFIX}"
        found = await self._read(key, sha256)
        if found is None:
            raise LakehouseError(
                ErrorKind.CORRUPT,
                "the record of a retrieval is damaged",
                key=key,
                reason="its object is missing",
                hint="restore the object from a backup; the list shows what the log has of it",
            )
        return found

    async def pin(self, retrieval: Retrieval) -> None:
        """Keep it beyond the log's retention."""
        body = await run_blocking(packed, retrieval)
        await self._objects.put(f"{PINNED}{retrieval.id}{_SUFFIX}", body)

    async def pinned(self, known: str) -> Retrieval | None:
        """What ``pin`` kept, None where nothing is."""
        return await self._read(f"{PINNED}{known}{_SUFFIX}")

    async def unpin(self, known: str) -> None:
        await self._objects.delete([f"{PINNED}{known}{_SUFFIX}"])

    async def clear(self, before_ms: int) -> int:
        """Delete objects of records that were made before; how many."""
        count = 0
        while True:
            page = await self._objects.list(OBJECTS, limit=_PAGE)
            old = [meta.key for meta in page if _made_ms(meta.key, before_ms) < before_ms]
            if not old:
                return count
            await self._objects.delete(old)
            count += len(old)

    async def _read(self, key: str, sha256: str = "") -> Retrieval | None:
        try:
            data = await self._objects.get(key)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return None
        return await run_blocking(unpacked, data, key, sha256)


def _owned(store: ObjectStore, proof: _Proof) -> ObjectStore:
    return ScopedStore(_ProvenStore(store, proof), (FOLDER,))


def _made_ms(key: str, otherwise: int) -> int:
    try:
        return ulid_millis(key.removeprefix(OBJECTS).removesuffix(_SUFFIX))
    except ValueError:
        return otherwise  # not one of ours: it is left alone
