"""What nodes show of themselves: one trace over HTTP, gRPC and the bucket; figures; logs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.nodes import END_SECONDS_MAX, PEOPLE_CSV, Node, free_ports, running
from support_otlp import Receiver, SeenSpan, receiving

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SERVER, CLIENT, INTERNAL = 2, 3, 1
PAGE = Path(__file__).parents[2] / "docs" / "api" / "metrics.md"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture(scope="module")
def split(
    tmp_path_factory: pytest.TempPathFactory, receiver: Receiver
) -> Iterator[tuple[Node, Node]]:
    """A gateway, and a process of the other roles with a door; both trace and log every request."""
    folder = tmp_path_factory.mktemp("telemetry")
    door, *ports = free_ports(5)
    traced = {
        "LAKEHOUSE__TELEMETRY__TRACES": "otlp",
        "LAKEHOUSE__TELEMETRY__ENDPOINT": receiver.endpoint,
        "LAKEHOUSE__TELEMETRY__ACCESS_LOG": "info",
        "LAKEHOUSE__QUERY__SLOW_SECONDS": "0.000001",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=lakes",
        # Figures of the copies are there where a rescue bucket is.
        "LAKEHOUSE__BUCKETS__SPARE__URL": (folder / "spare").as_uri(),
        "LAKEHOUSE__RESCUE__BUCKET": "spare",
    }
    roles = Node(
        folder / "roles",
        folder / "bucket",
        (door, ports[0]),
        traced | {"LAKEHOUSE__TELEMETRY__HTTP": f"127.0.0.1:{door}"},
    )
    peers = {
        f"LAKEHOUSE__NODE__PEERS__{role}": roles.grpc
        for role in ("CATALOGD", "STORAGED", "INGESTD", "QUERYD", "VECTORD")
    }
    gateway = Node(folder / "gateway", folder / "bucket", ports[1:3], traced | peers)
    with running(roles, gateway):
        roles.start("serve", "--roles", "catalogd,storaged,ingestd,queryd,vectord,janitor")
        gateway.start("serve", "--roles", "gateway")
        # Each test may be the only one that this process runs.
        assert gateway.ingest("people", PEOPLE_CSV).status_code == 201
        for _ in range(2):
            gateway.sql("select count(*) from people")
        yield gateway, roles


def traced(
    node: Node, method: str, path: str, trace_id: str = TRACE, **more: Any
) -> httpx.Response:
    headers = {"traceparent": f"00-{trace_id}-{CALLER}-01", "x-request-id": f"r-{trace_id[:8]}"}
    headers |= more.pop("headers", {})
    return httpx.request(method, node.url + path, headers=headers, timeout=60, **more)


def only(spans: list[SeenSpan], name: str, kind: int) -> SeenSpan:
    (found,) = [span for span in spans if span.name == name and span.kind == kind]
    return found


def test_one_trace_spans_http_grpc_and_the_bucket(
    split: tuple[Node, Node], receiver: Receiver
) -> None:
    gateway, _ = split
    path = "/ingest/datasets/more_people"
    answer = traced(gateway, "POST", path, content=PEOPLE_CSV, headers={"content-type": "text/csv"})
    assert answer.status_code == 201, answer.text
    wanted = (
        "POST /ingest/datasets/{name}",
        "lakehouse.v1.Ingest/Ingest",
        "ingest",
        "commit",
        "record",
    )
    receiver.wait(lambda: {s.name for s in receiver.of(TRACE)} >= set(wanted))
    spans = receiver.of(TRACE)
    http = only(spans, wanted[0], SERVER)
    assert http.parent_id == CALLER
    assert http.process["lakehouse.roles"] == "gateway"
    assert http.attributes["http.response.status_code"] == 201
    assert http.attributes["lakehouse.request_id"] == "r-4bf92f35"
    called = only(spans, wanted[1], CLIENT)
    assert called.parent_id == http.span_id
    served = only(spans, wanted[1], SERVER)
    assert served.parent_id == called.span_id
    assert served.process["lakehouse.roles"] == "catalogd,storaged,ingestd,queryd,vectord,janitor"
    work = only(spans, "ingest", INTERNAL)
    assert work.parent_id == served.span_id
    puts = [span for span in spans if span.name == "bucket put"]
    data = [span for span in puts if span.attributes["lakehouse.prefix"] == "datasets"]
    assert data
    assert all(span.parent_id == work.span_id for span in data)
    assert all(span.attributes["lakehouse.bytes"] > 0 for span in data)
    # The record is written by a task of the ledger's own, on this caller's behalf.
    commit = next(span for span in spans if span.name == "commit")
    record = next(
        span for span in spans if span.name == "record" and span.parent_id == commit.span_id
    )
    written = [span for span in puts if span.parent_id == record.span_id]
    assert [span.attributes["lakehouse.prefix"] for span in written] == ["_catalog"]


def test_a_query_is_in_its_trace_and_shows_no_names(
    split: tuple[Node, Node], receiver: Receiver
) -> None:
    gateway, _ = split
    trace_id = TRACE[::-1]
    body = {"sql": "select name as geheim from people where id = '007'"}
    answer = traced(gateway, "POST", "/query/sql", trace_id, json=body)
    assert answer.status_code == 200, answer.text
    receiver.wait(lambda: any(s.name == "POST /query/sql" for s in receiver.of(trace_id)))
    receiver.wait(lambda: any(s.name == "query" for s in receiver.of(trace_id)))
    spans = receiver.of(trace_id)
    served = only(spans, "lakehouse.v1.Query/Run", SERVER)
    assert only(spans, "query", INTERNAL).parent_id == served.span_id
    shown = json.dumps([[span.name, span.attributes] for span in receiver.spans])
    assert "geheim" not in shown
    assert "people" not in shown
    assert all(header.get("x-tenant") == "lakes" for header in receiver.headers)


def test_a_failure_is_marked_with_its_kind(split: tuple[Node, Node], receiver: Receiver) -> None:
    gateway, _ = split
    trace_id = "1" * 32
    assert traced(gateway, "GET", "/catalog/datasets/nobody", trace_id).status_code == 404
    receiver.wait(lambda: any(s.name.startswith("GET /") for s in receiver.of(trace_id)))
    receiver.wait(lambda: len(receiver.of(trace_id)) >= 3)
    served = only(receiver.of(trace_id), "lakehouse.v1.Catalog/Get", SERVER)
    assert served.failed
    assert served.attributes["error.type"] == "not_found"


def test_a_trace_that_nobody_samples_is_not_sent(
    split: tuple[Node, Node], receiver: Receiver
) -> None:
    gateway, _ = split
    unwanted, wanted = "2" * 32, "3" * 32
    headers = {"traceparent": f"00-{unwanted}-{CALLER}-00"}
    assert httpx.get(f"{gateway.url}/catalog/datasets", headers=headers).status_code == 200
    assert traced(gateway, "GET", "/catalog/datasets", wanted).status_code == 200
    receiver.wait(lambda: len(receiver.of(wanted)) >= 3)
    assert receiver.of(unwanted) == []


def logged(node: Node, message: str, request_id: str) -> dict[str, Any]:
    """The line of a request, which is written once its answer is out: it may take a moment."""
    until = time.monotonic() + END_SECONDS_MAX
    while time.monotonic() < until:
        for text in node.log.splitlines():
            if text.startswith("{") and text.endswith("}"):
                line: dict[str, Any] = json.loads(text)
                if line["message"] == message and line.get("request_id") == request_id:
                    return line
        time.sleep(0.05)
    raise AssertionError(f"never logged: {message}")


def test_every_line_of_a_request_has_its_ids(split: tuple[Node, Node]) -> None:
    gateway, roles = split
    trace_id = "4" * 32
    body = {"sql": "select * from people where name = 'Zoë'"}
    assert traced(gateway, "POST", "/query/sql", trace_id, json=body).status_code == 200
    for node, protocol, name in (
        (gateway, "http", "POST /query/sql"),
        (roles, "grpc", "lakehouse.v1.Query/Run"),
    ):
        done = logged(node, "request", "r-44444444")
        assert (done["protocol"], done["request"]) == (protocol, name)
        assert done["actor"] == "local"
        assert done["trace_id"] == trace_id
        assert done["seconds"] > 0
    slow = logged(roles, "a slow query", "r-44444444")
    assert slow["level"] == "warning"
    assert slow["statement"] == "select * from people where name = ?"
    assert slow["outcome"] == "done"
    assert slow["rows"] == 1
    assert "Zoë" not in gateway.log + roles.log


def names_of(text: str) -> set[str]:
    """Families of a page, with a counter's suffix as the documentation has it."""
    return {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(text)
    }


