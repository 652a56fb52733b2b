"""The wire is the contracts, no more and no less: protos, generated modules, clients, servicers."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
import types
import typing
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from house.sources import ROOT
from lakehouse.contracts.ingest import IngestReport, IngestRequest
from lakehouse.contracts.journal import FeedRequest, FeedStream
from lakehouse.contracts.objects import (
    GetObjectRequest,
    ObjectStream,
    PutObjectRequest,
    PutObjectResult,
)
from lakehouse.contracts.query import QueryRequest, QueryStream
from lakehouse.contracts.rag import AnswerRequest, AnswerStream
from lakehouse.rpc.convert import MODULES, message_class
from lakehouse.rpc.methods import methods_of
from lakehouse.rpc.server import SERVICERS
from unit.rpc.samples import SERVICES, contract_types

# Messages that are no contract type: what proto3 has no word for, and the parts of streams.
ENVELOPES = {"StringList", "Change", "Requirement", "IngestPart", "IngestEnd", "QueryPart"}
ENVELOPES |= {"ObjectPart", "PutObjectPart", "PutObjectEnd", "FeedPart", "AnswerStreamPart"}
KEY = "idempotency_key"
NUMBERS = ROOT / "tests/golden/wire/lakehouse_v1.txt"
SCALARS = {str: "string", int: "int64", float: "double", bool: "bool", bytes: "bytes"}
TYPES = {kind.__name__: kind for kind in contract_types()}
MESSAGES = {
    name: message
    for module in MODULES
    for name, message in module.DESCRIPTOR.message_types_by_name.items()
}
RPCS = {
    name: service
    for module in MODULES
    for name, service in module.DESCRIPTOR.services_by_name.items()
}
PROTO_TYPES = {1: "double", 3: "int64", 8: "bool", 9: "string", 12: "bytes"}


def wire_type(field: Any) -> str:
    """``string``, ``Card``, ``repeated Column``, ``optional int64``."""
    plain = field.message_type.name if field.message_type else PROTO_TYPES[field.type]
    if field.is_repeated:
        return f"repeated {plain}"
    return f"optional {plain}" if field.has_presence and not field.message_type else plain


def contract_type(hint: Any, default: Any) -> str:
    """The wire type that a field of a contract must have."""
    members = typing.get_args(hint)
    if isinstance(hint, types.UnionType) and type(None) in members:
        inner = next(member for member in members if member is not type(None))
        if typing.get_origin(inner) is tuple:
            return "StringList"
        plain = single(inner)
        return plain if plain in MESSAGES or plain == "Timestamp" else f"optional {plain}"
    if typing.get_origin(hint) is tuple:
        return f"repeated {single(members[0])}"
    plain = single(hint)
    if plain in MESSAGES or plain == "Timestamp" or default is dataclasses.MISSING:
        return plain
    # Absent on the wire must mean the default: only zero may go without presence.
    return plain if not isinstance(default, StrEnum) and not default else f"optional {plain}"


def single(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        members = {member.__name__ for member in typing.get_args(hint)}
        return next(
            name
            for name in ("Change", "Requirement")
            if {field.message_type.name for field in MESSAGES[name].fields} == members
        )
    if dataclasses.is_dataclass(hint):
        return typing.cast(type, hint).__name__
    if hint is datetime:
        return "Timestamp"
    return "string" if issubclass(hint, StrEnum) else SCALARS[hint]


def test_every_contract_type_is_a_message_and_the_reverse() -> None:
    assert set(MESSAGES) - ENVELOPES == set(TYPES)
    assert set(MESSAGES) >= ENVELOPES


@pytest.mark.parametrize("name", TYPES)
def test_a_message_has_its_dataclass_s_fields(name: str) -> None:
    hints = typing.get_type_hints(TYPES[name])
    said = {
        field.name: contract_type(hints[field.name], field.default)
        for field in dataclasses.fields(TYPES[name])
    }
    wire = {field.name: wire_type(field) for field in MESSAGES[name].fields}
    key = wire.pop(KEY, None)
    assert wire == said
    assert list(wire) == list(said), "fields stand in the order of the contract"
    if key is not None:
        assert (key, MESSAGES[name].fields_by_name[KEY].number) == ("optional string", 15)


def test_every_method_is_an_rpc_and_the_reverse() -> None:
    assert set(RPCS) == set(SERVICES)
    for noun, protocol in SERVICES.items():
        said = {
            method.rpc: (method.request.__name__, method.answer.__name__)
            for method in methods_of(noun, protocol).values()
        }
        wire = {rpc.name: (rpc.input_type.name, rpc.output_type.name) for rpc in RPCS[noun].methods}
        if noun == "Ingest":
            assert said.pop("Ingest") == (IngestRequest.__name__, IngestReport.__name__)
            assert wire.pop("Ingest") == ("IngestPart", "IngestReport")
        if noun == "Query":
            assert said.pop("Run") == (QueryRequest.__name__, QueryStream.__name__)
            assert wire.pop("Run") == ("QueryRequest", "QueryPart")
        if noun == "Objects":
            assert said.pop("Get") == (GetObjectRequest.__name__, ObjectStream.__name__)
            assert wire.pop("Get") == ("GetObjectRequest", "ObjectPart")
            assert said.pop("Put") == (PutObjectRequest.__name__, PutObjectResult.__name__)
            assert wire.pop("Put") == ("PutObjectPart", "PutObjectResult")
        if noun == "Journal":
            assert said.pop("Feed") == (FeedRequest.__name__, FeedStream.__name__)
            assert wire.pop("Feed") == ("FeedRequest", "FeedPart")
        if noun == "Rag":
            assert said.pop("Answer") == (AnswerRequest.__name__, AnswerStream.__name__)
            assert wire.pop("Answer") == ("AnswerRequest", "AnswerStreamPart")
        assert wire == said


def test_what_changes_something_takes_an_idempotency_key() -> None:
    keyed = {
        f"{noun}.{method.name}"
        for noun, protocol in SERVICES.items()
        for method in methods_of(noun, protocol).values()
        if method.changes
    }
    asking = {"get", "list", "snapshot", "files", "versions", "documents", "status", "verify"}
    asking |= {"usage", "replay", "explain", "get_eval", "list_evals", "get_run", "trials"}
    asking |= {"answer", "recall", "catch_up", "memories"}
    asking |= {"run", "running", "cancel", "buckets", "probe", "errors", "stat"}
    # What is reported carries ids of its own: twice is once.
    asking |= {"report"}
    asking |= {"object_changes", "object_states", "journal", "tags"}
    asking |= {"diff", "events", "history", "feed"}
    asking |= {"get_index", "list_indexes", "search", "get_vectors", "compare"}
    every = {
        f"{noun}.{name}"
        for noun, protocol in SERVICES.items()
        for name in methods_of(noun, protocol)
    }
    assert keyed == {name for name in every if name.split(".")[1] not in asking}


@pytest.mark.parametrize("noun", SERVICES)
def test_one_noun_has_one_name_everywhere(noun: str) -> None:
    file = noun.lower()
    module = importlib.import_module(f"lakehouse.rpc.{file}")
    assert importlib.import_module(f"lakehouse.contracts.{file}")
    assert (ROOT / f"protos/lakehouse/v1/{file}.proto").is_file()
    assert (ROOT / f"tests/contracts/test_{file}.py").is_file()
    assert SERVICERS[file] is getattr(module, f"{noun}Servicer")
    client = getattr(module, f"{noun}Client")
    for name in methods_of(noun, SERVICES[noun]):
        said = inspect.signature(getattr(SERVICES[noun], name))
        assert list(inspect.signature(getattr(client, name)).parameters) == list(said.parameters)


def test_every_contract_with_a_service_is_served() -> None:
    with_service = {
        path.stem
        for path in (ROOT / "services/lakehouse/contracts").glob("*.py")
        if "Service(Protocol)" in path.read_text()
    }
    assert with_service == set(SERVICERS) == {noun.lower() for noun in SERVICES}


def test_no_field_was_ever_renumbered_or_retyped() -> None:
    """A number once given stays: old clients are out there. New lines are appended to the file."""
    now = {
        f"{name}.{field.name} = {field.number} {wire_type(field)}"
        for name, message in MESSAGES.items()
        for field in message.fields
    }
    written = set(NUMBERS.read_text().split("\n")) - {""}
    assert not written - now, "these were renamed, renumbered, retyped or removed"
    assert not now - written, f"append these lines to {NUMBERS.relative_to(ROOT)}"


def test_generated_modules_are_those_of_the_protos(tmp_path: Path) -> None:
    """``make proto`` leaves no diff."""
    subprocess.run(
        [sys.executable, str(ROOT / "tools/make_proto.py"), str(tmp_path)],
        check=True,
        capture_output=True,
    )
    made = {path.name: path.read_text() for path in (tmp_path / "lakehouse/v1").iterdir()}
    here = {
        path.name: path.read_text()
        for path in (ROOT / "services/lakehouse/v1").glob("*_pb2.py*")
        if path.suffix in (".py", ".pyi")
    }
    assert made == here


def test_messages_say_their_package() -> None:
    assert all(message.full_name == f"lakehouse.v1.{name}" for name, message in MESSAGES.items())
    assert message_class("Card").DESCRIPTOR is MESSAGES["Card"]


def test_every_call_is_documented_and_the_reverse() -> None:
    page = (ROOT / "docs/api/grpc.md").read_text()
    told = re.findall(r"^\| `(\w+/\w+)` \|", page, re.MULTILINE)
    assert told == [f"{noun}/{rpc.name}" for noun in SERVICES for rpc in RPCS[noun].methods]
