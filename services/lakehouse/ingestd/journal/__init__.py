"""The journal read back: events, the past of a row, a feed; and rows beyond the table's horizon.

Reads event objects and the catalog's version entries; writes nothing. What it holds (decoded
objects, which versions an object has) may be dropped at any time.
"""
