"""Run benchmarks, each in a process of its own with a bound, hold them to their budgets.

Usage: python tests/bench/run.py [subject ...]

A subject that fails or takes too long is said and fails the run; the others are measured and kept.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bench.page import keep, load_budgets, verdict  # noqa: E402

# A hang ends here; on an idle machine what is measured takes half of it.
SECONDS_MAX = {
    **dict.fromkeys(("point", "upsert", "scan", "ingest"), 400),
    "catalog": 600,
    "embedding": 400,
    **dict.fromkeys(("vectors", "hybrid", "autotune"), 1200),
}
SECONDS_MAX_OTHERS = 180
_ONE = "--one"


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


def bounded(subject: str) -> list[dict[str, Any]]:
    """``measure`` in a process of its own; a line without a value where it failed."""
    seconds = SECONDS_MAX.get(subject, SECONDS_MAX_OTHERS)
    child = subprocess.Popen(
        [sys.executable, __file__, _ONE, subject],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        shown, _ = child.communicate(timeout=seconds)
        why = f"ended with {child.returncode}"
    except subprocess.TimeoutExpired:
        shown, why = "", f"took over {seconds} s"
    finally:
        # Also what it started and left behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.returncode == 0 and shown.strip():
        figures: list[dict[str, Any]] = json.loads(shown.splitlines()[-1])
        return figures
    return [{"subject": subject, "name": "failed", "value": None, "note": why}]


def main(arguments: list[str]) -> int:
    if arguments[:1] == [_ONE]:
        print(json.dumps(measure(arguments[1])), flush=True)
        return 0
    found = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    strangers = set(arguments) - set(found)
    if strangers:
        print(f"there is no subject {', '.join(strangers)}; known: {', '.join(found)}")
        return 64
    budgets, missed = load_budgets(), 0
    for subject in arguments or found:
        figures = bounded(subject)
        keep(subject, figures)
        for figure in figures:
            said = verdict(figure, budgets)
            missed += said in ("missed", "failed")
            print(json.dumps(figure | {"verdict": said}), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
