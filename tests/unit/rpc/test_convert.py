"""The mapper: every contract value comes back from the wire as it went."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.contracts.catalog import (
    AsOf,
    CommitRequest,
    FsckRequest,
    ListRequest,
    UpdateCardRequest,
)
from lakehouse.contracts.ingest import IngestOptions, IngestRequest
from lakehouse.contracts.query import Engine, QueryRequest, ResultFormat
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.changes import NameFree
from lakehouse.model.dataset import Card, Dataset
from lakehouse.rpc.convert import from_message, message_class, parse, to_message
from lakehouse.v1 import catalog_pb2, ingest_pb2, model_pb2, query_pb2
from unit.rpc.samples import contract_types, sample, strategy

TYPES = contract_types()


def through_the_wire(value: Any) -> Any:
    return parse(type(value), to_message(value).SerializeToString())[0]


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_a_filled_value_comes_back_whole(kind: type) -> None:
    value = sample(kind)
    assert through_the_wire(value) == value
    # Not one field may have been lost on the way and filled in again by a default.
    wire = {field.name for field, _ in to_message(value).ListFields()}
    assert wire == {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_any_value_comes_back(kind: type) -> None:
    @settings(
        max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(strategy(kind))
    def check(value: object) -> None:
        again = through_the_wire(value)
        assert again == value
        assert type(again) is type(value)

    check()


def test_what_a_caller_leaves_out_has_the_contract_s_default() -> None:
    assert from_message(ListRequest, catalog_pb2.ListRequest()) == ListRequest()
    assert from_message(FsckRequest, catalog_pb2.FsckRequest()).dry_run is True
    request = from_message(QueryRequest, query_pb2.QueryRequest(sql="select 1"))
    assert request == QueryRequest("select 1")
    assert (request.engine, request.format) == (Engine.AUTO, ResultFormat.ARROW)
    assert from_message(IngestRequest, ingest_pb2.IngestRequest(dataset="d")) == IngestRequest("d")


def test_zero_is_not_the_default() -> None:
    assert through_the_wire(ListRequest(limit=0)).limit == 0
    assert through_the_wire(FsckRequest(dry_run=False)).dry_run is False
    assert through_the_wire(AsOf(version=0)) == AsOf(version=0)


def test_an_empty_list_is_not_none() -> None:
    assert through_the_wire(UpdateCardRequest("n", tags=())).tags == ()
    assert through_the_wire(UpdateCardRequest("n", tags=None)).tags is None
    assert through_the_wire(IngestOptions(null_values=())).null_values == ()


@given(st.datetimes(timezones=st.just(UTC)))
@settings(max_examples=50, deadline=None, database=None)
def test_times_are_exact_to_the_microsecond(when: datetime) -> None:
    assert through_the_wire(AsOf(time=when)).time == when


def test_a_time_of_another_zone_is_the_same_instant() -> None:
    when = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    again = through_the_wire(AsOf(time=when)).time
    assert again == when
    assert again.tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        AsOf(time=datetime(2026, 1, 1)),
        AsOf(version=2**63),
        ListRequest(query="\ud800"),
        ListRequest(limit="ten"),  # type: ignore[arg-type]
        CommitRequest((), (AsOf(),)),  # type: ignore[arg-type]
    ],
    ids=["naive time", "over 64 bits", "no unicode", "wrong type", "no member"],
)
def test_what_protobuf_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(LakehouseError) as caught:
        to_message(value)
    assert caught.value.kind is ErrorKind.INVALID


def test_what_the_contract_does_not_know_is_refused() -> None:
    for kind, message in (
        (CommitRequest, catalog_pb2.CommitRequest(changes=[model_pb2.Change()])),
        (QueryRequest, query_pb2.QueryRequest(sql="", engine="oracle")),
        (Dataset, model_pb2.Dataset(id="1")),
        (Card, model_pb2.Card(sensitivity="")),
    ):
        with pytest.raises(LakehouseError) as caught:
            from_message(kind, message)
        assert caught.value.kind is ErrorKind.INVALID


def test_a_timestamp_out_of_range_is_refused() -> None:
    message = catalog_pb2.AsOf()
    message.time.seconds = 2**60
    with pytest.raises(LakehouseError):
        from_message(AsOf, message)


@given(st.binary(max_size=64))
@settings(max_examples=100, deadline=None, database=None)
def test_any_bytes_are_a_value_or_a_refusal(data: bytes) -> None:
    kind = None
    try:
        message = to_message(parse(CommitRequest, data)[0])
    except LakehouseError as error:
        kind = error.kind
    else:
        assert message == to_message(from_message(CommitRequest, message))
    assert kind in (None, ErrorKind.INVALID)


def test_a_type_outside_the_contract_s_set_is_a_programming_error() -> None:
    with pytest.raises(TypeError):
        to_message(3)


def test_messages_are_found_by_name() -> None:
    assert message_class("NameFree") is type(to_message(NameFree("n")))
    with pytest.raises(KeyError):
        message_class("Nowhere")
