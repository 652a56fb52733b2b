"""Compile protos/ into services/lakehouse/v1 (modules and stubs); leaves no diff when up to date.

Usage: python tools/make_proto.py [output folder, default services]
"""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"


def generate(out: Path) -> int:
    """Write ``lakehouse/v1/*_pb2.py`` and ``.pyi`` below ``out``; returns protoc's exit code."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    # protoc looks for the mypy plugin on PATH; it is installed beside this interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    options = [
        f"-I{PROTOS}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--mypy_out={out}",
    ]
    return int(protoc.main(["protoc", *options, *sources]))


if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "services"))
