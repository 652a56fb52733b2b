"""The one commit primitive: a chain of immutable records made with put-if-absent.

Read shared design ``ledger``; docs/adr keeps where we differ. This package is free of the rest of
the lakehouse: it knows records, slots, floors, checkpoints and a state machine it is handed.
"""
