"""Channels to peers."""

from __future__ import annotations

from typing import Final

import grpc

from lakehouse.rpc.errors import ROOM_BYTES_MAX

# Kept alive through silent middle boxes; back within two seconds of a peer's restart, not minutes.
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 2 * ROOM_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", 2 * ROOM_BYTES_MAX),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_http_proxy", 0),
)


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to ``host:port``; connects when first used. Call on the loop that will use it."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)
