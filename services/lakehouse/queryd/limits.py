"""The limits of one query: the server's, lowered by the request's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from lakehouse.contracts.query import QueryLimits
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.queryd.settings import MIB, QuerySettings

# Below these a limit could not be kept: overruns are looked for every 0.05 s, and an engine needs
# some memory for any statement.
TIMEOUT_SECONDS_MIN: Final = 0.1
MEMORY_BYTES_MIN: Final = 16 * MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may use."""

    timeout_seconds: float
    rows_max: int
    bytes_max: int
    memory_bytes: int


def effective_limits(settings: QuerySettings, asked: QueryLimits) -> Limits:
    """The lower of both, each. Raises ``invalid`` for a limit below its minimum."""
    given: tuple[tuple[str, float | None, float], ...] = (
        ("timeout_seconds", asked.timeout_seconds, TIMEOUT_SECONDS_MIN),
        ("rows_max", asked.rows_max, 1),
        ("bytes_max", asked.bytes_max, 1),
        ("memory_bytes_max", asked.memory_bytes_max, MEMORY_BYTES_MIN),
    )
    for name, value, least in given:
        if value is not None and not (math.isfinite(value) and value >= least):
            raise LakehouseError(
                ErrorKind.INVALID,
                "a limit is below its minimum",
                limit=name,
                value=str(value),
                minimum=least,
            )
    return Limits(
        min(asked.timeout_seconds or settings.timeout_seconds, settings.timeout_seconds),
        min(asked.rows_max or settings.rows_max, settings.rows_max),
        min(asked.bytes_max or settings.bytes_max, settings.bytes_max),
        min(asked.memory_bytes_max or settings.memory_bytes_max, settings.memory_bytes_max),
    )
