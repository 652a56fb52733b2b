"""Every contract joined to what stands behind it: the role in this process, or a peer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from lakehouse.contracts.readiness import ReadinessSource
from lakehouse.gateway.services import Services
from lakehouse.kit.clock import Clock
from lakehouse.node.config import Config
from lakehouse.node.roles import SERVED_BY, missing_contracts, peer_address
from lakehouse.objectstore.buckets import Buckets

CONTRACTS: Final = tuple(SERVED_BY)


@dataclass(slots=True)
class Wiring:
    """The contracts of this process by noun, and what must be closed again."""

    contracts: dict[str, Any] = field(default_factory=dict)
    channels: dict[str, Any] = field(default_factory=dict)

    def peers(self, config: Config, clock: Clock) -> None:
        """Put a client in for every contract that this process needs and does not serve."""
        for contract, role in missing_contracts(config.node).items():
            address = peer_address(config.node, contract, role)
            self.contracts[contract] = self._client(contract, address, clock)

    def services(self, readiness: ReadinessSource, buckets: Buckets) -> Services:
        """What the gateway serves. Every contract must have been put in."""
        return Services(
            **{contract: self.contracts[contract] for contract in CONTRACTS},
            readiness=readiness,
            footprints=lambda: {name: buckets.footprint(name) for name in buckets.names()},
        )

    async def close(self) -> None:
        channels, self.channels = self.channels, {}
        for channel in channels.values():
            await channel.close(None)

    def _client(self, contract: str, address: str, clock: Clock) -> Any:
        from lakehouse.rpc.catalog import CatalogClient
        from lakehouse.rpc.channel import open_channel
        from lakehouse.rpc.ingest import IngestClient
        from lakehouse.rpc.query import QueryClient
        from lakehouse.rpc.storage import StorageClient
        from lakehouse.rpc.tokens import TokensClient

        clients: dict[str, Any] = {
            "catalog": CatalogClient,
            "tokens": TokensClient,
            "storage": StorageClient,
            "ingest": IngestClient,
            "query": QueryClient,
        }
        channel = self.channels.get(address) or open_channel(address)
        self.channels[address] = channel
        return clients[contract](channel, clock)
