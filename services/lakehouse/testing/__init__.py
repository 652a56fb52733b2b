"""Shipped test tools: clocks, fault and latency stores, strategies, conformance suites."""
