"""A bucket as it is configured."""

from __future__ import annotations

from dataclasses import dataclass, field


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
    """

    name: str
    url: str
    endpoint: str = ""
    region: str = "us-east-1"
    bucket_class: str = ""
    residency: str = ""
    credentials: S3Credentials | None = None
