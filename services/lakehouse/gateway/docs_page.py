"""``GET /docs``: the OpenAPI document for people, in one page that needs no network."""

from __future__ import annotations

from typing import Final

from starlette.responses import HTMLResponse

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>lakehouse: HTTP</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;
color-scheme:light dark}
code,pre{font:13px/1.45 ui-monospace,monospace}
pre{overflow:auto;padding:.6rem;border:1px solid #8886;border-radius:4px}
summary{cursor:pointer;padding:.25rem 0}.m{display:inline-block;min-width:4.5rem;font-weight:700}
.s{opacity:.7;margin-left:.6rem}td,th{text-align:left;padding:.1rem .8rem .1rem 0;
vertical-align:top}
</style></head><body><h1>lakehouse</h1><p id="about"></p>
<p>The whole document: <a href="openapi.json">openapi.json</a></p><main id="list"></main>
<script>
const make = (tag, text, name) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  return node;
};
const example = (content) => {
  for (const [type, body] of Object.entries(content || {}))
    if (body.example !== undefined)
      return type + "\\n" + (typeof body.example === "string" ? body.example
        : JSON.stringify(body.example, null, 2));
  return Object.keys(content || {}).join(", ");
};
const parameters = (operation) => {
  const table = make("table");
  for (const p of operation.parameters || []) {
    const row = table.appendChild(make("tr"));
    row.append(make("td", p.name + (p.required ? " *" : "")), make("td", p.in),
      make("td", p.description || ""));
  }
  return table;
};
const show = (path, method, operation) => {
  const box = make("details"), head = make("summary");
  head.append(make("span", method.toUpperCase(), "m"), make("code", path),
    make("span", operation.summary, "s"));
  box.append(head, make("p", operation.description || ""));
  box.append(make("p", operation["x-scope"] ? "Scope: " + operation["x-scope"] : "Public"));
  box.append(parameters(operation));
  if (operation.requestBody)
    box.append(make("b", "Body"), make("pre", example(operation.requestBody.content)));
  for (const [status, answer] of Object.entries(operation.responses))
    if (status < "300") box.append(make("b", status), make("pre", example(answer.content)));
  const errors = Object.keys(operation.responses).filter((status) => status >= "300");
  box.append(make("p", "Problem documents: " + errors.join(", ")));
  return box;
};
fetch("openapi.json").then((answer) => answer.json()).then((api) => {
  document.getElementById("about").textContent = api.info.description;
  const list = document.getElementById("list"), groups = {};
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, operation] of Object.entries(methods)) {
      const tag = (operation.tags || ["other"])[0];
      if (!groups[tag]) {
        groups[tag] = list.appendChild(make("section"));
        groups[tag].append(make("h2", tag));
      }
      groups[tag].append(show(path, method, operation));
    }
});
</script></body></html>
"""

# The page runs its own script and asks this server alone.
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"
)


def docs_page() -> HTMLResponse:
    """The page; its figures come from ``/openapi.json`` when it is opened."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})
