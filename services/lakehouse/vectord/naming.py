"""Names that are not there, and the one that was meant perhaps."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.refs import name_key

__all__ = ["no_such_name"]

_LIKENESS: Final = 0.5


def no_such_name(
    message: str, field: str, name: str, names: Mapping[str, str], hint: str
) -> LakehouseError:
    """``not_found`` with ``name`` as ``field``, and the nearest of ``names`` if one is near.

    Args:
        names: those that there are, as they are compared (``name_key``) and as they are shown.
        hint: where none is near.
    """
    error = LakehouseError(ErrorKind.NOT_FOUND, message, hint=hint)
    error.fields[field] = name[:255]
    near = difflib.get_close_matches(name_key(name), list(names), n=1, cutoff=_LIKENESS)
    if near:
        nearest = names[near[0]]
        error.fields.update(nearest=nearest, hint=f"did you mean {nearest}")
    return error
