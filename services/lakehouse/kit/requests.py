"""The log of requests: every one, or only those that took long."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

log = logging.getLogger(__name__)

LEVELS: Final = {"off": 0, "debug": logging.DEBUG, "info": logging.INFO}


@dataclass(frozen=True, slots=True)
class RequestLog:
    """What is written when a request has been answered.

    Attributes:
        level: of the line for each request; 0 writes none.
        slow_seconds: a request beyond it is a warning; 0 is never.
    """

    level: int = 0
    slow_seconds: float = 0.0

    def wants(self, seconds: float) -> bool:
        """Whether a request that took so long gets a line."""
        return self.level > 0 or 0 < self.slow_seconds < seconds

    def ended(
        self, protocol: str, request: str, status: str, seconds: float, about: Mapping[str, str]
    ) -> None:
        """A request came to its end.

        Args:
            request: a route or a method, of a closed set: never a path as it came, which holds
                names that users gave.
            about: whose it was, and its ids; empty values are left out.
        """
        told: dict[str, str | float] = {
            "protocol": protocol,
            "request": request,
            "status": status,
            "seconds": round(seconds, 6),
        }
        told |= {key: value for key, value in about.items() if value}
        if 0 < self.slow_seconds < seconds:
            log.warning("a slow request", extra=told)
        elif self.level:
            log.log(self.level, "request", extra=told)
