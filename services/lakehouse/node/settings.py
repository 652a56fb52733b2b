"""What the node itself is told: where to listen, which roles to run, whom to ask for the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

ROLES: Final = ("gateway", "storaged", "catalogd", "ingestd", "queryd", "vectord", "janitor")


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """Part of section ``gateway``: addresses are ``host:port``; port 0 takes a free one.

    ``auth``: ``off`` (loopback only) or ``tokens``.
    """

    http: str = "127.0.0.1:3100"
    grpc: str = "127.0.0.1:3101"
    auth: str = "off"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Section ``node``.

    Attributes:
        roles: run in this process; the contracts of the others come from ``peers``.
        advertise: ``host:port`` under which other machines reach this node's gRPC, so that they can
            see whether the holder of the store still answers; "": only this machine can see it.
        store_id: the id that ``store.json`` of the primary bucket must have; "" accepts any.
        state_dir: where this machine remembers the stores it has seen; "" is the user's state
            folder (``$XDG_STATE_HOME/lakehouse``).
        accept_older: for one start: open the store although it is older than this machine has seen
            it (its bucket was restored from a backup); what was committed since is given up.
        drain_seconds: how long a graceful stop lets running requests finish.
        secret_ref: where the service token is that this node shows to peers for its own calls
            (sessions of its ingests); those of callers are passed on as they are.
        peers: role -> ``host:port`` of the gRPC endpoint that serves it.
    """

    roles: tuple[str, ...] = ROLES
    advertise: str = ""
    store_id: str = ""
    state_dir: str = ""
    accept_older: bool = False
    drain_seconds: float = 10.0
    log_level: str = "info"
    log_format: str = "auto"
    secret_ref: str = ""
    peers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """Section ``telemetry``: what this process shows of itself, and where.

    Attributes:
        http: ``host:port`` of ``/health``, ``/ready``, ``/version`` and ``/metrics`` in a process
            without a gateway; "" is none. A gateway has them at its own address.
        traces: ``off`` or ``otlp``.
        endpoint: base URL of an OTLP receiver that speaks HTTP; spans go to ``/v1/traces`` there.
        sample_ratio: the part of traces that is kept, 0 to 1; one begun elsewhere keeps its fate.
        access_log: ``off``, ``debug`` or ``info``: the level at which each request is logged.
        slow_request_seconds: requests and calls beyond it are logged as warnings; 0 is never.
    """

    http: str = ""
    traces: str = "off"
    endpoint: str = "http://127.0.0.1:4318"
    sample_ratio: float = 1.0
    access_log: str = "off"
    slow_request_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class BucketEntry:
    """Section ``buckets.<name>``, as written; the secret is still a reference.

    ``bucket_class`` is the key ``class``; ``attempt_seconds`` and ``in_flight_max`` are those of
    section ``storage`` where they are 0.
    """

    url: str = ""
    endpoint: str = ""
    region: str = "us-east-1"
    bucket_class: str = ""
    residency: str = ""
    secret_ref: str = ""
    attempt_seconds: float = 0.0
    in_flight_max: int = 0
