"""ingestd: reads messy exports and makes them datasets. Owns objects under ``datasets/``.

Invariants: objects first, then one commit; what was not committed is garbage until collected; a
value is never lost or altered on the way in. The spool folder may be deleted at any time.
"""
