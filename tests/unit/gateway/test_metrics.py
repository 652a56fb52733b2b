"""Figures in Prometheus' format: what sources say, in the types and names it wants."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from lakehouse.gateway.metrics import Metrics
from lakehouse.kit.figures import Distribution, Figure, Kind, Readout, alone
from lakehouse.rpc.counts import CallCounts
from unit.gateway.fakes import World

COUNTER = Figure("lakehouse_things", Kind.COUNTER, "things that were", ("kind",))
GAUGE = Figure("lakehouse_depth", Kind.GAUGE, "how deep it is")
TAKEN = Figure("lakehouse_thing_seconds", Kind.DISTRIBUTION, "how long one took")


class Source:
    """A part with figures of its own."""

    def __init__(self) -> None:
        self.things = 2
        self.taken = Distribution((0.1, 1.0))

    def figures(self) -> Iterator[Readout]:
        yield COUNTER, {("big",): self.things, ("small",): 0}
        yield alone(GAUGE, 7)
        yield alone(TAKEN, self.taken)


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of a page, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_sources_are_asked_at_each_scrape() -> None:
    source = Source()
    metrics = Metrics((source,))
    assert samples(metrics.render().decode())[("lakehouse_things_total", (("kind", "big"),))] == 2
    source.things = 5
    found = samples(metrics.render().decode())
    assert found[("lakehouse_things_total", (("kind", "big"),))] == 5
    assert found[("lakehouse_things_total", (("kind", "small"),))] == 0
    assert found[("lakehouse_depth", ())] == 7


def test_distributions_are_cumulative_and_bounds_inclusive() -> None:
    source = Source()
    for value in (0.05, 0.1, 0.11, 1.0, 30.0):
        source.taken.observe(value)
    found = samples(Metrics((source,)).render().decode())
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in found.items()
        if name == "lakehouse_thing_seconds_bucket"
    }
    assert buckets == {"0.1": 2, "1.0": 4, "+Inf": 5}
    assert found[("lakehouse_thing_seconds_count", ())] == 5
    assert found[("lakehouse_thing_seconds_sum", ())] == 31.26


def test_calls_over_grpc_are_shown_by_method_and_status() -> None:
    counts = CallCounts()
    for status in ("OK", "OK", "NOT_FOUND"):
        counts.began()
        counts.ended("/lakehouse.v1.Catalog/Get", status, 0.002)
    counts.began()
    found = samples(Metrics((counts,)).render().decode())
    method = ("method", "lakehouse.v1.Catalog/Get")
    assert found[("lakehouse_grpc_calls_total", (method, ("status", "OK")))] == 2
    assert found[("lakehouse_grpc_calls_total", (method, ("status", "NOT_FOUND")))] == 1
    assert found[("lakehouse_grpc_calls_open", ())] == 1
    assert found[("lakehouse_grpc_call_seconds_count", (method,))] == 3


async def test_the_page_shows_requests_and_the_process() -> None:
    async with World(figures=(Source(),)).client() as client:
        await client.get("/health")
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(answer.text)
    route = (("method", "GET"), ("route", "/health"))
    assert found[("lakehouse_http_requests_total", (*route, ("status", "200")))] == 1
    assert found[("lakehouse_http_request_seconds_count", route)] == 1
    # This very request is under way.
    assert found[("lakehouse_http_requests_open", ())] == 1
    assert found[("lakehouse_depth", ())] == 7
    assert found[("process_resident_memory_bytes", ())] > 0
    assert found[("process_open_fds", ())] > 0
