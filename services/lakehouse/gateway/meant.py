"""What somebody probably meant who named a field or a value that there is not."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel

_CHARS_MAX: Final = 80
_QUOTED: Final = re.compile(r"'([^']*)'")


def meant(model: type[BaseModel], faults: Iterable[Mapping[str, Any]]) -> str:
    """A hint for pydantic's faults in a body of ``model``, the first there is; "" where nothing is
    near. A required field that is misspelled is missing first, and unknown after that."""
    return next(filter(None, (_meant(model, fault) for fault in faults)), "")


def _meant(model: type[BaseModel], fault: Mapping[str, Any]) -> str:
    match fault["type"]:
        case "extra_forbidden":
            return nearest(str(fault["loc"][-1]), _fields_at(model, fault["loc"][:-1]))
        case "enum" if isinstance(fault["input"], str):
            return nearest(fault["input"], _QUOTED.findall(fault["ctx"]["expected"]))
        case _:
            return ""


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean text``; "" where nothing is near."""
    by_case = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word[:_CHARS_MAX].lower(), by_case, n=1)
    return f"did you mean {by_case[near[0]]}" if near else ""


def _fields_at(model: type[BaseModel], path: tuple[str | int, ...]) -> set[str]:
    """Names that stand in the objects at ``path``; numbers in it are places in lists."""
    models = {model}
    for step in path:
        if isinstance(step, str):
            models = {
                inner
                for one in models
                if step in one.model_fields
                for inner in _models_in(one.model_fields[step].annotation)
            }
        else:
            models = {inner for one in models for inner in _unrolled(one)}
    return {field.alias or name for one in models for name, field in one.model_fields.items()}


def _unrolled(model: type[BaseModel]) -> set[type[BaseModel]]:
    """What a body that is a list is a list of; any other model is in a list already."""
    root = model.model_fields.get("root")
    return _models_in(root.annotation) if root is not None else {model}


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for inner in typing.get_args(annotation) for model in _models_in(inner)}
