"""Every contract joined to what stands behind it: the role in this process, or a peer."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Final

from lakehouse.contracts.readiness import ReadinessSource
from lakehouse.gateway.services import Services
from lakehouse.kit.clock import Clock
from lakehouse.kit.figures import FigureSource
from lakehouse.kit.requests import RequestLog
from lakehouse.node.config import Config
from lakehouse.node.credentialed import Credentialed, OwnToken
from lakehouse.node.roles import SERVED_BY, missing_contracts, peer_address
from lakehouse.objectstore.secrets_manager import all_secrets

CONTRACTS: Final = tuple(SERVED_BY)
_OF_VECTORD: Final = frozenset({"ingest", "query", "journal"})
_AS_ITSELF: Final = frozenset({"catalog", "storage", "rows"}) | _OF_VECTORD


@dataclass(slots=True)
class Wiring:
    """The contracts of this process by noun, and what must be closed again."""

    contracts: dict[str, Any] = field(default_factory=dict)
    channels: dict[str, Any] = field(default_factory=dict)

    def peers(self, config: Config, clock: Clock) -> None:
        """Put a client in for every contract that this process needs and does not serve."""
        reference = config.node.secret_ref
        secrets = all_secrets(os.environ, config.secrets)
        own = OwnToken(secrets, reference, clock) if reference else None
        wanted = missing_contracts(config.node)
        if "storaged" in config.node.peers and "storaged" not in config.node.roles:
            # Nothing needs it, but what fails here is told to whoever keeps the journal.
            wanted.setdefault("storage", config.node.roles[0])
        roles, peers = config.node.roles, config.node.peers
        if "ingestd" in roles and "queryd" in peers and "queryd" not in roles:
            # Changes by predicate ask it which rows they are of; without it they alone are refused.
            wanted.setdefault("query", "ingestd")
        if "queryd" in roles and "vectord" in peers and "vectord" not in roles:
            # Searches within statements ask it; without it they alone are refused.
            wanted.setdefault("vectors", "queryd")
            wanted.setdefault("retrievals", "queryd")
        as_itself = _AS_ITSELF if "vectord" in roles else _AS_ITSELF - _OF_VECTORD
        for contract, role in wanted.items():
            address = peer_address(config.node, contract, role)
            client = self._client(contract, address, clock)
            # These alone are called by roles on their own behalf, not only for a caller.
            if own is not None and contract in as_itself:
                client = Credentialed(client, own)
            self.contracts[contract] = client

    def services(
        self, readiness: ReadinessSource, figures: FigureSource, log: RequestLog
    ) -> Services:
        """What the gateway serves. Every contract must have been put in."""
        return Services(
            **{contract: self.contracts[contract] for contract in CONTRACTS},
            readiness=readiness,
            figures=(figures,),
            log=log,
        )

    async def close(self) -> None:
        channels, self.channels = self.channels, {}
        for channel in channels.values():
            await channel.close(None)

    def _client(self, contract: str, address: str, clock: Clock) -> Any:
        from lakehouse.rpc.catalog import CatalogClient
        from lakehouse.rpc.channel import open_channel
        from lakehouse.rpc.ingest import IngestClient
        from lakehouse.rpc.journal import JournalClient
        from lakehouse.rpc.memory import MemoryClient
        from lakehouse.rpc.objects import ObjectsClient
        from lakehouse.rpc.profiles import ProfilesClient
        from lakehouse.rpc.query import QueryClient
        from lakehouse.rpc.rag import RagClient
        from lakehouse.rpc.retrievals import RetrievalsClient
        from lakehouse.rpc.rows import RowsClient
        from lakehouse.rpc.storage import StorageClient
        from lakehouse.rpc.tokens import TokensClient
        from lakehouse.rpc.trials import TrialsClient
        from lakehouse.rpc.vectors import VectorsClient

        clients: dict[str, Any] = {
            "catalog": CatalogClient,
            "tokens": TokensClient,
            "storage": StorageClient,
            "objects": ObjectsClient,
            "ingest": IngestClient,
            "query": QueryClient,
            "rows": RowsClient,
            "journal": JournalClient,
            "vectors": VectorsClient,
            "profiles": ProfilesClient,
            "retrievals": RetrievalsClient,
            "trials": TrialsClient,
            "rag": RagClient,
            "memory": MemoryClient,
        }
        channel = self.channels.get(address) or open_channel(address)
        self.channels[address] = channel
        return clients[contract](channel, clock)
