"""The answer of a change of rows, as it was kept with its commit (``repeating``). Pure."""

from __future__ import annotations

import json

from lakehouse.contracts.rows import ChangeRowsReport

__all__ = ["told_again"]


def told_again(answer: str, version: int) -> ChangeRowsReport:
    """A report from its text, for the commit that made ``version``."""
    return ChangeRowsReport(**{**json.loads(answer), "version": version})
