"""Profiles as files: TOML, or JSON as the command that shows one writes it."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from lakehouse.model.vectors import Profile

_HINT: Final = 'for example model = "all-minilm"'


def read_profile(name: str, source: str) -> Profile:
    """The profile ``name`` as a file has it, "-" for standard input; what is absent is as in the
    release.

    Raises ``not_found``, ``invalid`` (neither TOML nor JSON, a field there is not, another type).
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise LakehouseError(
            ErrorKind.NOT_FOUND, "the file cannot be read", path=source, reason=reason.lower()
        ) from error
    return profile_of(name, _parsed(text, source))


def _parsed(text: str, source: str) -> dict[str, Any]:
    try:
        is_json = text.lstrip().startswith("{")
        found = json.loads(text) if is_json else tomllib.loads(text)
    except ValueError as error:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the profile is neither TOML nor JSON",
            path=source,
            reason=str(error).lower()[:200],
            hint=_HINT,
        ) from error
    # As `profiles show --json` tells it.
    inner = found.get("profile")
    return inner if isinstance(inner, dict) else cast("dict[str, Any]", found)


def profile_of(name: str, given: dict[str, Any]) -> Profile:
    """The profile ``name`` of these fields. Raises ``invalid``."""
    from lakehouse.model.vectors import Chunking, Profile

    if given.get("name", name) != name:
        raise LakehouseError(
            ErrorKind.INVALID, "the file is of another profile", name=name, file=given["name"]
        )
    fields = {key: value for key, value in given.items() if key not in ("name", "builtin")}
    chunking = fields.pop("chunking", {})
    if not isinstance(chunking, dict):
        raise _wrong("chunking", "a table of method, size and overlap")
    parts = Chunking(**_checked(Chunking(), chunking, "chunking."))
    standard = Profile(name, chunking=parts)
    return dataclasses.replace(standard, **_checked(standard, fields, ""))


def _checked(standard: Any, given: dict[str, Any], above: str) -> dict[str, Any]:
    """The fields with the types that they have in ``standard``."""
    known = {field.name: getattr(standard, field.name) for field in dataclasses.fields(standard)}
    checked = {}
    for name, value in given.items():
        if name not in known:
            raise _unknown(above + name, [above + one for one in known])
        checked[name] = _typed(above + name, value, known[name])
    return checked


def _typed(name: str, value: object, standard: object) -> object:
    if isinstance(standard, StrEnum):
        kind = type(standard)
        if value not in list(kind):
            raise _wrong(name, f"one of {', '.join(kind)}")
        return kind(str(value))
    if type(value) is not type(standard):
        raise _wrong(name, "a whole number" if isinstance(standard, int) else "a text")
    return value


def _wrong(name: str, wanted: str) -> LakehouseError:
    return LakehouseError(ErrorKind.INVALID, f"{name} must be {wanted}", field=name)


def _unknown(name: str, known: list[str]) -> LakehouseError:
    near = difflib.get_close_matches(name, known, n=1)
    return LakehouseError(
        ErrorKind.INVALID,
        "a profile has no such field",
        field=name,
        known=list(known),
        hint=f"did you mean {near[0]}" if near else _HINT,
    )
