"""The catalog as the state machine of a ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from lakehouse.catalogd.checkpoint import dump_state, load_state
from lakehouse.catalogd.codec import decode_change
from lakehouse.catalogd.draft import Draft
from lakehouse.catalogd.state import CatalogState
from lakehouse.ledger.machine import Entry, Part

__all__ = ["CatalogMachine"]


class CatalogMachine:
    """Implements ``ledger.machine.Machine[CatalogState]``; pure."""

    def initial(self) -> CatalogState:
        return CatalogState()

    def apply(self, state: CatalogState, entry: Entry) -> CatalogState:
        """Raises ``corrupt`` only for a change that no version up to this one ever wrote."""
        draft = Draft(state, entry.seq, entry.ts_us, entry.actor, entry.request_id)
        for change in entry.changes:
            draft.apply(decode_change(change))
        return draft.finish()

    def dump(self, state: CatalogState) -> Sequence[Part]:
        return dump_state(state)

    def load(self, parts: Mapping[str, pa.Table]) -> CatalogState:
        return load_state(parts)
