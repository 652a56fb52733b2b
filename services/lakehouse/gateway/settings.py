"""What the gateway may be told; read from the configuration by node/ alone."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Limits of the HTTP edge.

    Attributes:
        json_bytes_max: largest JSON or SQL body; it is held in memory.
        upload_bytes_max: largest body of an ingest, as sent; it is streamed.
        header_bytes_max: names and values of all request headers together.
        target_bytes_max: path and query string together.
        hosts: names that the Host header may have; () is any. A node with ``auth = "off"`` names
            loopback here, so that no web page reaches it by a name of its own (DNS rebinding).
    """

    json_bytes_max: int = 8 * MEBIBYTE
    upload_bytes_max: int = 1024 * 1024 * MEBIBYTE
    header_bytes_max: int = 32 * 1024
    target_bytes_max: int = 16 * 1024
    hosts: tuple[str, ...] = ()
