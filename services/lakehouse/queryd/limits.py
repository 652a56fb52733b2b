"""The limits of one query: the server's, lowered by the request's."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lakehouse.contracts.query import QueryLimits
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.queryd.settings import MIB, QuerySettings

MEMORY_BYTES_MIN = 16 * MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may use."""

    timeout_seconds: float
    rows_max: int
    bytes_max: int
    memory_bytes: int


def effective_limits(settings: QuerySettings, asked: QueryLimits) -> Limits:
    """The lower of both, each. Raises ``invalid`` for a limit that is not above zero."""
    given: dict[str, float | int | None] = {
        "timeout_seconds": asked.timeout_seconds,
        "rows_max": asked.rows_max,
        "bytes_max": asked.bytes_max,
        "memory_bytes_max": asked.memory_bytes_max,
    }
    for name, value in given.items():
        if value is not None and (not math.isfinite(value) or value <= 0):
            raise LakehouseError(
                ErrorKind.INVALID, "a limit must be above zero", limit=name, value=str(value)
            )
    memory = asked.memory_bytes_max or settings.memory_bytes_max
    return Limits(
        min(asked.timeout_seconds or settings.timeout_seconds, settings.timeout_seconds),
        min(asked.rows_max or settings.rows_max, settings.rows_max),
        min(asked.bytes_max or settings.bytes_max, settings.bytes_max),
        max(MEMORY_BYTES_MIN, min(memory, settings.memory_bytes_max)),
    )