def test_both_processes_show_figures_and_all_of_them_are_documented(
    split: tuple[Node, Node],
) -> None:
    gateway, roles = split
    documented = set(re.findall(r"^\| `(lakehouse_\w+)`", PAGE.read_text(), re.MULTILINE))
    pages = [httpx.get(f"{node.url}/metrics").text for node in (gateway, roles)]
    shown = [{n for n in names_of(page) if n.startswith("lakehouse_")} for page in pages]
    assert shown[0] | shown[1] == documented
    assert "lakehouse_ledger_commits_total" in shown[1] - shown[0]
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(pages[1])
        for sample in family.samples
    }
    assert found["lakehouse_ingest_rows_total",] >= 3
    assert found["lakehouse_ingests_total", "done"] >= 1
    done = [n for key, n in found.items() if key[0] == "lakehouse_queries_total" and "done" in key]
    assert sum(done) >= 2
    assert found["lakehouse_ledger_commits_total", "committed"] >= 1
    assert found["lakehouse_ledger_commit_seconds_count",] >= 1
    assert found["lakehouse_bucket_request_seconds_count", "primary", "put"] >= 1
    assert found["lakehouse_bucket_breaker", "primary"] == 0
    assert found["lakehouse_query_workers", "idle"] >= 1
    assert found["lakehouse_ledger_epoch",] == 1


def test_a_receiver_that_is_away_is_said_once_and_holds_nothing_up(tmp_path: Path) -> None:
    settings = {
        "LAKEHOUSE__TELEMETRY__TRACES": "otlp",
        "LAKEHOUSE__TELEMETRY__ENDPOINT": f"http://127.0.0.1:{free_ports(1)[0]}",
    }
    node = Node(tmp_path / "node", tmp_path / "bucket", settings=settings)
    with running(node):
        node.start()
        assert node.sql("select 1 as one") == [[1]]
        until = time.monotonic() + 60
        while "lakehouse_spans_lost_total 0.0" in httpx.get(f"{node.url}/metrics").text:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert node.sql("select 1 as one") == [[1]]
        assert node.stop() == 0
        assert node.log.count("traces are not taken") == 1
        assert "Connection refused" not in node.log


def test_the_door_shows_health_and_nothing_else(split: tuple[Node, Node]) -> None:
    _, roles = split
    for path in ("/health", "/ready", "/version", "/metrics"):
        assert httpx.get(roles.url + path).status_code == 200
    for path in ("/catalog/datasets", "/openapi.json", "/query"):
        assert httpx.get(roles.url + path).status_code == 404
