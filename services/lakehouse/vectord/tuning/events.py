"""Runs and trials as events of their log, and back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Final, TypeVar

from lakehouse.errors import LakehouseError
from lakehouse.ledger.machine import JsonObject
from lakehouse.model.retrieval import Trial
from lakehouse.vectord.codec import from_value

__all__ = ["Began", "Run", "RunEnd", "run_of", "to_event", "trial_of"]

_EVENT: Final = "event"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Began:
    """A run began. ``id`` is its name; ``until``: by then it has ended, whatever happens;
    ``holder``: the machine whose process runs it."""

    id: str
    at: datetime
    until: datetime
    index: str
    number: int
    kind: str
    actor: str
    planned: int
    holder: str


@dataclass(frozen=True, slots=True)
class RunEnd:
    """A run ended. ``chosen``: the id of a trial, "" for none; ``state``: done or failed."""

    id: str
    at: datetime
    run: str
    state: str
    chosen: str
    reached: bool
    seconds: float
    ended: str
    error: str = ""


@dataclass(slots=True)
class Run:
    """What the log has of a run."""

    began: Began | None = None
    trials: dict[str, Trial] = field(default_factory=dict)
    end: RunEnd | None = None


_KINDS: Final[Mapping[type, str]] = {Began: "began", Trial: "trial", RunEnd: "ended"}


def to_event(value: Began | Trial | RunEnd) -> JsonObject:
    """With ``id``, ``at`` and, as the log knows them, which of the three it is."""
    event: JsonObject = {_EVENT: _KINDS[type(value)]}
    event |= {one.name: getattr(value, one.name) for one in fields(value)}
    return event


def trial_of(event: JsonObject) -> Trial | None:
    """None for another event, and for one that cannot be read."""
    return _read(Trial, event)


def run_of(events: Iterable[JsonObject], run: str) -> Run:
    """What ``events`` say of ``run``, in any order and any number of times."""
    found = Run()
    for event in events:
        if event.get("id") == run:
            found.began = _read(Began, event) or found.began
        elif event.get("run") == run:
            found.end = _read(RunEnd, event) or found.end
            trial = trial_of(event)
            if trial is not None:
                found.trials[trial.id] = trial
    return found


def _read(kind: type[T], event: JsonObject) -> T | None:
    if event.get(_EVENT) != _KINDS[kind]:
        return None
    try:
        return from_value(kind, event)
    except LakehouseError:
        return None
