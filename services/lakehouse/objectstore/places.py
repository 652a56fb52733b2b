"""Whether two buckets are, in truth, one place, or one lies inside the other.

An object belongs to exactly one bucket, and no bucket reaches into another's ledger. Nothing here
asks a network: names are as they are written; who resolved them adds what they lead to.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

__all__ = ["Placed", "Site", "as_host", "inside", "overlap", "overlapping", "site_of", "unwrapped"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_PORTS: Final = {"http": 80, "https": 443}
_LOOPBACK: Final = "loopback"
_AWS: Final = "aws"
# A bucket's name is one bucket's in all regions, whichever of the endpoints is asked.
_AWS_DOMAINS: Final = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


class Placed(Protocol):
    """What says where a bucket is: its settings, its configuration, or a request for it."""

    @property
    def url(self) -> str: ...

    @property
    def endpoint(self) -> str: ...


class Named(Placed, Protocol):
    """One with a name."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Site:
    """Where a bucket's objects are.

    Attributes:
        scheme: ``s3``, ``file`` or ``memory``.
        parts: from the outermost inwards; of S3, the server's bucket and each part of the prefix.
        hosts: what the server is known by, in one spelling each; empty but for S3.
        port: of the server, 0 but for S3.
    """

    scheme: str
    parts: tuple[str, ...]
    hosts: frozenset[str] = frozenset()
    port: int = 0


def site_of(bucket: Placed) -> Site | None:
    """Where ``bucket`` is; None for a URL or endpoint that is none, which others refuse. Looks at
    the local file system alone, for links."""
    try:
        parts = urlsplit(bucket.url)
        if parts.scheme == "file":
            return Site("file", _folders(os.path.realpath(unquote(parts.path))))
        if parts.scheme == "memory":
            return Site("memory", (parts.netloc + parts.path,))
        if parts.scheme != "s3":
            return None
        server = urlsplit(bucket.endpoint)
        port = server.port or _PORTS.get(server.scheme, 0)
    except ValueError:
        return None
    inner = tuple(part for part in parts.path.split("/") if part)
    host = as_host(server.hostname) if server.hostname else _AWS
    return Site("s3", (parts.netloc, *inner), frozenset({host}), 0 if host == _AWS else port)


def as_host(text: str) -> str:
    """A server's name or address in the one spelling that all its spellings have in common."""
    host = text.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return _LOOPBACK
    if f".{host}".endswith(_AWS_DOMAINS):
        return _AWS
    address = _address(host)
    if address is None:
        return host
    plain = unwrapped(address)
    # Who connects to no address in particular comes to this machine.
    return _LOOPBACK if plain.is_loopback or plain.is_unspecified else str(plain)


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        # 127.1, 0x7f000001 and 2130706433 are addresses as well, as every system resolves them.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one that only wraps it."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def inside(one: Site, other: Site) -> bool:
    """Whether one would be the other's place or lie in it if their servers were the same."""
    shorter = min(len(one.parts), len(other.parts))
    return one.scheme == other.scheme and one.parts[:shorter] == other.parts[:shorter]


def overlap(one: Site | None, other: Site | None) -> bool:
    """Whether an object of one may be an object of the other."""
    if one is None or other is None or not inside(one, other):
        return False
    return one.scheme != "s3" or (one.port == other.port and bool(one.hosts & other.hosts))


def overlapping(bucket: Placed, others: Iterable[Named]) -> str:
    """The name of the first whose objects would also be objects of ``bucket``, or ""."""
    mine = site_of(bucket)
    return next((other.name for other in others if overlap(mine, site_of(other))), "")


def _folders(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split(os.sep) if part)
