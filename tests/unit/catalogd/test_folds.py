"""A fold that a defect ends: commits go on while there is room, then wait for its repair."""

from __future__ import annotations

from typing import Any

import pytest

from lakehouse.catalogd.machine import CatalogMachine
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger import fold
from lakehouse.ledger.settings import LedgerSettings
from support_catalog import House, commit, create

LEDGER = LedgerSettings(fold_records=4, unfolded_records_max=12)


async def test_a_defect_of_folds_refuses_commits_until_it_is_gone(house: House) -> None:
    catalog = await house.open(ledger=LEDGER)

    def overflow(*_: Any) -> Any:
        raise OverflowError("a value does not fit")

    refused = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "_REST_SECONDS", 0.0)
        patch.setattr(CatalogMachine, "dump", overflow)
        for at in range(14):
            try:
                await commit(catalog, *create(f"d{at}", f"d{at}"))
            except LakehouseError as error:
                refused += error.kind is ErrorKind.UNAVAILABLE
        assert refused >= 2
        ready = catalog.readiness()
        assert not ready.ready
        assert "does not fit" in ready.details["fold_failure"]
    await commit(catalog, *create("e1", "e1"))
    ready = catalog.readiness()
    assert ready.ready
    assert "fold_failure" not in ready.details
