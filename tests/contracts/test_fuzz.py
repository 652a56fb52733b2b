"""Any value a contract can hold, sent over gRPC to the real roles: an answer or a refusal, never a
failure nobody foresaw, and a catalog that still works after it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from contracts.people import created
from contracts.world import OPERATOR, World, open_ingestd, world
from lakehouse.catalogd.tokens import Tokens
from lakehouse.contracts.catalog import StatusRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.rpc.methods import Method, methods_of
from lakehouse.storaged.objects import Objects
from unit.rpc.samples import SERVICES, strategy

CALLS = [
    (noun, method)
    for noun in ("Catalog", "Tokens", "Objects", "Rows", "Journal")
    for method in methods_of(noun, SERVICES[noun]).values()
    # Bodies and ranges have tests of their own.
    if (noun, method.name) not in (("Objects", "get"), ("Objects", "put"), ("Journal", "feed"))
]

OF_PEOPLE = ("Rows", "Journal")
"""Asked of a dataset that is there: what is not there is soon answered."""


async def opened(folder: Path, noun: str) -> tuple[World, Any, Any]:
    here = await (stack := world(folder)).__aenter__()
    buckets = here.open_buckets(f"memory://{here.ids.ulid()}")
    catalog = await here.open_catalog()
    here.near["tokens"] = Tokens(catalog, here.clock, here.ids)
    here.near["objects"] = Objects(buckets, catalog, here.clock)
    if noun in OF_PEOPLE:
        await open_ingestd(here, folder)
        await created(here)
    return here, await here.connect("wire", noun.lower()), stack


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]}.{call[1].name}")
def test_any_request_is_answered_or_refused(call: tuple[str, Method], tmp_path: Path) -> None:
    noun, method = call
    with asyncio.Runner() as runner:
        here, client, stack = runner.run(opened(tmp_path, noun))

        async def ask(request: object) -> ErrorKind | None:
            try:
                await getattr(client, method.name)(OPERATOR, request)
            except LakehouseError as error:
                return error.kind
            return None

        @settings(
            max_examples=20,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy(method.request))
        def check(request: Any) -> None:
            if noun in OF_PEOPLE:
                request = replace(request, dataset="people")
            assert runner.run(ask(request)) is not ErrorKind.INTERNAL

        try:
            check()
            status = runner.run(here.near["catalog"].status(OPERATOR, StatusRequest()))
            assert status.queued == 0
        finally:
            runner.run(stack.__aexit__(None, None, None))
