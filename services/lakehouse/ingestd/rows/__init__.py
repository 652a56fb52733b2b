"""Rows by key: read, change, widen, restore, compare; and compaction of what changes leave."""
