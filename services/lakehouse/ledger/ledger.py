"""A ledger of a state machine: open (take over), commit (group), read, fold, collect, close."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from lakehouse.ledger.machine import Committed, Proposal

S = TypeVar("S")


class LedgerHandle(Protocol, Generic[S]):
    """What catalogd holds. Implemented by ``Ledger`` in this module (see ``open_ledger``)."""

    @property
    def state(self) -> S:
        """The last durable state; never ahead of the bucket."""
        ...

    @property
    def seq(self) -> int: ...

    @property
    def record(self) -> int: ...

    @property
    def epoch(self) -> int: ...

    async def commit(self, proposal: Proposal[S]) -> Committed[S]: ...

    async def check_authority(self) -> None:
        """Raise ``fenced`` if another epoch is in the chain; cheap unless a check is due."""
        ...

    async def close(self) -> None:
        """Settle, fold, seal. Idempotent."""
        ...
