"""The journal of row changes: events, the past of a row, a feed of changes (ADR-012)."""
