"""Profiles: documents of the catalog over those that come with the release."""

from __future__ import annotations

from lakehouse.contracts import profiles as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.vectord.parts import VectorParts

__all__ = ["Profiles"]


class Profiles:
    """Implements ``contracts.profiles.ProfilesService``. Belongs to one event loop."""

    def __init__(self, parts: VectorParts) -> None:
        self._parts = parts

    async def get(self, ctx: Context, request: c.ProfileRequest) -> c.ProfileResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def list(self, ctx: Context, request: c.ListProfilesRequest) -> c.ListProfilesResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def put(self, ctx: Context, request: c.PutProfileRequest) -> c.ProfileResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def delete(self, ctx: Context, request: c.DeleteProfileRequest) -> c.ProfileResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")
