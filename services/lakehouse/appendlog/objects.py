"""The objects of a log beside its slots: what is merged, what retention gave up."""

from __future__ import annotations

from typing import Final

from lakehouse.appendlog.batch import Header, damaged
from lakehouse.appendlog.layout import LogLayout, Range
from lakehouse.appendlog.merged import digest, pieces
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.ledger.access import Access
from lakehouse.objectstore.port import ObjectMeta

NOTHING: Final = -1
_LOOKS: Final = 8


async def checked(data: bytes, one: Range) -> bytes:
    """``data``, which is what the name of ``one`` says; raises ``corrupt``."""
    if await run_blocking(digest, data) != one.sha256:
        raise damaged("a merged object of the log does not match its checksum", one.key)
    return data


class LogObjects:
    """Reads only; each call asks the store."""

    def __init__(self, access: Access, layout: LogLayout) -> None:
        self._access = access
        self._layout = layout

    async def retained(self) -> int:
        """Batches up to this one are given up, -1 for none. One LIST of one key."""
        found = await self._access.list_keys(self._layout.retained, limit=1)
        return self._layout.retained_number(found[0]) if found else NOTHING

    async def merged(self, first: int = 0) -> list[Range]:
        """Merged objects that begin at batch ``first`` or later, by their beginning; one with a
        foreign name is left out."""
        found: list[Range] = []
        start = self._layout.merged_from(max(first, 0))
        while True:
            page = await self._page(start)
            for meta in page:
                try:
                    found.append(self._layout.range_of(meta.key, meta.size_bytes))
                except LakehouseError:
                    continue
            if not page:
                return found
            start = page[-1].key
            if len(page) < 1000:
                return found

    async def _page(self, start_after: str) -> list[ObjectMeta]:
        store, prefix = self._access.store, self._layout.merged
        return await self._access.patiently(lambda: store.list(prefix, start_after=start_after))

    async def read_merged(self, one: Range) -> bytes:
        """The bytes of a merged object, verified. Raises ``not_found``, ``corrupt``."""
        return await self._access.read(one.key, lambda data: checked(data, one))

    async def header_at(self, n: int) -> Header | None:
        """The header of batch ``n`` from a merged object; ``None`` if none has it."""
        for _ in range(_LOOKS):
            gone = False
            for one in await self.merged():
                if not one.first <= n <= one.last:
                    continue
                try:
                    data = await self.read_merged(one)
                except LakehouseError as error:
                    if error.kind not in (ErrorKind.NOT_FOUND, ErrorKind.CORRUPT):
                        raise
                    gone = gone or error.kind is ErrorKind.NOT_FOUND
                    continue
                for piece in pieces(data):
                    if piece.header is not None and piece.header.n == n:
                        return piece.header
            if not gone:
                break
            # A wider one took its place since it was listed, or retention took it away.
        return None
