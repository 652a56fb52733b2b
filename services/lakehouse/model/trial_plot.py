"""Trials as pictures: what a setting finds against the time it takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from lakehouse.kit.scatter import Axis, Mark, Series, scatter
from lakehouse.model.retrieval import Trial

_LATENCY: Final = Axis("p50 of one search, ms (log)", log=True)


def setting(one: Trial) -> str:
    """``M 16, ef_construction 100, ef 64``; a mode by its name."""
    if one.kind == "mode":
        return f"mode {one.mode.value}"
    if not one.m:
        return "no graph"
    return f"M {one.m}, ef_construction {one.ef_construction}, ef {one.ef}"


def recall_plot(trials: Iterable[Trial]) -> str:
    """SVG: the recall of each setting against its latency; a graph is a line along its ``ef``,
    and one over a sample of the rows a line of its own."""
    measured = [one for one in trials if one.recall is not None and one.kind != "mode"]
    several = len({(one.index, one.number) for one in measured}) > 1
    graphs: defaultdict[str, list[Mark]] = defaultdict(list)
    for one in sorted(measured, key=_by_graph):
        # The legend has little room: what differs most stands first.
        where = f" {one.index} {one.number}" if several else ""
        graphs[f"{_graph_in_short(one)}{_sample(one)}{where}"].append(_found(one))
    series = [Series(name, tuple(marks), joined=True) for name, marks in graphs.items()]
    return scatter(
        "Recall against latency", series, _LATENCY, Axis("recall of the exact k", most=1.0)
    )


def quality_plot(trials: Iterable[Trial]) -> str:
    """SVG: the nDCG of each mode of search against its latency; "" where none has one."""
    modes: defaultdict[str, list[Mark]] = defaultdict(list)
    for one in trials:
        if one.kind == "mode" and one.ndcg is not None:
            note = f"{one.eval_set}, {setting(one)}: nDCG {one.ndcg:.4f}, {one.p50_ms:.3f} ms"
            modes[one.mode.value].append(Mark(one.p50_ms, one.ndcg, note, one.chosen))
    series = [Series(name, tuple(marks)) for name, marks in sorted(modes.items())]
    return (
        scatter("nDCG against latency", series, _LATENCY, Axis("nDCG", most=1.0)) if series else ""
    )


def _graph_in_short(one: Trial) -> str:
    return f"M {one.m}, efc {one.ef_construction}" if one.m else "no graph"


def _sample(one: Trial) -> str:
    return f" of {one.rows:,}" if one.sampled else ""


def _by_graph(one: Trial) -> tuple[str, int, int, int, bool, int, str]:
    return one.index, one.number, one.m, one.ef_construction, one.sampled, one.ef, one.run


def _found(one: Trial) -> Mark:
    recall = one.recall or 0.0
    note = (
        f"{one.index}, {setting(one)}{_sample(one)}: recall {recall:.4f}, p50 {one.p50_ms:.3f} ms"
    )
    return Mark(one.p50_ms, recall, note, one.chosen)
