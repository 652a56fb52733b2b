"""Engines behind the SqlEngine port; the only door to datafusion, duckdb and sqlglot's dialects."""
