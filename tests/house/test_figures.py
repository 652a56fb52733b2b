"""Every figure has a documented name in Prometheus' manner, and every documented one is there."""

from __future__ import annotations

import ast
import re
from typing import Final

from house.sources import ROOT, package_files, parsed, place

PAGE: Final = ROOT / "docs" / "api" / "metrics.md"
UNITS: Final = ("_seconds", "_bytes")
# A histogram of how many has no unit, but says what it counts.
COUNTED: Final = ("lakehouse_ledger_group_commits",)
# Labels whose values a user could choose would fill a monitoring system.
LABELS: Final = frozenset(
    {
        "bucket",
        "class",
        "direction",
        "engine",
        "kind",
        "method",
        "op",
        "outcome",
        "python",
        "roles",
        "route",
        "state",
        "status",
        "version",
    }
)


def declared() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Name -> (type, labels, where), of every ``Figure(...)`` in the package."""
    found: dict[str, tuple[str, tuple[str, ...], str]] = {}
    for path in package_files():
        tree = parsed(path)
        texts = {
            node.target.id: node.value
            for node in tree.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Figure"):
                continue
            name, kind, _, *rest = node.args
            assert isinstance(name, ast.Constant), f"{place(path)}:{node.lineno}: a name in place"
            assert isinstance(kind, ast.Attribute)
            labels = rest[0] if rest else ast.Tuple([])
            if isinstance(labels, ast.Name):
                labels = texts[labels.id] or labels
            assert name.value not in found, f"{name.value} is declared twice"
            found[name.value] = (kind.attr, ast.literal_eval(labels), place(path))
    return found


def test_the_page_lists_exactly_what_is_declared() -> None:
    rows = re.findall(
        r"^\| `(lakehouse_\w+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE
    )
    kinds = {"COUNTER": "counter", "GAUGE": "gauge", "DISTRIBUTION": "histogram"}
    shown = {
        name + ("_total" if kind == "COUNTER" else ""): (kinds[kind], labels)
        for name, (kind, labels, _) in declared().items()
    }
    documented = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows
    }
    assert documented == shown
    assert len(shown) > 30


def test_names_are_as_prometheus_wants_them() -> None:
    for name, (kind, labels, where) in declared().items():
        assert re.fullmatch(r"lakehouse(_[a-z]+)+", name), where
        assert not name.endswith(("_total", "_count", "_sum", "_bucket")), f"{name} in {where}"
        if kind == "DISTRIBUTION":
            assert name.endswith(UNITS) or name in COUNTED, f"{name} in {where} has no unit"
        assert set(labels) <= LABELS, f"{name} in {where}"


def test_expressions_of_the_page_name_figures_that_there_are() -> None:
    known = set()
    for name, (kind, _, _) in declared().items():
        parts = ("_bucket", "_sum", "_count") if kind == "DISTRIBUTION" else ("",)
        known |= {name + part for part in (("_total",) if kind == "COUNTER" else parts)}
    for page in (PAGE, *sorted((ROOT / "docs" / "runbooks").glob("*.md"))):
        used = set(
            re.findall(
                r"\blakehouse_[a-z_]+", re.sub(r"(?m)^\| `lakehouse.*$", "", page.read_text())
            )
        )
        assert used <= known | {n for n, (k, _, _) in declared().items() if k == "DISTRIBUTION"}, (
            page
        )
