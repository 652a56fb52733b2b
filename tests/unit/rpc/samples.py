"""Values of every contract type: one filled sample each, and a strategy for any of them."""

from __future__ import annotations

import dataclasses
import importlib
import types
import typing
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from hypothesis import strategies as st

from lakehouse.contracts.catalog import CatalogService
from lakehouse.contracts.ingest import IngestService
from lakehouse.contracts.journal import JournalService
from lakehouse.contracts.memory import MemoryService
from lakehouse.contracts.objects import ObjectsService
from lakehouse.contracts.profiles import ProfilesService
from lakehouse.contracts.query import QueryService
from lakehouse.contracts.rag import RagService
from lakehouse.contracts.retrievals import RetrievalsService
from lakehouse.contracts.rows import RowsService
from lakehouse.contracts.storage import StorageService
from lakehouse.contracts.tokens import TokenService
from lakehouse.contracts.trials import TrialsService
from lakehouse.contracts.vectors import VectorsService

SERVICES: dict[str, object] = {
    "Catalog": CatalogService,
    "Tokens": TokenService,
    "Ingest": IngestService,
    "Query": QueryService,
    "Storage": StorageService,
    "Objects": ObjectsService,
    "Rows": RowsService,
    "Journal": JournalService,
    "Vectors": VectorsService,
    "Profiles": ProfilesService,
    "Retrievals": RetrievalsService,
    "Trials": TrialsService,
    "Rag": RagService,
    "Memory": MemoryService,
}

_MODULES = (
    *(
        f"lakehouse.contracts.{noun}"
        for noun in (
            "as_of",
            "catalog",
            "inventory",
            "tags",
            "tokens",
            "ingest",
            "query",
            "storage",
            "objects",
            "rows",
            "journal",
            "vectors",
            "profiles",
            "retrievals",
            "trials",
            "rag",
            "memory",
        )
    ),
    *(
        f"lakehouse.model.{name}"
        for name in (
            "schema",
            "dataset",
            "changes",
            "events",
            "identity",
            "probe",
            "failures",
            "refs",
            "vectors",
            "retrieval",
        )
    ),
)
# Values of a process that have no wire form: a context is metadata, a stream is a call.
LOCAL_ONLY = frozenset({"Context", "QueryStream", "ObjectStream", "FeedStream", "AnswerStream"})


def contract_types() -> list[type]:
    """Every dataclass of the contracts and the model that travels."""
    found = []
    for name in _MODULES:
        for value in vars(importlib.import_module(name)).values():
            own = isinstance(value, type) and value.__module__ == name
            if own and dataclasses.is_dataclass(value) and value.__name__ not in LOCAL_ONLY:
                found.append(value)
    return found


def sample(hint: Any, text: str = "t") -> Any:
    """A value of ``hint`` with every field filled and none at its default, where that can be."""
    members = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return sample(next(member for member in members if member is not type(None)), text)
    if typing.get_origin(hint) is tuple:
        return tuple(sample(member, text) for member in _members(members[0]))
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return hint(**{f.name: sample(hints[f.name], f.name) for f in dataclasses.fields(hint)})  # type: ignore[operator]
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return list(hint)[-1]
    values = {
        str: f"{text} ü\u2603",
        int: -(2**53) - 1,
        float: 0.1,
        bool: True,
        bytes: b"\x00\xff",
        datetime: datetime(2026, 11, 21, 13, 5, 59, 123457, tzinfo=UTC),
    }
    return values[hint]


def _members(hint: Any) -> tuple[Any, ...]:
    """All of a union, twice of anything else."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint, hint)


def strategy(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of ``hint`` that a contract allows."""
    members = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return st.one_of(*(st.none() if m is type(None) else strategy(m) for m in members))
    if typing.get_origin(hint) is tuple:
        return st.lists(strategy(members[0]), max_size=2).map(tuple)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        fields = {f.name: strategy(hints[f.name]) for f in dataclasses.fields(hint)}
        return st.builds(typing.cast(Any, hint), **fields)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return st.sampled_from(list(hint))
    return _SCALARS[hint]


_SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=8),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    bytes: st.binary(max_size=8),
    datetime: st.datetimes(timezones=st.just(UTC)),
}
