"""A gateway whose only contract is that of objects, over buckets of a test."""

from __future__ import annotations

import dataclasses
from typing import Any

import httpx
from fastapi import FastAPI

from lakehouse.contracts.inventory import (
    ObjectStanding,
    ObjectState,
    ObjectStatesRequest,
    ObjectStatesResult,
)
from lakehouse.gateway.app import create_app
from lakehouse.gateway.services import Services
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.identity import Context
from lakehouse.node.authentication import LocalOperator
from lakehouse.objectstore.buckets import Buckets
from lakehouse.storaged.objects import Objects

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)


class NothingNamed:
    """A catalog without datasets."""

    async def object_states(self, ctx: Context, request: ObjectStatesRequest) -> ObjectStatesResult:
        state = ObjectState(ObjectStanding.GIVEN_UP)
        return ObjectStatesResult((state,) * len(request.objects), 1)


def objects_app(buckets: Buckets) -> FastAPI:
    """The routes of objects; any other route of it fails."""
    absent: Any = None
    objects = Objects(buckets, NothingNamed(), CLOCK)
    others = {
        each.name: absent
        for each in dataclasses.fields(Services)
        if each.default is dataclasses.MISSING
    }
    services = Services(**(others | {"objects": objects}))
    return create_app(services, LocalOperator(), GatewaySettings(), CLOCK, IDS)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", timeout=60
    )
