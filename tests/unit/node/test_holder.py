"""Whether a store's holder is left alone: if it answers, or if nobody here can know."""

from __future__ import annotations

import socket

import pytest

from lakehouse.errors import LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.ledger.ledger import WriterInfo
from lakehouse.node.holder import HolderProbe, endpoint_of
from lakehouse.node.servers import bind_http, reserve_grpc

HERE = socket.gethostname()


def _probe(own: str = "127.0.0.1:3101") -> HolderProbe:
    clock = SystemClock()
    return HolderProbe(own, clock, SystemIds(clock))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_loopback_address_is_good_on_its_machine_only() -> None:
    assert endpoint_of("", "127.0.0.1:3101") == f"127.0.0.1:3101@{HERE}"
    assert endpoint_of("", "10.0.0.7:3101") == "10.0.0.7:3101"
    assert endpoint_of("lake.internal:3101", "0.0.0.0:3101") == "lake.internal:3101"


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1:3101@another-machine"])
async def test_a_holder_that_nobody_can_ask_is_left_alone(endpoint: str) -> None:
    assert await _probe()(WriterInfo("w", endpoint))


async def test_a_holder_at_an_address_that_is_ours_now_is_gone() -> None:
    assert not await _probe()(WriterInfo("w", f"127.0.0.1:3101@{HERE}"))


async def test_a_holder_that_does_not_answer_is_gone() -> None:
    assert not await _probe()(WriterInfo("w", f"127.0.0.1:{_free_port()}@{HERE}"))


async def test_a_program_that_accepts_and_says_nothing_is_no_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        assert not await _probe()(WriterInfo("w", f"127.0.0.1:{port}@{HERE}"))


def test_a_taken_port_is_refused_before_anything_is_opened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(LakehouseError, match="cannot listen") as caught:
            bind_http(address)
        assert caught.value.fields["key"] == "gateway.http"
        with pytest.raises(LakehouseError, match="cannot listen"):
            reserve_grpc(address)


def test_a_hand_made_socket_has_nagle_off_in_the_loop() -> None:
    with bind_http("127.0.0.1:0") as listener:
        assert listener.proto == socket.IPPROTO_TCP
