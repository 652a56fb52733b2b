"""docs/BENCHMARKS.md, made from the JSON lines of docs/benchmarks.jsonl.

A line is what one run found: a figure of a subject, a subject that failed, or a soak. A subject
that is measured anew replaces its own lines and no others.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LINES = ROOT / "docs" / "benchmarks.jsonl"
PAGE = ROOT / "docs" / "BENCHMARKS.md"
SOAK = "soak"
HEAD = """# Benchmarks

Made by `make bench` and `make soak` from `docs/benchmarks.jsonl`; budgets are in
`tests/bench/budgets.toml`, and a miss fails `make bench`. Ratios hold better than absolute figures:
peers run in the same measurement, on the same files.
"""


def load_budgets() -> dict[str, Any]:
    return tomllib.loads((HERE / "budgets.toml").read_text())


def stamp() -> dict[str, Any]:
    """Which code, when, on what."""
    shown = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    return {
        "commit": shown.stdout.strip(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{machine}, Python {platform.python_version()}",
    }


def keep(subject: str, lines: list[dict[str, Any]]) -> None:
    """Put ``lines`` in place of what is known of ``subject``, and write the page anew. Of the soak
    only the tests that ran are replaced."""
    known = [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []
    marked = [{**line, **stamp()} for line in lines]
    ran = {line["name"] for line in lines}
    known = [
        line
        for line in known
        if line["subject"] != subject or (subject == SOAK and line["name"] not in ran)
    ] + marked
    known.sort(key=lambda line: str(line["subject"]))
    LINES.write_text("".join(json.dumps(line) + "\n" for line in known))
    PAGE.write_text(page(known, load_budgets()))


def verdict(figure: dict[str, Any], budgets: dict[str, Any]) -> str:
    """``ok``, ``missed``, or ``-`` without a budget."""
    if figure.get("value") is None:
        return "failed"
    budget = budgets.get(figure["subject"], {}).get(figure["name"])
    if budget is None:
        return "-"
    fits = budget.get("min", 0) <= figure["value"] <= budget.get("max", float("inf"))
    return "ok" if fits else "missed"


def allowed(figure: dict[str, Any], budgets: dict[str, Any]) -> str:
    budget = budgets.get(figure["subject"], {}).get(figure["name"], {})
    return ", ".join(f"{'at most' if k == 'max' else 'at least'} {v}" for k, v in budget.items())


def page(lines: list[dict[str, Any]], budgets: dict[str, Any]) -> str:
    """The whole page: a section a subject, the soak last."""
    parts = [HEAD]
    figures = [line for line in lines if line["subject"] != SOAK]
    for subject in dict.fromkeys(line["subject"] for line in figures):
        own = [line for line in figures if line["subject"] == subject]
        parts.append(f"\n## {subject.capitalize()}\n\n{_made(own[0])}\n")
        parts.append("\n| figure | measured | budget | | note |\n|---|---|---|---|---|\n")
        parts += [_row(line, budgets) for line in own]
    if not figures:
        parts.append("\nNot measured yet.\n")
    soaks = [line for line in lines if line["subject"] == SOAK]
    parts.append("\n## Soak\n")
    if not soaks:
        parts.append("\nNot run yet: `make soak`.\n")
    else:
        parts.append(f"\n{soaks[0]['machine']}.\n\n| test | runs | failed | seconds | commit |\n")
        parts.append("|---|---|---|---|---|\n")
        parts += [
            f"| `{s['name']}` | {s['runs']} | {s['failed']} | {s['seconds']} | {s['commit']} |\n"
            for s in sorted(soaks, key=lambda each: str(each["name"]))
        ]
    return "".join(parts)


def _made(line: dict[str, Any]) -> str:
    return f"{line['date']}, commit {line['commit']}; {line['machine']}."


def _row(line: dict[str, Any], budgets: dict[str, Any]) -> str:
    measured = "-" if line["value"] is None else f"{line['value']:.3g}"
    cells = [line["name"], measured, allowed(line, budgets), verdict(line, budgets), line["note"]]
    return f"| {' | '.join(cells)} |\n"
