"""Which role serves which contract. The word *role* is known below ``node/`` only."""

from __future__ import annotations

from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.node.settings import NodeSettings

SERVED_BY: Final[dict[str, str]] = {
    "catalog": "catalogd",
    "tokens": "catalogd",
    "storage": "storaged",
    "objects": "storaged",
    "ingest": "ingestd",
    "query": "queryd",
    "rows": "ingestd",
    "journal": "ingestd",
    "vectors": "vectord",
    "profiles": "vectord",
    "retrievals": "vectord",
    "trials": "vectord",
    "rag": "vectord",
    "memory": "vectord",
}
"""Contract -> the role that implements it."""

NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "catalogd": (),
    "storaged": ("catalog",),
    "ingestd": ("catalog",),
    "queryd": ("catalog",),
    "vectord": ("catalog", "ingest", "rows", "query", "journal"),
    "janitor": ("catalog", "rows"),
    "gateway": tuple(SERVED_BY),
}
"""Role -> the contracts it calls. Every node also asks ``tokens`` who its callers are."""


def missing_contracts(node: NodeSettings) -> dict[str, str]:
    """Contracts that must come from a peer -> the role that needs them."""
    wanted = {contract: role for role in node.roles for contract in NEEDS[role]}
    wanted.setdefault("tokens", node.roles[0])
    return {c: role for c, role in wanted.items() if SERVED_BY[c] not in node.roles}


def peer_address(node: NodeSettings, contract: str, needed_by: str) -> str:
    """Where a contract that this process lacks is served.

    Raises ``invalid``, naming the role that needs it, the contract and the configuration key.
    """
    role = SERVED_BY[contract]
    address = node.peers.get(role, "")
    if not address:
        raise LakehouseError(
            ErrorKind.INVALID,
            f"{needed_by} needs the contract {contract}, and no peer serves it",
            role=needed_by,
            contract=contract,
            key=f"node.peers.{role}",
            hint=f'set node.peers.{role} = "host:port", or run {role} in this process',
        )
    return address
