"""Logs of the process: one line an event, for people or as JSON, secrets struck out.

Modules log through ``logging.getLogger(__name__)`` with values in ``extra``; this sets up where
the lines go, once, at start.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit import tracing
from lakehouse.kit.acting import acting
from lakehouse.kit.secrets import conceal, concealed

_BUILT_IN: Final = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", (), None)) | {"message": "", "asctime": ""}
)
_TOKEN: Final = re.compile(r"\b(lh_[A-Za-z0-9]+)\.[A-Za-z0-9_-]+")
LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("auto", "text", "json")


class _Lines(logging.Formatter):
    """``2026-01-31T10:00:00 INFO lakehouse.node: message key=value`` or one JSON object."""

    def __init__(self, as_json: bool) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S")
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        values = _whose() | {k: v for k, v in vars(record).items() if k not in _BUILT_IN}
        head = {
            "ts": self.formatTime(record, self.datefmt),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            values["trace"] = self.formatException(record.exc_info)
        if self._json:
            line = json.dumps(head | values, default=str, ensure_ascii=False)
        else:
            tail = "".join(f" {key}={value}" for key, value in values.items())
            line = f"{head['ts']} {record.levelname:7} {record.name}: {head['message']}{tail}"
        return _redacted(line)


def _redacted(line: str) -> str:
    """The line without what is concealed by now, however it is escaped."""
    for text in concealed():
        line = line.replace(text, "***")
    return _TOKEN.sub(r"\1.***", line)


def _whose() -> dict[str, object]:
    """On whose behalf the line is written: who acts in this task, and in which trace."""
    found = acting()
    about = {
        "request_id": found.request_id,
        "actor": found.actor,
        "trace_id": tracing.trace_id(),
    }
    return {key: value for key, value in about.items() if value}


def configure_logging(level: str, form: str, secrets: frozenset[str] = frozenset()) -> None:
    """Send the process's logs to standard error, once for all libraries.

    Args:
        level: one of ``LEVELS``; libraries are held at ``warning``.
        form: ``text``, ``json``, or ``auto``: text on a terminal, else JSON.
        secrets: texts that never appear in a line, beside what is concealed later.
    """
    for value, allowed, key in ((level, LEVELS, "log_level"), (form, FORMATS, "log_format")):
        if value not in allowed:
            raise LakehouseError(
                ErrorKind.INVALID,
                f"{key} is none of the known ones",
                value=value,
                known=list(allowed),
            )
    conceal(*secrets)
    handler = logging.StreamHandler(sys.stderr)
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    handler.setFormatter(_Lines(as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("lakehouse").setLevel(level.upper())
