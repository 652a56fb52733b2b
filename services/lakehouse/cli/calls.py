"""Calls of commands to a running node, and the options that all such commands share."""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import click

from lakehouse.cli.output import Output
from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from lakehouse.kit.clock import Clock
    from lakehouse.model.identity import Context
    from lakehouse.node.config import Config
    from lakehouse.rpc.catalog import CatalogClient
    from lakehouse.rpc.ingest import IngestClient
    from lakehouse.rpc.journal import JournalClient
    from lakehouse.rpc.memory import MemoryClient
    from lakehouse.rpc.objects import ObjectsClient
    from lakehouse.rpc.profiles import ProfilesClient
    from lakehouse.rpc.query import QueryClient
    from lakehouse.rpc.rag import RagClient
    from lakehouse.rpc.retrievals import RetrievalsClient
    from lakehouse.rpc.rows import RowsClient
    from lakehouse.rpc.storage import StorageClient
    from lakehouse.rpc.tokens import TokensClient
    from lakehouse.rpc.trials import TrialsClient
    from lakehouse.rpc.vectors import VectorsClient

P = ParamSpec("P")
R = TypeVar("R")

URL_VARIABLE: Final = "LAKEHOUSE_URL"
TOKEN_VARIABLE: Final = "LAKEHOUSE_TOKEN"
WORKSPACE_VARIABLE: Final = "LAKEHOUSE_WORKSPACE"
CONFIG_VARIABLE: Final = "LAKEHOUSE_CONFIG"


class Clients:
    """The contracts of the node that was called; each is loaded when it is first asked for, as few
    commands need more than one and loading all would take most of a command's time."""

    catalog: CatalogClient
    ingest: IngestClient
    query: QueryClient
    storage: StorageClient
    objects: ObjectsClient
    tokens: TokensClient
    rows: RowsClient
    journal: JournalClient
    vectors: VectorsClient
    profiles: ProfilesClient
    retrievals: RetrievalsClient
    trials: TrialsClient
    rag: RagClient
    memory: MemoryClient

    def __init__(self, channel: Any, clock: Clock) -> None:
        self._channel = channel
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        if name not in Clients.__annotations__:
            raise AttributeError(name)
        module = importlib.import_module(f"lakehouse.rpc.{name}")
        client = getattr(module, Clients.__annotations__[name])(self._channel, self._clock)
        setattr(self, name, client)
        return client


@dataclass(frozen=True, slots=True)
class Invocation:
    """What the shared options came to."""

    output: Output
    config_path: Path | None
    url: str = ""

    def config(self) -> Config:
        """Raises ``invalid`` as ``load_config`` does."""
        from lakehouse.node.config import load_config

        return load_config(self.config_path, os.environ)

    def address(self) -> str:
        """``host:port`` of the node's gRPC: the option, the variable, else the configuration."""
        given = self.url.removeprefix("grpc://").removeprefix("http://").rstrip("/")
        if given:
            return given
        from lakehouse.node.values import host_and_port

        address = self.config().listen.grpc
        host, port = host_and_port("gateway.grpc", address)
        return f"127.0.0.1:{port}" if host in ("0.0.0.0", "::") else address

    def context(self, idempotency_key: str | None = None) -> Context:
        """Who calls and from where: ``LAKEHOUSE_TOKEN``, ``LAKEHOUSE_WORKSPACE``."""
        from lakehouse.kit.clock import SystemClock
        from lakehouse.kit.ids import SystemIds
        from lakehouse.model.identity import Context, Principal

        return Context(
            principal=Principal("cli", ()),
            request_id=SystemIds(SystemClock()).ulid(),
            workspace=os.environ.get(WORKSPACE_VARIABLE) or None,
            source="cli",
            idempotency_key=idempotency_key,
            credential=os.environ.get(TOKEN_VARIABLE) or None,
        )

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[Clients]:
        """The node's contracts over gRPC. A node that is not there is an error with a hint."""
        from lakehouse.kit.clock import SystemClock
        from lakehouse.rpc.channel import open_channel

        address = self.address()
        clock = SystemClock()
        channel = open_channel(address)
        try:
            yield Clients(channel, clock)
        except LakehouseError as error:
            raise _with_hint(error, address) from error
        finally:
            await channel.close(None)


def _with_hint(error: LakehouseError, address: str) -> LakehouseError:
    hints = {
        ErrorKind.UNAVAILABLE: f"does a node run at {address}? start one with: lakehouse up",
        ErrorKind.UNAUTHENTICATED: f"put a token into {TOKEN_VARIABLE}; an operator makes one"
        " with: lakehouse token create",
    }
    hint = hints.get(error.kind)
    if error.kind is ErrorKind.UNAVAILABLE and "grpc_status" not in error.fields:
        return error  # the node itself said so: it does run
    if hint is None or ("hint" in error.fields and error.kind is not ErrorKind.UNAUTHENTICATED):
        return error
    return LakehouseError(error.kind, error.message, **{**error.fields, "hint": hint})


def config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--config``, for commands that read the configuration."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        envvar=CONFIG_VARIABLE,
        help="The configuration file  [default: ./lakehouse.toml]",
    )(function)


def local_command(function: Callable[..., None]) -> Callable[..., None]:
    """A command that works without a node: hands it an ``Invocation`` first."""

    @functools.wraps(function)
    def run(*args: Any, config_path: Path | None, as_json: bool, **kwargs: Any) -> None:
        function(Invocation(Output(as_json), config_path), *args, **kwargs)

    return config_option(_json_option(run))


def node_command(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A command that calls a node: an async function that is handed an ``Invocation`` first."""

    @functools.wraps(function)
    def run(*args: Any, config_path: Path | None, url: str, as_json: bool, **kwargs: Any) -> None:
        invocation = Invocation(Output(as_json), config_path, url)
        asyncio.run(_awaited(function(invocation, *args, **kwargs)))

    url_option = click.option(
        "--url",
        default="",
        envvar=URL_VARIABLE,
        metavar="HOST:PORT",
        help="The node's gRPC address  [default: gateway.grpc of the configuration]",
    )
    return config_option(url_option(_json_option(run)))


async def _awaited(work: Awaitable[R]) -> R:
    return await work


def _json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--json", "as_json", is_flag=True, help="One JSON document instead of text for people."
    )(function)
