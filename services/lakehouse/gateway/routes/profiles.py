"""Profiles: how texts become vectors, and what searches them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from lakehouse.contracts.profiles import (
    DeleteProfileRequest,
    ListProfilesRequest,
    ListProfilesResult,
    ProfileRequest,
    ProfileResult,
    ProfilesService,
)
from lakehouse.gateway import vector_examples as examples
from lakehouse.gateway.auth import Reader, Writer
from lakehouse.gateway.bodies import INT64_MAX, read_json
from lakehouse.gateway.openapi import told, with_json
from lakehouse.gateway.replies import made, reply
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.strict import StrictRoute
from lakehouse.gateway.vector_bodies import ProfileBody

_ONE = "/profiles/{name}"

ProfileName = Annotated[
    str, Path(description="A profile's name.", examples=["default"], max_length=1000)
]
LastChange = Annotated[
    int | None,
    Query(
        ge=0,
        le=INT64_MAX,
        description="Refuse unless the profile's last change is this one; 0: there must be none.",
    ),
]


def routes(profiles: ProfilesService, settings: GatewaySettings) -> APIRouter:
    """The routes of this noun over the contract."""
    router = APIRouter(tags=["profiles"], route_class=StrictRoute)
    result = ProfileResult
    put_ = told("Set a profile", result, examples.PROFILE_RESULT, statuses=(201, 200), also=(409,))
    delete_ = told("Delete a profile", result, examples.FOUND_PROFILE, also=(409,))

    @router.get("/profiles", **told("List profiles", ListProfilesResult, examples.PROFILES))
    async def list_profiles(ctx: Reader) -> Response:
        """All of them, by name, those that come with the release included."""
        listed = await profiles.list(ctx, ListProfilesRequest())
        return reply(listed, listed.version)

    @router.get(_ONE, **told("A profile", result, examples.FOUND_PROFILE))
    async def get(ctx: Reader, name: ProfileName) -> Response:
        """The model, the chunking, the distance and what searches. `version` is that of its last
        change, 0 for one that comes with the release."""
        return reply(await profiles.get(ctx, ProfileRequest(name)))

    @router.put(_ONE, **with_json(put_, ProfileBody, examples.PUT_PROFILE))
    async def put(
        ctx: Writer, name: ProfileName, request: Request, expected_version: LastChange = None
    ) -> Response:
        """All of it: what is absent is as in the profile that comes with the release. An index
        keeps what it was built with until it is built anew: `POST .../build` with `new_version`."""
        body = await read_json(request, ProfileBody, settings.json_bytes_max)
        done = await profiles.put(ctx, body.request(name, expected_version))
        return made(done, done.version, done.created)

    @router.delete(_ONE, **delete_)
    async def delete(ctx: Writer, name: ProfileName) -> Response:
        """One that comes with the release, of that name, is in force again; where there is none, a
        profile that an index names stays, and that is a 409."""
        done = await profiles.delete(ctx, DeleteProfileRequest(name))
        return reply(done, done.version)

    return router
