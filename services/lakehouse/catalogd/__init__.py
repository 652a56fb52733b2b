"""catalogd: the one committer. Owns ``_catalog/`` on the primary bucket.

Invariants: memory never ahead of the bucket; one live dataset a name; every answer carries the
version it was read at. Everything in memory may be deleted: it is rebuilt from checkpoint and tail.
"""
