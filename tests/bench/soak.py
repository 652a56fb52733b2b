"""Run the long tests and keep what came of it in docs/BENCHMARKS.md.

Usage: python tests/bench/soak.py [pytest's options, as -k ledger]
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))

from bench.page import SOAK, keep  # noqa: E402


def main(options: list[str]) -> int:
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "soak.xml"
        command = [sys.executable, "-m", "pytest", "-n", "auto", "--dist", "worksteal"]
        command += ["-m", "soak", "--timeout", "3600", f"--junitxml={report}", *options]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        lines = summary(ElementTree.parse(report)) if report.is_file() else []
    if lines:
        keep(SOAK, lines)
    return code


def summary(report: ElementTree.ElementTree) -> list[dict[str, object]]:
    """A line a test function: its cases, those that failed, their seconds together."""
    runs: dict[str, list[ElementTree.Element]] = defaultdict(list)
    for case in report.iter("testcase"):
        runs[re.sub(r"\[.*", "", case.get("name", ""))].append(case)
    return [
        {
            "subject": SOAK,
            "name": name,
            "runs": len(cases),
            "failed": sum(
                c.find("failure") is not None or c.find("error") is not None for c in cases
            ),
            "seconds": round(sum(float(c.get("time", "0")) for c in cases)),
        }
        for name, cases in sorted(runs.items())
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
