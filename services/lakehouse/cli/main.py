"""``lakehouse``: the command line. Commands live one a file under ``commands/``."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

from lakehouse import __version__
from lakehouse.errors import EXIT_CODE, ErrorKind, LakehouseError

COMMANDS: Final = (
    "up",
    "serve",
    "init",
    "doctor",
    "ingest",
    "sql",
    "search",
    "rag",
    "retrievals",
    "memory",
    "query",
    "rows",
    "journal",
    "vectors",
    "profiles",
    "catalog",
    "storage",
    "objects",
    "token",
    "config",
    "demo",
)
_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141


class Commands(click.Group):
    """Commands in the order in which one meets them; each module is imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"lakehouse.cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lakehouse")
def cli() -> None:
    """Drop messy exports in, ask SQL across them; every durable byte in your bucket.

    Start with: lakehouse demo
    """


def main() -> None:
    """The entry point: exit codes follow error kinds, and nobody sees a stack trace."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort):
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more may be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_BROKEN_PIPE)
    except LakehouseError as error:
        _fail(error)
    except Exception as error:  # noqa: BLE001 - the outermost edge
        _fail(
            LakehouseError(
                ErrorKind.INTERNAL,
                "something went wrong that should not",
                reason=f"{type(error).__name__}: {error}",
                hint="please report it with the command that you ran",
            )
        )


def _fail(error: LakehouseError) -> None:
    from lakehouse.cli.output import show_error

    show_error(error, as_json="--json" in sys.argv)
    sys.exit(EXIT_CODE[error.kind])
