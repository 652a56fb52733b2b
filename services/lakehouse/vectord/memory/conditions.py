"""What is asked of turns as conditions in SQL, made of typed values alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

__all__ = ["after", "conditions", "joined", "literal", "moment"]


def literal(text: str) -> str:
    """A text as SQL writes it: between quotes, with those inside doubled; no other character means
    anything there."""
    return "'" + text.replace("'", "''") + "'"


def moment(when: datetime) -> str:
    """A time as SQL writes it, to the microsecond."""
    return f"TIMESTAMPTZ '{when.astimezone(UTC).isoformat(' ', 'microseconds')}'"


def conditions(session: str, who: str, tags: Sequence[str]) -> list[str]:
    """Of turns of a session, of somebody, with all of ``tags``; "" and none are no condition."""
    found = [
        f'"{name}" = {literal(value)}'
        for name, value in (("session", session), ("who", who))
        if value
    ]
    return found + [f'array_contains("tags", {literal(tag)})' for tag in dict.fromkeys(tags)]


def after(when: datetime, turn_id: str) -> str:
    """Of turns that were remembered after ``when``, or then and have a later id."""
    then = moment(when)
    later = f'"remembered_at" > {then}'
    return f'({later} OR ("remembered_at" = {then} AND "id" > {literal(turn_id)}))'


def joined(found: Sequence[str]) -> str:
    """All of them; "" where there is none."""
    return " AND ".join(found)
