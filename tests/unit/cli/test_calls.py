"""What a failed call of the command line tells to do."""

from __future__ import annotations

import pytest

from lakehouse.cli.calls import Invocation
from lakehouse.cli.output import Output
from lakehouse.errors import ErrorKind, FieldValue, LakehouseError


async def _told(**fields: FieldValue) -> dict[str, FieldValue]:
    invocation = Invocation(Output(False), None, "127.0.0.1:9")
    with pytest.raises(LakehouseError) as caught:
        async with invocation.clients():
            raise LakehouseError(ErrorKind.UNAVAILABLE, "away", **fields)
    return caught.value.fields


async def test_a_node_that_is_not_there_is_to_be_started() -> None:
    told = await _told(grpc_status="UNAVAILABLE")
    assert told["hint"] == "does a node run at 127.0.0.1:9? start one with: lakehouse up"


async def test_a_node_that_says_that_another_is_away_is_not_to_be_started() -> None:
    assert await _told(cause="no route") == {"cause": "no route"}
