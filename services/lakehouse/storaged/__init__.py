"""storaged: the memory and policy of buckets. Bytes do not travel through it.

Owns `_errors/`, the error journal in the primary, objects of users, and in the rescue bucket the
copies below `rescue/` with the copier's notes in `_rescue/`. Its invariants: a bucket has one name
and one place, a URL is shown without credentials, and a bucket that cannot be reached is an entry
in the list, never an error of it; a failed attempt is in the journal once, and telling it waits for
no bucket; a copy is made whole and verified, and removed only on what the catalog says. Counters
are of this process and may be lost; the spool on this machine may not. Copies may be deleted: they
are made again.
"""
