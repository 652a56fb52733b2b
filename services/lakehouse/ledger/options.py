"""How a ledger is to be opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lakehouse.ledger.record import WriterInfo
from lakehouse.ledger.settings import LedgerSettings

ProbeHolder = Callable[[WriterInfo], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How to open.

    Attributes:
        prefix: folder of the ledger below the bucket URL's prefix.
        probe_holder: asks the holder's endpoint whether that writer id lives there; ``None``
            where nobody can be asked, then an open ledger is taken over.
        take_over: do not ask.
        objects: folder of the data whose presence proves that there was a chain; "" for none.
        seen: number and SHA-256 of a record that was in the chain once; ``None``: none is known.
    """

    prefix: str = "_catalog"
    settings: LedgerSettings = LedgerSettings()
    probe_holder: ProbeHolder | None = None
    take_over: bool = False
    objects: str = ""
    seen: tuple[int, str] | None = None
