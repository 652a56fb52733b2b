"""queryd: SQL over one pinned store version. Writes nothing durable.

Invariants: engines open verified objects only; a query sees one version; equal answers on both
engines. The read cache and the spill folder may be deleted at any time.
"""
