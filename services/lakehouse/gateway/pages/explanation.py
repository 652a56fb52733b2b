"""Why a retrieval answered what it answered, for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Final

from starlette.responses import HTMLResponse

from lakehouse.contracts.retrievals import Explanation, HitReason
from lakehouse.gateway.pages.layout import escaped, facts, page, table, time_text
from lakehouse.model.retrieval import Retrieval, SearchedIndex, Stage, StageScore

_TITLE_CHARS: Final = 200
_SHOWN_MAX: Final = 200
_STAGES: Final = {
    Stage.VECTOR: "by meaning (similarity)",
    Stage.TEXT: "by words (BM25)",
    Stage.FUSION: "both, fused by rank",
    Stage.RERANK: "ordered anew (similarity)",
}


def explanation_page(found: Explanation) -> HTMLResponse:
    """The query, what was done with it, and each hit with the stages that brought it up, or, where
    it was one alone, a sentence. The best 200 hits are shown."""
    one = found.retrieval
    asked = one.text or "(a vector)"
    title = asked if len(asked) <= _TITLE_CHARS else asked[:_TITLE_CHARS] + "…"
    body = [
        f'<p class="over">Retrieval {escaped(one.id)}</p><h1 dir="auto">{escaped(title)}</h1>\n',
        _notes(one),
        facts(_facts(one)),
        "<h2>What was done</h2><ol>",
        *(f"<li>{escaped(step)}</li>" for step in found.steps),
        "</ol>\n<h2>What was searched</h2>",
        table(("index", "version", "model", "by", "rows up to"), map(_searched, one.indexes)),
        f"<h2>{_counted(len(found.hits))}</h2>",
        *_hits(found.hits),
        f"<footer>Digest of the ranked rows and scores: <code>{escaped(one.digest)}</code><br>"
        f"The store is at version {found.version} now; version {one.version} was read.</footer>",
    ]
    return page(f"Retrieval {one.id}", "".join(body), found.version)


def _notes(one: Retrieval) -> str:
    if not one.degraded:
        return ""
    return (
        '<p class="note"><b>Degraded.</b> Part of the search could not be done:'
        f" {escaped(one.degraded_reason or 'the embedding server did not answer')}</p>"
    )


def _facts(one: Retrieval) -> Iterator[tuple[str, object]]:
    yield "When", time_text(one.at)
    yield "By", one.actor
    yield "For", one.purpose
    yield "Mode", one.mode.value
    yield "Filter", one.filter
    yield "Asked for", _counted(one.k)
    yield "Candidates of each stage", one.candidates
    yield "Reranked by", "" if one.rerank.value == "none" else one.rerank.value
    yield "Read as of version", one.as_of_version or one.version
    yield "Compared with every vector", "yes" if one.exact else ""
    yield "Took", f"{one.embed_ms:.1f} ms embedding, {one.search_ms:.1f} ms search"
    yield "Pinned by", ", ".join(one.tags)
    yield "Workspace", one.workspace
    yield "Request", one.request_id


def _searched(one: SearchedIndex) -> str:
    behind = " (later ones were being embedded)" if one.behind else ""
    cells = (
        one.index,
        one.number,
        one.model or "(given vectors)",
        one.served_by,
        f"version {one.source_version}{behind}" if one.dataset else "",
    )
    return "<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in cells) + "</tr>"


def _hits(hits: tuple[HitReason, ...]) -> Iterator[str]:
    if not hits:
        yield '<p class="gone">Nothing was found.</p>'
    best = _best(hits)
    for one in hits[:_SHOWN_MAX]:
        yield _hit(one, best)
    if len(hits) > _SHOWN_MAX:
        yield f'<p class="gone">… and {len(hits) - _SHOWN_MAX:,} more, in the JSON form.</p>'


def _best(hits: Iterable[HitReason]) -> dict[Stage, float]:
    """The largest score that each stage gave: what a full bar stands for."""
    best: dict[Stage, float] = {}
    for one in hits:
        for stage in one.stages:
            best[stage.stage] = max(best.get(stage.stage, 0.0), stage.score)
    return best


def _hit(one: HitReason, best: dict[Stage, float]) -> str:
    where = f"{one.index} · " if one.index else "row "
    brought = " + ".join(one.brought_by)
    stages = table(("stage", "rank", "score", ""), (_stage(stage, best) for stage in one.stages))
    why = f'<p class="why">{escaped(one.sentence)}</p>'
    return (
        f'<article class="hit"><header><span class="rank">{one.rank}</span>'
        f"<b>{escaped(where + _key(one.key))}</b>"
        f'<span class="right">{escaped(brought)} · {one.score:.6g}</span></header>'
        f"{_text(one.text)}{stages if one.stages else why}</article>"
    )


def _text(text: str | None) -> str:
    """ "" for a given vector that has none."""
    if text is None:
        return '<p class="text gone">The text cannot be read any more.</p>'
    return f'<p class="text" dir="auto">{escaped(text)}</p>' if text else ""


def _stage(one: StageScore, best: dict[Stage, float]) -> str:
    most = best.get(one.stage, 0.0)
    share = 0.0 if most <= 0 else min(max(one.score / most, 0.0), 1.0)
    bar = f'<td class="bar"><span style="width:{share:.0%}"></span></td>'
    return (
        f"<tr><td>{escaped(_STAGES[one.stage])}</td><td>{one.rank}</td>"
        f"<td>{one.score:.6g}</td>{bar}</tr>"
    )


def _key(key: str) -> str:
    """``7`` for a key of one column; else as it is."""
    try:
        values = json.loads(key)
    except ValueError:
        return key
    return str(values[0]) if isinstance(values, list) and len(values) == 1 else key


def _counted(hits: int) -> str:
    return "1 hit" if hits == 1 else f"{hits:,} hits"
