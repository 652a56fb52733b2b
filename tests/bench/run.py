"""Run every benchmark, hold it to its budget, write docs/BENCHMARKS.md.

Usage: python tests/bench/run.py [subject ...]
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))

PAGE = ROOT / "docs" / "BENCHMARKS.md"
HEAD = """# Benchmarks

Made by `make bench`; budgets are in `tests/bench/budgets.toml`, and a miss fails `make bench`.
Ratios hold better than absolute figures: peers run in the same measurement, on the same files.
"""


def measure(subject: str) -> list[dict[str, Any]]:
    """The figures of ``bench_<subject>.py``: its ``run()``, or the line of JSON that it prints."""
    file = HERE / f"bench_{subject}.py"
    if "\ndef run(" in file.read_text():
        module = importlib.import_module(f"bench.{file.stem}")
        return [{"subject": subject, **asdict(figure)} for figure in module.run()]
    done = subprocess.run([sys.executable, file], stdout=subprocess.PIPE, text=True, check=True)
    return [
        {"subject": subject, "name": name, "value": value, "note": ""}
        for name, value in json.loads(done.stdout.strip().splitlines()[-1]).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def verdict(figure: dict[str, Any], budgets: dict[str, Any]) -> str:
    """``ok``, ``missed``, or ``-`` without a budget."""
    budget = budgets.get(figure["subject"], {}).get(figure["name"])
    if budget is None:
        return "-"
    fits = budget.get("min", 0) <= figure["value"] <= budget.get("max", float("inf"))
    return "ok" if fits else "missed"


def allowed(figure: dict[str, Any], budgets: dict[str, Any]) -> str:
    budget = budgets.get(figure["subject"], {}).get(figure["name"], {})
    return ", ".join(f"{'at most' if k == 'max' else 'at least'} {v}" for k, v in budget.items())


def page(figures: list[dict[str, Any]], budgets: dict[str, Any]) -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    python = f"Python {platform.python_version()}"
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, {python}"
    rows = [
        f"| {f['subject']} | {f['name']} | {f['value']:.3g} | {allowed(f, budgets)} |"
        f" {verdict(f, budgets)} | {f['note']} |"
        for f in figures
    ]
    table = "| subject | figure | measured | budget | | note |\n|---|---|---|---|---|---|\n"
    return f"{HEAD}\nCommit {commit}; {machine}.\n\n{table}" + "\n".join(rows) + "\n"


def main(subjects: list[str]) -> int:
    found = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    budgets = tomllib.loads((HERE / "budgets.toml").read_text())
    figures = []
    for subject in subjects or found:
        for figure in measure(subject):
            figures.append(figure)
            print(json.dumps(figure | {"verdict": verdict(figure, budgets)}), flush=True)
    if not subjects:
        PAGE.write_text(page(figures, budgets))
    return 1 if any(verdict(figure, budgets) == "missed" for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
