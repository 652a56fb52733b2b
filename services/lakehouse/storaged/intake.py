"""A body on its way into a bucket: in blocks, hashed as it comes, refused where it is not as said.

A refusal is raised before the blocks end, so that whoever stores them never takes a body that must
not be stored for a whole one.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Final

from lakehouse.contracts.objects import (
    CONDITIONAL_BYTES_MAX,
    OBJECT_BYTES_MAX,
    PutObjectRequest,
)
from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.kit.blocking import run_blocking

Check = Callable[[], Awaitable[None]]

BLOCK_BYTES: Final = 4 << 20
_HEX: Final = re.compile(r"[0-9a-f]*")


class Waiting:
    """Memory that bodies take before they are stored or have a place among the large ones; they
    are refused where it is more than ``bytes_max``."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held_bytes = 0


class Share:
    """What one body takes of it, from its first chunk until ``end``."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting: Waiting | None = waiting
        self._held_bytes = 0

    async def count(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The body, counted. Raises ``exhausted``."""
        async for chunk in body:
            self._take(len(chunk))
            yield chunk

    def end(self) -> None:
        """It takes nothing more, and nothing of it is counted any more; idempotent."""
        if self._waiting is not None:
            self._waiting.held_bytes -= self._held_bytes
            self._waiting = None

    def _take(self, size: int) -> None:
        waiting = self._waiting
        if waiting is None:
            return
        if waiting.held_bytes + size > waiting.bytes_max:
            raise LakehouseError(
                ErrorKind.EXHAUSTED,
                "too many objects are being received",
                held_bytes=waiting.held_bytes,
                bytes_max=waiting.bytes_max,
                retry_after_seconds=2,
                hint="nothing was stored; send it again",
            )
        waiting.held_bytes += size
        self._held_bytes += size


class Intake:
    """The blocks of one body; size and digests are known once all were taken.

    Args:
        body: chunks of any size.
        request: what is stated of it. Raises ``invalid`` for a checksum that is none, and with 413
            for a size that is too large.
    """

    def __init__(self, body: AsyncIterator[bytes], request: PutObjectRequest) -> None:
        self._body = body
        self._request = request
        self._limit = CONDITIONAL_BYTES_MAX if request.if_absent else OBJECT_BYTES_MAX
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if request.md5 else None
        self.size_bytes = 0
        _check_digest("sha256", request.sha256, self._sha256.digest_size)
        _check_digest("md5", request.md5, 16)
        self._check_size(request.size_bytes or 0)

    @property
    def sha256(self) -> str:
        """In hexadecimal, of all that was taken."""
        return self._sha256.hexdigest()

    async def blocks(self, check: Check) -> AsyncGenerator[bytes, None]:
        """The body in blocks of ``BLOCK_BYTES`` or a little more; the last may be smaller.

        ``check`` is awaited once all has come. Raises ``invalid`` where the body is larger than may
        be (413), or not of the size or checksum that was stated; and what the body itself raises.
        """
        coming = asyncio.ensure_future(self._next_block())
        try:
            while block := await coming:
                # The next block comes, and this one is hashed, while this one is stored.
                coming = asyncio.ensure_future(self._next_block())
                hashing = asyncio.ensure_future(run_blocking(self._hash, block))
                try:
                    yield block
                finally:
                    await hashing
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        self._check_whole()
        await check()

    async def _next_block(self) -> bytes:
        held: list[bytes] = []
        size = 0
        async for chunk in self._body:
            held.append(chunk)
            size += len(chunk)
            self._check_size(self.size_bytes + size)
            if size >= BLOCK_BYTES:
                break
        self.size_bytes += size
        return b"".join(held)

    def _hash(self, block: bytes) -> None:
        self._sha256.update(block)
        if self._md5 is not None:
            self._md5.update(block)

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            conditional = self._request.if_absent
            raise LakehouseError(
                ErrorKind.INVALID,
                "the body is too large" + (" for a put on a condition" if conditional else ""),
                http_status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value,
                bytes_max=self._limit,
                hint="without the condition it may be larger: put it under a key that nobody else"
                " uses"
                if conditional
                else "split it into several objects",
            )

    def _check_whole(self) -> None:
        said = self._request
        if said.size_bytes is not None and said.size_bytes != self.size_bytes:
            raise _not_as_said("size_bytes", said.size_bytes, self.size_bytes)
        if said.sha256 and said.sha256 != self.sha256:
            raise _not_as_said("sha256", said.sha256, self.sha256)
        if self._md5 is not None and said.md5 != self._md5.hexdigest():
            raise _not_as_said("md5", said.md5, self._md5.hexdigest())


def _check_digest(name: str, text: str, size: int) -> None:
    if text and not (len(text) == 2 * size and _HEX.fullmatch(text)):
        raise LakehouseError(
            ErrorKind.INVALID,
            f"{name} must be {2 * size} hexadecimal digits in lower case",
            value=ascii(text[:80])[1:-1],
        )


def _not_as_said(what: str, stated: FieldValue, received: FieldValue) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID,
        "the body that came is not the one that was announced",
        checked=what,
        stated=stated,
        received=received,
        hint="nothing was stored; send it again",
    )
