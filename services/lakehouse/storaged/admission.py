"""Which buckets may be taken up at run time: names, places, endpoints.

A request comes from an operator over the network and not from the machine's own configuration, so
it must not make the node read the machine's files or speak to what only the machine can reach.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from lakehouse.contracts.storage import AddBucketRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.model.buckets import check_bucket_class, check_bucket_name
from lakehouse.model.refs import PRIMARY, check_key
from lakehouse.model.residency import check_label
from lakehouse.objectstore.places import as_host, inside, overlap, site_of, unwrapped
from lakehouse.objectstore.settings import BucketSettings
from lakehouse.storaged.settings import RegistrySettings

__all__ = ["check_endpoint", "check_request", "led_to"]

_TEXT_MAX: Final = 1024
_REGION: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_HTTPS_PORT: Final = 443
# The cloud's own service to its machines: keys to everything stand there for whoever asks.
_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")
)
_RESOLVE_SECONDS: Final = 3.0
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _invalid(message: str, **fields: str) -> LakehouseError:
    return LakehouseError(ErrorKind.INVALID, message, **fields)


def check_request(request: AddBucketRequest, settings: RegistrySettings) -> None:
    """Raise ``invalid`` for a name, class, label or URL that no bucket may have, ``forbidden`` for
    one that only the configuration may give. Asks nobody but the local file system."""
    name = check_bucket_name(request.name)
    if name == PRIMARY:
        raise _invalid("the primary bucket is the configuration's", bucket=name)
    check_bucket_class(name, request.bucket_class)
    check_label(request.residency, name)
    for field in ("url", "endpoint", "region", "secret_ref"):
        text = str(getattr(request, field))
        if len(text) > _TEXT_MAX or not text.isprintable():
            # The text itself is not repeated: it may hold what should not be shown.
            raise _invalid("a text is too long or not printable", bucket=name, field=field)
    if not _REGION.fullmatch(request.region):
        # It becomes part of the server's name where no endpoint is given.
        raise _invalid("the region is none, such as eu-central-1", bucket=name, field="region")
    parts = _parts(request)
    if parts.scheme == "file":
        _check_folder(request, parts, settings)
    elif parts.scheme == "s3":
        _check_s3(request, parts, settings)
    else:
        raise _invalid(
            "a bucket added at run time is s3://bucket/prefix or file:///folder", bucket=name
        )


def _parts(request: AddBucketRequest) -> SplitResult:
    try:
        parts = urlsplit(request.url)
        _ = parts.port
    except ValueError:
        raise _invalid("the bucket's url is none", bucket=request.name) from None
    if parts.query or parts.fragment or parts.username or parts.password or "@" in parts.netloc:
        raise _invalid(
            "the bucket's url must not carry credentials, a query or a fragment",
            bucket=request.name,
        )
    return parts


def _check_folder(
    request: AddBucketRequest, parts: SplitResult, settings: RegistrySettings
) -> None:
    path = Path(unquote(parts.path))
    odd = not path.is_absolute() or "\0" in str(path)
    if parts.netloc not in ("", "localhost") or odd or request.endpoint:
        raise _invalid("a local bucket is file:///folder, without an endpoint", bucket=request.name)
    if not settings.local_root:
        raise LakehouseError(
            ErrorKind.FORBIDDEN,
            "local folders are not taken up at run time on this node",
            bucket=request.name,
            hint="declare it in lakehouse.toml, or set storage.local_root",
        )
    # Links are followed first: what counts is where the bytes would be.
    root, place = Path(settings.local_root).resolve(), path.resolve()
    if root not in place.parents:
        raise LakehouseError(
            ErrorKind.FORBIDDEN,
            "the folder is not below the one that the configuration allows",
            bucket=request.name,
            hint="it must be below storage.local_root",
        )


def _check_s3(request: AddBucketRequest, parts: SplitResult, settings: RegistrySettings) -> None:
    prefix = parts.path.strip("/")
    if not parts.hostname or parts.netloc != parts.netloc.lower() or ":" in parts.netloc:
        raise _invalid("the bucket's url is s3://bucket/prefix", bucket=request.name)
    if prefix:
        check_key(prefix)
    if not request.endpoint:
        return
    try:
        endpoint = urlsplit(request.endpoint)
        host, port = endpoint.hostname, endpoint.port
    except ValueError:
        host = port = None
        endpoint = SplitResult("", "", "", "", "")
    extra = endpoint.query or endpoint.fragment or "@" in endpoint.netloc
    if endpoint.scheme not in ("http", "https") or not host or extra or port == 0:
        raise _invalid(
            "the endpoint is https://host:port, without credentials", bucket=request.name
        )
    if endpoint.scheme == "http" and not settings.http_endpoints and not _is_loopback(host):
        raise LakehouseError(
            ErrorKind.FORBIDDEN,
            "the endpoint must be https: over http anybody on the way reads and changes objects",
            bucket=request.name,
            hint="use https, or allow storage.http_endpoints in the configuration",
        )
    if not request.secret_ref:
        # Keys of the machine's own would be shown to whatever server the request names.
        raise _invalid(
            "a bucket with an endpoint needs keys of its own",
            bucket=request.name,
            hint="set secret_ref to env:NAME, file:/path or aws-sm:name",
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return unwrapped(ipaddress.ip_address(host)).is_loopback
    except ValueError:
        return False


def _refused(address: Address) -> bool:
    plain = unwrapped(address)
    return (
        plain in _METADATA
        or plain.is_link_local
        or plain.is_multicast
        or plain.is_unspecified
        or (plain.is_reserved and not plain.is_loopback)
    )


async def check_endpoint(request: AddBucketRequest) -> None:
    """Raise ``forbidden`` if the endpoint's name leads to an address that no S3 server has: link
    local, a cloud's metadata service, multicast; ``unavailable`` if it leads nowhere.

    Every address counts, and what the name says as the system resolves it: a decimal number or a
    wrapped address is one as well. An operator is trusted with addresses of the own network.
    """
    if not request.endpoint:
        return
    parts = urlsplit(request.endpoint)
    host = parts.hostname or ""
    try:
        found = await run_blocking(
            socket.getaddrinfo, host, parts.port or _HTTPS_PORT, 0, socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as error:
        raise LakehouseError(
            ErrorKind.UNAVAILABLE,
            "the endpoint's name cannot be resolved",
            bucket=request.name,
            host=host[:255],
        ) from error
    for each in found:
        address = ipaddress.ip_address(str(each[4][0]).partition("%")[0])
        if _refused(address):
            raise LakehouseError(
                ErrorKind.FORBIDDEN,
                "the endpoint leads to an address that is no object store's",
                bucket=request.name,
                host=host[:255],
            )


async def led_to(request: AddBucketRequest, others: Iterable[BucketSettings]) -> str:
    """The name of a bucket that is, or holds, or lies in the new one's place by what the names of
    their servers lead to; "" if there is none. Names that lead nowhere are passed over."""
    mine = site_of(request)
    near = [(other.name, site_of(other), other.endpoint) for other in others]
    near = [each for each in near if mine and each[1] and inside(mine, each[1])]
    if mine is None or not mine.hosts or not near:
        return ""
    mine = replace(mine, hosts=mine.hosts | await _resolved(request.endpoint))
    found = await asyncio.gather(*(_resolved(endpoint) for _, _, endpoint in near))
    for (name, site, _), hosts in zip(near, found, strict=True):
        if site is not None and overlap(mine, replace(site, hosts=site.hosts | hosts)):
            return name
    return ""


async def _resolved(endpoint: str) -> frozenset[str]:
    host = urlsplit(endpoint).hostname
    if not host:
        return frozenset()
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await run_blocking(socket.getaddrinfo, host, None, 0, socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return frozenset()
    return frozenset(as_host(str(each[4][0]).partition("%")[0]) for each in found)
