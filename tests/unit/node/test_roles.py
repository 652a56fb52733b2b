"""Which contracts come from peers, and the error that says which address is missing."""

from __future__ import annotations

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.services import Services
from lakehouse.node.roles import NEEDS, SERVED_BY, missing_contracts, peer_address
from lakehouse.node.settings import ROLES, NodeSettings
from lakehouse.rpc.server import SERVICERS


def test_the_tables_cover_every_role_and_contract() -> None:
    assert set(NEEDS) == set(ROLES)
    assert set(SERVED_BY.values()) == set(ROLES) - {"gateway", "janitor"}
    assert set(SERVED_BY) == set(SERVICERS)
    beside = {"readiness", "figures", "log"}
    assert set(SERVED_BY) == set(Services.__dataclass_fields__) - beside


def test_all_roles_in_one_process_need_no_peer() -> None:
    assert missing_contracts(NodeSettings()) == {}


def test_a_split_process_asks_for_the_rest() -> None:
    node = NodeSettings(roles=("gateway", "queryd"))
    missing = {"catalog", "tokens", "storage", "objects", "ingest", "rows", "journal"}
    missing |= {"vectors", "profiles", "retrievals", "trials", "rag", "memory"}
    assert set(missing_contracts(node)) == missing


def test_every_process_can_ask_who_its_callers_are() -> None:
    missing = missing_contracts(NodeSettings(roles=("storaged",)))
    assert missing == {"catalog": "storaged", "tokens": "storaged"}


def test_a_missing_address_names_role_contract_and_key() -> None:
    node = NodeSettings(roles=("queryd",), peers={"ingestd": "10.0.0.1:1"})
    with pytest.raises(LakehouseError) as caught:
        peer_address(node, "catalog", "queryd")
    assert caught.value.kind is ErrorKind.INVALID
    assert caught.value.fields["role"] == "queryd"
    assert caught.value.fields["contract"] == "catalog"
    assert caught.value.fields["key"] == "node.peers.catalogd"
    assert peer_address(node, "ingest", "queryd") == "10.0.0.1:1"
