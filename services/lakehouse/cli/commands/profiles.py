"""``lakehouse profiles``: how texts become vectors, and what searches them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.output import to_record

if TYPE_CHECKING:
    from lakehouse.contracts.profiles import ProfileResult
    from lakehouse.model.identity import Context


@click.group()
def command() -> None:
    """How texts become vectors, and what searches them."""


@command.command("list")
@node_command
async def list_(invocation: Invocation) -> None:
    """All profiles, those that come with the release included."""
    from lakehouse.contracts.profiles import ListProfilesRequest

    async with invocation.clients() as clients:
        result = await clients.profiles.list(invocation.context(), ListProfilesRequest())
    rows = [
        (
            one.name,
            one.model,
            one.vector_backend.value,
            one.distance.value,
            f"{one.chunking.method.value} {one.chunking.size}/{one.chunking.overlap}",
            one.bucket or "(the dataset's)",
            "release" if one.builtin else "set here",
            one.description,
        )
        for one in result.profiles
    ]
    columns = ("profile", "model", "backend", "distance", "chunks", "bucket", "from", "what for")
    invocation.output.records(result, columns, rows)


@command.command()
@click.argument("name")
@node_command
async def show(invocation: Invocation, name: str) -> None:
    """One profile; with --json as `put` takes it."""
    from lakehouse.contracts.profiles import ProfileRequest

    async with invocation.clients() as clients:
        _show(invocation, await clients.profiles.get(invocation.context(), ProfileRequest(name)))


@command.command()
@click.argument("name")
@click.argument("file", metavar="FILE|-")
@click.option(
    "--expected-version", type=int, help="Refuse unless its last change is this one; 0: none yet."
)
@node_command
async def put(invocation: Invocation, name: str, file: str, expected_version: int | None) -> None:
    """Set a profile to what a TOML or JSON file says; what is absent is as in the release.

    An index keeps what it was built with until: lakehouse vectors build --new-version
    """
    from lakehouse.cli.profile_files import read_profile
    from lakehouse.contracts.profiles import PutProfileRequest

    request = PutProfileRequest(read_profile(name, file), expected_version)
    async with invocation.clients() as clients:
        _show(invocation, await clients.profiles.put(_keyed(invocation), request))


@command.command()
@click.argument("name")
@node_command
async def delete(invocation: Invocation, name: str) -> None:
    """Delete a profile; one of that name that comes with the release is in force again."""
    from lakehouse.contracts.profiles import DeleteProfileRequest

    async with invocation.clients() as clients:
        result = await clients.profiles.delete(_keyed(invocation), DeleteProfileRequest(name))
    done = "in force again: the release's" if result.profile.builtin else "deleted"
    lines = {"profile": name, "done": f"{done}, version {result.version}"}
    invocation.output.record(result, lines)


def _show(invocation: Invocation, result: ProfileResult) -> None:
    lines = {}
    for field in dataclasses.fields(result.profile):
        value = to_record(getattr(result.profile, field.name))
        if isinstance(value, dict):
            value = ", ".join(f"{name} {one}" for name, one in value.items())
        if value not in ("", 0):
            lines[field.name.replace("_", " ")] = value
    lines["builtin"] = "yes" if result.profile.builtin else "no"
    if result.changed:
        lines["done"] = f"version {result.version}"
    invocation.output.record(result, lines)


def _keyed(invocation: Invocation) -> Context:
    """A change that is sent twice is done once."""
    return invocation.context(invocation.context().request_id)
