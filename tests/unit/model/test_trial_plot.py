"""Trials as pictures: each graph a line along its ``ef``, the chosen one ringed."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from xml.etree import ElementTree

from lakehouse.model.retrieval import SearchMode, Trial
from lakehouse.model.trial_plot import quality_plot, recall_plot, setting

AT = datetime(2026, 11, 21, tzinfo=UTC)


def tried(m: int, ef: int, recall: float | None, index: str = "posts", run: str = "R1") -> Trial:
    return Trial(
        "T", run, AT, "ann", index, 1, "hnsw", 10, 200, 9_000, m, 100, ef, recall=recall, p50_ms=ef
    )


def names(picture: str) -> list[str]:
    return re.findall(r"<text[^>]*>((?:M \d+|no graph)[^<]*)<", picture)


def test_a_graph_is_a_line_along_its_ef() -> None:
    trials = [tried(16, 64, 0.97), tried(8, 32, 0.9), tried(8, 16, 0.8), tried(8, 64, None)]
    trials[0] = replace(trials[0], chosen=True)
    picture = recall_plot(trials)
    ElementTree.fromstring(picture)
    assert names(picture) == ["M 8, efc 100", "M 16, efc 100"]
    (line,) = re.findall(r'<polyline points="([^"]+)"', picture)
    places = [float(point.partition(",")[0]) for point in line.split()]
    assert places == sorted(places)
    assert len(places) == 2
    assert picture.count('r="9"') == 1
    assert "posts, M 16, ef_construction 100, ef 64: recall 0.9700, p50 64.000 ms" in picture


def test_a_sample_is_no_point_on_the_line_of_all_rows() -> None:
    whole = [tried(8, 16, 0.9), tried(8, 24, 0.95)]
    sample = replace(tried(8, 20, 0.99), rows=2_000, sampled=True)
    picture = recall_plot([*whole, sample])
    assert names(picture) == ["M 8, efc 100", "M 8, efc 100 of 2,000"]
    (line,) = re.findall(r'<polyline points="([^"]+)"', picture)
    assert len(line.split()) == 2
    assert "ef 20 of 2,000: recall 0.9900" in picture


def test_several_indexes_are_told_apart_and_their_names_are_only_text() -> None:
    picture = recall_plot([tried(8, 16, 0.8), tried(8, 16, 0.8, "<b>")])
    ElementTree.fromstring(picture)
    assert "<b>" not in picture
    assert names(picture) == ["M 8, efc 100 &lt;b&gt; 1", "M 8, efc 100 posts 1"]


def test_modes_have_a_picture_of_their_own() -> None:
    mode = replace(tried(0, 0, None), kind="mode", mode=SearchMode.HYBRID, ndcg=0.5, p50_ms=3.0)
    assert quality_plot([tried(8, 16, 0.8)]) == ""
    picture = quality_plot([mode, tried(8, 16, 0.8)])
    ElementTree.fromstring(picture)
    assert "mode hybrid: nDCG 0.5000" in picture
    assert names(recall_plot([mode])) == []


def test_settings_in_words() -> None:
    assert setting(tried(8, 16, 0.8)) == "M 8, ef_construction 100, ef 16"
    assert setting(tried(0, 0, 1.0)) == "no graph"
    assert setting(replace(tried(0, 0, None), kind="mode", mode=SearchMode.TEXT)) == "mode text"
