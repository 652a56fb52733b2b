"""What the error journal may use, and which buckets may be added at run time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """Part of section ``storage``.

    Attributes:
        errors_ring: failed attempts held in memory, the newest (about 2 KB each); what is asked of
            them needs no request to the primary.
        errors_spool_dir: local folder where they wait until the primary has them; it outlives the
            process, and one of another process that has ended is taken over.
        errors_spool_events_max: at most so many wait there; what comes beyond is dropped and
            counted.
        errors_retention_days: older ones are given up; 0 keeps them for ever.
    """

    errors_ring: int = 10_000
    errors_spool_dir: str = "./data/errors"
    errors_spool_events_max: int = 100_000
    errors_retention_days: float = 30.0


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """Part of section ``storage``: buckets that an operator adds at run time.

    Attributes:
        local_root: folder below which ``file:`` buckets may be added; "" allows none.
        http_endpoints: endpoints without TLS are taken although they are not on this machine.
        follow_seconds: between looks at what other processes of the store added and removed.
    """

    local_root: str = ""
    http_endpoints: bool = False
    follow_seconds: float = 2.0
