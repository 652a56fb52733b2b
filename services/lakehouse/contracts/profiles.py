"""Profiles: how texts become vectors, and what searches them (ADR-019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lakehouse.model.identity import Context
from lakehouse.model.vectors import Profile


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    name: str


@dataclass(frozen=True, slots=True)
class PutProfileRequest:
    """``expected_version``: refuse unless the profile's last change is this one; 0: there must be
    none."""

    profile: Profile
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteProfileRequest:
    name: str


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """``version``: of the store, of the profile's last change; 0 for a builtin one. ``changed``: by
    this call."""

    profile: Profile
    version: int
    created: bool = False
    changed: bool = False


@dataclass(frozen=True, slots=True)
class ListProfilesRequest:
    """Nothing to ask with: there are few."""


@dataclass(frozen=True, slots=True)
class ListProfilesResult:
    """By name, builtin ones included."""

    profiles: tuple[Profile, ...]
    version: int


class ProfilesService(Protocol):
    """Indexes keep the profile that they were built with: a change is for what is built next."""

    async def get(self, ctx: Context, request: ProfileRequest) -> ProfileResult:
        """Scope read. Raises ``not_found`` with the nearest name."""
        ...

    async def list(self, ctx: Context, request: ListProfilesRequest) -> ListProfilesResult:
        """Scope read."""
        ...

    async def put(self, ctx: Context, request: PutProfileRequest) -> ProfileResult:
        """Scope write. Raises ``invalid`` (a value out of range), ``not_found`` (bucket)."""
        ...

    async def delete(self, ctx: Context, request: DeleteProfileRequest) -> ProfileResult:
        """Scope write. A builtin one of that name is in force again. Raises ``conflict`` where an
        index names it and no builtin one stands in."""
        ...
