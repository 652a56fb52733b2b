"""What every stand-in of a contract has in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lakehouse.model.identity import Context
from lakehouse.model.schema import Column

AT = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
COLUMNS = (Column(1, "id", "string"), Column(2, "age", "int64"))
VERSION = 812


@dataclass
class Recorder:
    """Remembers calls; an error put into ``failing`` by method name is raised instead."""

    calls: list[tuple[str, Context, Any]] = field(default_factory=list)
    failing: dict[str, Exception] = field(default_factory=dict)

    def saw(self, method: str, ctx: Context, request: Any) -> None:
        self.calls.append((method, ctx, request))
        if method in self.failing:
            raise self.failing[method]

    def last(self, method: str) -> tuple[Context, Any]:
        for name, ctx, request in reversed(self.calls):
            if name == method:
                return ctx, request
        raise AssertionError(f"{method} was not called; calls: {[c[0] for c in self.calls]}")
