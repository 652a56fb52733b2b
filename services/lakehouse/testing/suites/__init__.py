"""Conformance suites: one behaviour, run against every implementation of a port."""
