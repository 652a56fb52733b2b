"""What the catalog can be told; every value has a default."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from lakehouse.ledger.record import WriterInfo
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.model.refs import PRIMARY

__all__ = ["CatalogSettings"]

_DAY: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class CatalogSettings:
    """Settings of catalogd.

    Attributes:
        bucket: the bucket that has the ledger.
        store_id: that the caller has read and checked; "" makes ``open_catalog`` read it.
        session_seconds: a session ends after so long without a heartbeat.
        session_check_seconds: how often that is looked at.
        history_seconds: time travel reaches so far back; collection gives up what is older.
        undrop_seconds: collection purges what was dropped longer ago.
        collect_seconds: between collections that run by themselves; 0 is never.
        object_bytes_max: larger foreign objects are streamed through a temporary file.
        parallel: objects read at once by one call.
        sample_rows: rows of a foreign object looked at for personal data.
        take_over, probe_holder, seen: as in ``ledger.options.OpenOptions``.
    """

    bucket: str = PRIMARY
    prefix: str = "_catalog"
    store_id: str = ""
    session_seconds: float = 60.0
    session_check_seconds: float = 5.0
    history_seconds: float = 30 * _DAY
    undrop_seconds: float = 7 * _DAY
    collect_seconds: float = 3600.0
    object_bytes_max: int = 32 * 1024 * 1024
    parallel: int = 16
    sample_rows: int = 1000
    ledger: LedgerSettings = LedgerSettings()
    take_over: bool = False
    probe_holder: Callable[[WriterInfo], Awaitable[bool]] | None = None
    seen: tuple[int, str] | None = None
