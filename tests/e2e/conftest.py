"""What holds for every node of the end-to-end tests: no secret in its log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from e2e.nodes import WATCHED

_TOKEN = re.compile(r"\blh_[A-Za-z0-9]{6,}\.[A-Za-z0-9_-]{16,}")
_SIZE_MIN = 8


def secrets_of(env: dict[str, str]) -> set[str]:
    """The secret texts behind the references of a node's settings."""
    found: set[str] = set()
    for name, value in env.items():
        if name.endswith("__SECRET_REF") and value.startswith("env:"):
            text = env.get(value.removeprefix("env:"), "")
            try:
                keys = json.loads(text)
                found |= {keys.get("secret_access_key", ""), keys.get("session_token", "")}
            except (ValueError, AttributeError):
                found.add(text)
    return {text for text in found if len(text) >= _SIZE_MIN}


@pytest.fixture(scope="session", autouse=True)
def no_secret_in_any_log() -> Iterator[None]:
    """Read the log of every node of the session once, in the end."""
    yield
    shown = []
    for log, env in WATCHED:
        text = log.read_text(errors="replace") if log.exists() else ""
        shown += [str(log) for secret in secrets_of(env) if secret in text]
        shown += [f"{log}: {found[0][:9]}.." for found in _TOKEN.finditer(text)]
    assert shown == []
