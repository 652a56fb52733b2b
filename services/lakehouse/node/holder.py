"""Does the holder of the store still answer? Asked before its store is taken over (ledger.md)."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from lakehouse.contracts.catalog import StatusRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.ledger.ledger import WriterInfo
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.node.values import host_and_port, is_loopback

_HERE: Final = "@"
_PROBES: Final = 3
_PROBE_SECONDS: Final = 1.0
# Whoever refuses our credential answers all the same, and may well be the holder.
_ANSWERS: Final = frozenset({ErrorKind.UNAUTHENTICATED, ErrorKind.FORBIDDEN})


def endpoint_of(advertise: str, grpc_address: str) -> str:
    """What the chain says of where this writer is: ``host:port``, or ``host:port@machine`` for
    an address that is good on that machine alone."""
    if advertise:
        return advertise
    host, _ = host_and_port("gateway.grpc", grpc_address)
    if is_loopback(host) or host in ("0.0.0.0", "::"):
        return f"{grpc_address}{_HERE}{socket.gethostname()}"
    return grpc_address


class HolderProbe:
    """Asks the endpoint of a writer whether that writer still holds the store.

    True (it answers, or nobody here can know) leaves the store with its holder. It counts as gone
    after three probes a second apart without an answer, or at once if its address is ours now.
    """

    def __init__(self, own_grpc_address: str, clock: Clock, ids: Ids) -> None:
        self._own = own_grpc_address
        self._clock = clock
        self._ids = ids

    async def __call__(self, holder: WriterInfo) -> bool:
        address, _, machine = holder.endpoint.partition(_HERE)
        if not address or (machine and machine != socket.gethostname()):
            return True
        if address == self._own and (not machine or machine == socket.gethostname()):
            # The port is ours now, so nobody else serves on it.
            return False
        for attempt in range(_PROBES):
            if attempt:
                await self._clock.sleep(_PROBE_SECONDS)
            if await self._answers(address, holder.writer_id):
                return True
        return False

    async def _answers(self, address: str, writer_id: str) -> bool:
        from lakehouse.rpc.catalog import CatalogClient
        from lakehouse.rpc.channel import open_channel

        channel = open_channel(address)
        now = self._clock.monotonic()
        ctx = Context(ANONYMOUS_OPERATOR, self._ids.ulid(), deadline=now + _PROBE_SECONDS)
        try:
            client = CatalogClient(channel, self._clock)
            async with asyncio.timeout(_PROBE_SECONDS):
                status = await client.status(ctx, StatusRequest())
        except LakehouseError as error:
            return error.kind in _ANSWERS
        except TimeoutError:
            return False
        else:
            return status.writer == writer_id
        finally:
            await channel.close(None)
