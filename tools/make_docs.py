"""Write docs/api/{cli,config,errors,metrics}.md from what there is: the commands, the keys with the
comments of lakehouse.toml, the kinds, the figures. `make check` fails where files and code differ.

Usage: python tools/make_docs.py [output folder, default docs/api]
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import click

from lakehouse.cli.main import cli
from lakehouse.errors import EXIT_CODE, GRPC_STATUS, HTTP_STATUS, ErrorKind
from lakehouse.kit.figures import Figure, Kind
from lakehouse.node.config import FILE_NAME, config_keys, load_config

ROOT = Path(__file__).resolve().parent.parent
SHARED = """Every command has `-h, --help` and `--config FILE` (or `LAKEHOUSE_CONFIG`). Commands
that call a node find it at `--url HOST:PORT` (or `LAKEHOUSE_URL`), else at `gateway.grpc` of the
configuration. They send the token in `LAKEHOUSE_TOKEN` and, for the journal, the workspace in
`LAKEHOUSE_WORKSPACE`. With `--json` a command writes one JSON document to standard output, whose
fields are those of the contract in `lakehouse.contracts`, and errors as
`{"error": {"kind", "detail", ...}}` to standard error. People get tables; fields may be added to
the JSON, never renamed or removed."""

WHAT_TO_DO = {
    ErrorKind.INVALID: "change the request; the fields say what is wrong with it",
    ErrorKind.UNAUTHENTICATED: "send a valid token",
    ErrorKind.FORBIDDEN: "use a token with the scope that is named; or it is not allowed at all",
    ErrorKind.NOT_FOUND: "check the name; the nearest one there is may be named",
    ErrorKind.ALREADY_EXISTS: "nothing was changed; use what is there, or another name",
    ErrorKind.CONFLICT: "nothing was changed; read again and decide anew",
    ErrorKind.FENCED: "this node has lost its store to another; call that one",
    ErrorKind.EXHAUSTED: "a limit is reached; ask for less, or later",
    ErrorKind.TIMEOUT: "the deadline passed; retry with more time",
    ErrorKind.UNAVAILABLE: "certainly not done; retry after a while",
    ErrorKind.UNKNOWN: "it may be done; retry with the same idempotency key, which settles it",
    ErrorKind.CORRUPT: "bytes are not what the catalog says; an operator must look (`fsck`)",
    ErrorKind.INTERNAL: "a defect of ours; report it with the request id",
}


def commands(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [(path, command)]
    context = click.Context(command)
    found = []
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        if child is not None:
            found += commands(child, f"{path} {name}")
    return found


def cli_page() -> str:
    parts = ["# Command line\n", SHARED + "\n", exit_codes()]
    for path, command in commands(cli, "lakehouse"):
        usage = " ".join(p.make_metavar(click.Context(command)) for p in command.params
                         if isinstance(p, click.Argument))  # fmt: skip
        parts.append(f"## `{path}`\n")
        parts.append(f"`{f'{path} {usage}'.strip()} [OPTIONS]`\n")
        parts.append(re.sub(r"[ ]*\n[ ]*", "\n", (command.help or "").strip()) + "\n")
        rows = [option_row(p) for p in command.params if isinstance(p, click.Option)]
        parts.append("| option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def option_row(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    help_text = (option.help or "").replace("|", "\\|").strip()
    choice = f" ({', '.join(option.type.choices)})" if isinstance(option.type, click.Choice) else ""
    return f"| `{names}`{choice} | {help_text} |"


def exit_codes() -> str:
    by_code: dict[int, list[str]] = {}
    for kind, code in EXIT_CODE.items():
        by_code.setdefault(code, []).append(kind.value)
    rows = [f"| {code} | {', '.join(kinds)} |" for code, kinds in sorted(by_code.items())]
    head = "| exit code | error kinds |\n|---|---|\n| 0 | done |\n| 2 | wrong usage |\n"
    return head + "\n".join([*rows, "| 130 | interrupted |"]) + "\n"


def config_page() -> str:
    comments = _comments((ROOT / FILE_NAME).read_text())
    defaults = load_config(ROOT / FILE_NAME, {}).values
    rows = []
    for key in config_keys():
        held = defaults.get(key.replace("<name>", "primary"))
        by_machine = held is not None and held.source != FILE_NAME
        default = "" if held is None or by_machine else _toml(held.value)
        variable = "LAKEHOUSE__" + key.replace(".", "__").upper().replace("<NAME>", "NAME")
        rows.append(f"| `{key}` | {default} | {comments[key]} | `{variable}` |")
    return (
        "# Configuration\n\n"
        "`lakehouse.toml` in the working directory, or the file that `--config` names; every key\n"
        "has a default, the environment wins, and an unknown key or `LAKEHOUSE__` variable is an\n"
        "error that names the nearest known one. `lakehouse config` shows each value in force and\n"
        "where it came from.\n\n"
        "| key | default | meaning | variable |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    return f"`{value}`" if value != "" else '`""`'


def _comments(text: str) -> dict[str, str]:
    """Key -> the comment above it; `<name>` for names of buckets and peers."""
    found, section, above = {}, "", ""
    for line in text.splitlines():
        if match := re.fullmatch(r"\[([\w.]+)\]", line):
            section = re.sub(r"^(buckets|profiles)\.\w+", r"\1.<name>", match[1])
        elif match := re.match(r"(?:# )?(\w+) = ", line):
            name = "<name>" if section == "node.peers" else match[1]
            found[f"{section}.{name}"] = above
        above = line.removeprefix("# ") if line.startswith("# ") else ""
    return found


def errors_page() -> str:
    head = (
        "# Errors\n\n"
        "One closed set of kinds, on every wire. HTTP bodies are problem documents (RFC 9457):\n"
        "`{type, title, status, kind, detail, request_id, ...fields}`; gRPC carries the same in a\n"
        "binary trailer; the command line ends with the exit code. A query over its own limit and\n"
        "a reused idempotency key with another body are 422.\n\n"
        "| kind | HTTP | gRPC | exit code | what to do |\n|---|---|---|---|---|\n"
    )
    rows = [
        f"| `{kind.value}` | {HTTP_STATUS[kind]} | {GRPC_STATUS[kind]} | {EXIT_CODE[kind]} |"
        f" {WHAT_TO_DO[kind]} |"
        for kind in ErrorKind
    ]
    return head + "\n".join(rows) + "\n"


def figures() -> list[Figure]:
    """Every figure that the package declares, by name."""
    package = ROOT / "services" / "lakehouse"
    found: dict[str, Figure] = {}
    for path in sorted(package.rglob("*.py")):
        if re.search(r"^_?[A-Z_]+: Final = Figure\(", path.read_text(), re.MULTILINE):
            name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
            values = vars(importlib.import_module(name)).values()
            found |= {value.name: value for value in values if isinstance(value, Figure)}
    return [found[name] for name in sorted(found)]


def metrics_page() -> str:
    """The page as it is, its first table made anew; names as Prometheus shows them."""
    rows = []
    for figure in figures():
        name = figure.name + ("_total" if figure.kind is Kind.COUNTER else "")
        labels = ", ".join(f"`{label}`" for label in figure.labels)
        rows.append(f"| `{name}` | {figure.kind.value} | {labels} | {figure.meaning} |\n")
    page = (ROOT / "docs" / "api" / "metrics.md").read_text()
    head, rule, rest = page.partition("|---|---|---|---|\n")
    return head + rule + "".join(rows) + rest[rest.index("\n\n") + 1 :]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cli.md").write_text(cli_page())
    (folder / "config.md").write_text(config_page())
    (folder / "errors.md").write_text(errors_page())
    (folder / "metrics.md").write_text(metrics_page())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "api")
