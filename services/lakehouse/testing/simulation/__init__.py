"""A simulated world for the ledger: store, clock, loop, processes, and what must hold in it."""
