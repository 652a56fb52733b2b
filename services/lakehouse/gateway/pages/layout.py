"""What the pages have in common: their frame, their look, and how texts get into them."""

from __future__ import annotations

import html
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from starlette.responses import HTMLResponse

from lakehouse.gateway.replies import VERSION_HEADER

# Nothing is loaded, nothing runs, nothing is sent: the page is its text and its style.
POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'; sandbox"
)
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--line:#d8dee6;--paper:#fff;
--wash:#f5f7fa;--accent:#2563c4;--good:#1a7f47;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#9aa5b4;--line:#323c4a;--paper:#12171e;
--wash:#1a212b;--accent:#7fb0ff;--good:#62c58d;--bad:#ff8a80}}
*{box-sizing:border-box}
body{font:15px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:64rem;margin:2.5rem auto;padding:0 1.2rem}
h1{font-size:1.55rem;line-height:1.3;margin:.2rem 0 1rem;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:2.2rem 0 .6rem}
.over{color:var(--soft);letter-spacing:.04em;text-transform:uppercase;font-size:.78rem;margin:0}
code,.mono{font:13px/1.5 ui-monospace,monospace;overflow-wrap:anywhere}
.facts{display:flex;flex-wrap:wrap;gap:.8rem 2.4rem;
background:var(--wash);border:1px solid var(--line);border-radius:8px;padding:1rem 1.2rem;margin:0}
.facts dt{color:var(--soft);font-size:.8rem}.facts dd{margin:0;overflow-wrap:anywhere}
.note{border-left:4px solid var(--bad);background:var(--wash);padding:.6rem 1rem;margin:1rem 0}
.hit{border:1px solid var(--line);border-radius:8px;padding:.9rem 1.1rem;margin:.8rem 0}
.hit header{display:flex;gap:.8rem;align-items:baseline;flex-wrap:wrap}
.rank{font-size:1.25rem;font-weight:700;color:var(--accent);min-width:1.4rem}
.right{margin-left:auto;color:var(--soft)}
.text{white-space:pre-wrap;overflow-wrap:anywhere;margin:.6rem 0;border-left:3px solid var(--line);
padding-left:.8rem}
.gone{color:var(--soft);font-style:italic}
.why{color:var(--soft);margin:.3rem 0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{text-align:left;color:var(--soft);font-weight:600;font-size:.8rem}
td,th{padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
tr.chosen td{font-weight:700;color:var(--good)}
.wide{overflow-x:auto}.wide td,.wide th{white-space:nowrap}.bar{width:8rem}
.bar span{display:block;height:.55rem;margin-top:.5rem;border-radius:3px;background:var(--accent)}
ol{padding-left:1.4rem}figure{margin:1.2rem 0}svg{max-width:100%;height:auto}
footer{color:var(--soft);font-size:.85rem;margin:2.5rem 0 1rem;border-top:1px solid var(--line);
padding-top:.8rem}
"""


def page(title: str, body: str, version: int) -> HTMLResponse:
    """``body`` is HTML already; ``title`` is text."""
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(title)}</title><style>{_STYLE}</style></head><body>\n"
    )
    headers = {
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "Vary": "Accept",
        VERSION_HEADER: str(version),
    }
    return HTMLResponse(f"{head}{body}</body></html>\n", headers=headers)


def escaped(value: object) -> str:
    """Text as HTML, in an element or in an attribute's quotes; a lone surrogate is a ``?``."""
    return html.escape(str(value).encode(errors="replace").decode())


def facts(named: Iterable[tuple[str, object]]) -> str:
    """A list of names and values; empty values are left out."""
    cells = (
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>"
        for name, value in named
        if value not in ("", None, 0, False)
    )
    return f'<dl class="facts">{"".join(cells)}</dl>\n'


def table(columns: Iterable[str], rows: Iterable[str]) -> str:
    """``rows`` are HTML already."""
    head = "".join(f"<th>{escaped(name)}</th>" for name in columns)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>\n"
    )


def time_text(when: datetime) -> str:
    """To the second, UTC."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
