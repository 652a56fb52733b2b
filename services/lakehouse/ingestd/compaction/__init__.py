"""Compaction: many small objects of a dataset into few, the rows that can be seen being the same.

``planning`` (pure) says what pays, ``running`` reads, folds, writes and commits, ``service`` is the
use case. What may be deleted and rebuilt: all of its scratch. What must hold: the rule of seq in
``planning``, and that rows and their hash are the same before and after (law 8 of the ledger).
"""
