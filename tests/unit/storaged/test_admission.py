"""What an operator may ask for over the network, and what only the configuration may give."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from lakehouse.contracts.storage import AddBucketRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.settings import BucketSettings
from lakehouse.storaged import admission
from lakehouse.storaged.admission import check_endpoint, check_request, led_to
from lakehouse.storaged.settings import RegistrySettings

CLOSED = RegistrySettings()


def wish(url: str = "s3://bucket/prefix", **fields: Any) -> AddBucketRequest:
    return AddBucketRequest(**{"name": "client", "url": url, **fields})


def kind_of(request: AddBucketRequest, settings: RegistrySettings = CLOSED) -> ErrorKind | None:
    try:
        check_request(request, settings)
    except LakehouseError as error:
        told = f"{error} {error.fields}"
        return error.kind if "canary" not in told else None
    return None


@pytest.mark.parametrize(
    "request_",
    [
        wish(),
        wish("s3://bucket"),
        wish(endpoint="https://s3.example.org", secret_ref="env:X"),
        wish(endpoint="https://10.0.0.5:9000", secret_ref="env:X"),
        wish(endpoint="http://127.0.0.1:9000", secret_ref="env:X"),
        wish(endpoint="http://localhost:9000", secret_ref="env:X"),
        wish(bucket_class="profile:anna", residency="eu"),
    ],
    ids=repr,
)
def test_what_may_be_asked_for(request_: AddBucketRequest) -> None:
    assert kind_of(request_) is None


@pytest.mark.parametrize(
    "request_",
    [
        wish(name="primary"),
        wish(name="Client"),
        wish(bucket_class="primary"),
        wish(bucket_class="profile:"),
        wish(residency="E U"),
        wish("ftp://host/x"),
        wish("memory://x"),
        wish("https://host/x"),
        wish("s3:///prefix"),
        wish("s3://user:canary@bucket/x"),
        wish("s3://bucket/x?canary=1"),
        wish("s3://bucket/../x"),
        wish("s3://bucket/a//b"),
        wish("s3://[bucket"),
        wish("s3://bucket/x\n"),
        wish(endpoint="ftp://host"),
        wish(endpoint="https://user:canary@host"),
        wish(endpoint="https://host/?canary=1"),
        wish(endpoint="https://"),
        wish(endpoint="https://host:99999"),
        wish(endpoint="host:9000"),
        wish(secret_ref="env:X" * 1000),
        wish(endpoint="https://s3.example.org"),
        wish(endpoint="http://127.0.0.1:9000"),
        wish(region="x.evil.example/"),
        wish(region="evil.example#"),
        wish(region=""),
        wish("file:relative"),
        wish("file:///a%00b"),
        wish("file://host/abs"),
    ],
    ids=repr,
)
def test_what_no_bucket_may_be(request_: AddBucketRequest) -> None:
    assert kind_of(request_) is ErrorKind.INVALID


@pytest.mark.parametrize(
    "request_",
    [wish("file:///etc"), wish(endpoint="http://10.0.0.5:9000"), wish(endpoint="http://s3.lan")],
    ids=repr,
)
def test_what_only_the_configuration_may_allow(request_: AddBucketRequest) -> None:
    assert kind_of(request_) is ErrorKind.FORBIDDEN


def test_endpoints_without_tls_where_the_configuration_takes_them() -> None:
    asked = wish(endpoint="http://s3.lan", secret_ref="env:X")
    assert kind_of(asked, RegistrySettings(http_endpoints=True)) is None


def test_folders_only_below_the_one_that_is_allowed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    allowed = RegistrySettings(local_root=str(root))
    assert kind_of(wish((root / "a").as_uri()), allowed) is None
    assert kind_of(wish((root / "a" / "b").as_uri()), allowed) is None
    for place in (root, tmp_path / "outside", root / "link", root / "link" / "x", Path("/etc")):
        assert kind_of(wish(place.as_uri()), allowed) is ErrorKind.FORBIDDEN
    for escape in ("/../outside", "/%2e%2e/outside", "/a/../../outside", "-other"):
        assert kind_of(wish(root.as_uri() + escape), allowed) is ErrorKind.FORBIDDEN


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://169.254.169.254",
        "https://169.254.1.1:9000",
        "https://[fe80::1]:9000",
        "https://[::ffff:169.254.169.254]",
        "https://[64:ff9b::a9fe:a9fe]",
        "https://[2002:a9fe:a9fe::1]",
        "https://[fd00:ec2::254]",
        "https://100.100.100.200",
        "https://2852039166",
        "https://0xa9.0xfe.0xa9.0xfe",
        "https://0.0.0.0:9000",
        "https://224.0.0.1",
        "https://255.255.255.255",
    ],
)
async def test_no_endpoint_leads_to_what_only_the_machine_can_reach(endpoint: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        await check_endpoint(wish(endpoint=endpoint))
    assert caught.value.kind is ErrorKind.FORBIDDEN


async def test_every_address_of_a_name_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ["93.184.216.34", "169.254.169.254"]

    def resolve(host: str, port: int, *rest: int) -> list[Any]:
        assert (host, port) == ("s3.example.org", 443)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr(admission.socket, "getaddrinfo", resolve)
    with pytest.raises(LakehouseError) as caught:
        await check_endpoint(wish(endpoint="https://s3.example.org"))
    assert caught.value.kind is ErrorKind.FORBIDDEN
    del found[1]
    await check_endpoint(wish(endpoint="https://s3.example.org"))


async def test_own_networks_and_names_that_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in ("https://10.1.2.3:9000", "http://127.0.0.1:9000", "https://[::1]:9000", ""):
        await check_endpoint(wish(endpoint=endpoint))

    def nowhere(*given: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(admission.socket, "getaddrinfo", nowhere)
    with pytest.raises(LakehouseError) as caught:
        await check_endpoint(wish(endpoint="https://nowhere.invalid"))
    assert caught.value.kind is ErrorKind.UNAVAILABLE


async def test_names_that_lead_to_one_server_are_one_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {
        "one.lan": ["10.0.0.5", "10.0.0.6"],
        "two.lan": ["10.0.0.6"],
        "three.lan": ["10.0.0.7"],
    }
    names |= {"10.0.0.5": ["10.0.0.5"], "here.lan": ["127.0.0.1"], "localhost": ["::1"]}

    def resolve(host: str, *rest: Any) -> list[Any]:
        if host not in names:
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 6, "", (one, 0)) for one in names[host]]

    monkeypatch.setattr(admission.socket, "getaddrinfo", resolve)
    for url, new, other, same in (
        ("s3://lake/main/_catalog", "http://two.lan:9000", "http://one.lan:9000", True),
        ("s3://lake", "http://10.0.0.5:9000", "http://one.lan:9000", True),
        ("s3://lake/main", "http://here.lan:9000", "http://localhost:9000", True),
        ("s3://lake/main", "http://two.lan:9001", "http://one.lan:9000", False),
        ("s3://lake/mains", "http://two.lan:9000", "http://one.lan:9000", False),
        ("s3://lake/main", "http://three.lan:9000", "http://one.lan:9000", False),
        ("s3://lake/main", "http://two.lan:9000", "http://nowhere.lan:9000", False),
        ("s3://lake/main", "http://two.lan:9000", "", False),
    ):
        there = [BucketSettings("x", "s3://lake/main", endpoint=other)]
        assert await led_to(wish(url, endpoint=new), there) == ("x" if same else ""), (url, new)
    assert await led_to(wish("file:///lake"), [BucketSettings("x", "file:///lake")]) == ""
