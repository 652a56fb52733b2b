"""Append logs: batches of JSON events, each batch one write-once object in a chain of slots.

A log is a ledger without a state and without epochs: whoever finds a slot taken takes the next.
Two ways in: ``append`` is durable (it returns after the PUT), ``offer`` is best-effort (memory, a
local spool, the bucket within a second; what is dropped is counted). Compaction merges old batches
into larger objects; whatever lies below the prefix is the log, caches are none.
"""
