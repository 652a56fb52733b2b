"""Every setting of an index that was tried, for people: recall against latency, and the figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from starlette.responses import HTMLResponse

from lakehouse.contracts.trials import TrialsResult
from lakehouse.gateway.pages.layout import escaped, facts, page, table, time_text
from lakehouse.model.retrieval import Trial
from lakehouse.model.trial_plot import quality_plot, recall_plot, setting

_COLUMNS: Final = (
    "when",
    "index",
    "setting",
    "recall",
    "p50 ms",
    "p99 ms",
    "CPU ms",
    "nDCG",
    "MRR",
    "relevant found",
    "queries",
    "k",
    "rows",
    "build",
    "size",
    "trial",
    "note",
)
_MEBIBYTE: Final = 1024 * 1024


def trials_page(result: TrialsResult) -> HTMLResponse:
    """A plot of the trials that have a recall, and a table of all of the page."""
    indexes = sorted({one.index for one in result.trials})
    about = (
        ("Trials", len(result.trials)),
        ("Runs", len({one.run for one in result.trials})),
        ("Indexes", ", ".join(indexes)),
        ("Not remembered", result.dropped),
        ("Batches that cannot be read", result.unreadable),
    )
    body = [
        '<p class="over">Trials</p><h1>What was tried, and what came of it</h1>',
        facts(about),
        _plots(result.trials),
        "<h2>Newest first</h2>",
        _table(result.trials) if result.trials else '<p class="gone">Nothing was tried yet.</p>',
        f"<footer>{_more(result)}The store is at version {result.version}.</footer>",
    ]
    return page("Trials", "".join(body), result.version)


def _plots(trials: tuple[Trial, ...]) -> str:
    if not trials:
        return ""
    return f"<figure>{recall_plot(trials)}</figure>{_figure(quality_plot(trials))}"


def _figure(picture: str) -> str:
    return f"<figure>{picture}</figure>" if picture else ""


def _more(result: TrialsResult) -> str:
    return (
        f"There are more: <code>cursor={escaped(result.cursor)}</code>. " if result.cursor else ""
    )


def _table(trials: tuple[Trial, ...]) -> str:
    """Without the columns that are empty in all of them."""
    rows = [[escaped(cell) for cell in _cells(one)] for one in trials]
    told = [at for at in range(len(_COLUMNS)) if any(row[at] for row in rows)]
    lines = (
        ("<tr class='chosen'>" if one.chosen else "<tr>")
        + "".join(f"<td>{row[at]}</td>" for at in told)
        + "</tr>"
        for one, row in zip(trials, rows, strict=True)
    )
    return table([_COLUMNS[at] for at in told], lines)


def _cells(one: Trial) -> Iterator[object]:
    yield time_text(one.at)
    yield f"{one.index}, version {one.number}"
    yield setting(one) + (", chosen" if one.chosen else "")
    yield _share(one.recall)
    yield f"{one.p50_ms:.3f}"
    yield f"{one.p99_ms:.3f}"
    yield f"{one.cpu_ms:.3f}" if one.cpu_ms else ""
    yield _share(one.ndcg)
    yield _share(one.mrr)
    yield _share(one.relevant_recall)
    yield one.queries
    yield one.k
    yield f"{one.rows:,}" + (" (a sample)" if one.sampled else "")
    yield f"{one.build_seconds:.1f} s" if one.build_seconds else ""
    yield f"{one.size_bytes / _MEBIBYTE:.1f} MiB" if one.size_bytes else ""
    yield one.id
    yield one.note


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
