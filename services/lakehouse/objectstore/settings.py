"""A bucket as it is configured, and what it may cost where it is in trouble."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ResilienceSettings:
    """Part of section ``storage``: what a bucket in trouble may cost, each bucket for itself.

    Attributes:
        attempt_seconds: one attempt, or one silence of a stream, may take so long, and
        bytes_per_second_min: so much longer as its body takes at this rate.
        in_flight_max: attempts at once; more wait for a place.
        waiting_max: that wait; more are refused as ``unavailable``.
        breaker_failures: faults in a row (no answer, 5xx) after which requests are refused unsent;
            0 is never.
        breaker_seconds: the first and the last of these faults are at least so far apart.
        probe_seconds: between looks whether such a bucket is back; each is one request.
        secrets_seconds: after which a bucket's ``secret_ref`` is resolved again; 0 is only when the
            server refuses the keys.
    """

    attempt_seconds: float = 15.0
    bytes_per_second_min: int = 1 << 20
    in_flight_max: int = 64
    waiting_max: int = 1024
    breaker_failures: int = 5
    breaker_seconds: float = 2.0
    probe_seconds: float = 1.0
    secrets_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class SecretsSettings:
    """Part of section ``storage``: AWS Secrets Manager, for references ``aws-sm:name``.

    ``secrets_endpoint`` and ``secrets_region``: "" is as the AWS tools find them (their variables
    and files); the region of an ARN goes before.
    """

    secrets_endpoint: str = ""
    secrets_region: str = ""


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """Keys of an S3 account; the secret parts never appear in a repr."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """One bucket as configured.

    Attributes:
        url: ``s3://bucket/prefix``, ``file:./path``, ``file:///path`` or ``memory://name``.
        endpoint: ``http(s)://host:port`` of an S3 server; "" is AWS.
        bucket_class: ``primary``, ``tenant`` or ``profile:{user}``; "" if not said.
        residency: where its bytes must stay, as a label; "" anywhere.
        credentials: None lets the S3 libraries look in the environment and the instance.
        secret_ref: where the keys are (``kit.secrets``); resolved when the bucket is first used,
            and again where they rotate. "" takes ``credentials``.
        attempt_seconds, in_flight_max: for this bucket alone; 0 is as for all.
    """

    name: str
    url: str
    endpoint: str = ""
    region: str = "us-east-1"
    bucket_class: str = ""
    residency: str = ""
    credentials: S3Credentials | None = None
    secret_ref: str = ""
    attempt_seconds: float = 0.0
    in_flight_max: int = 0
