"""storaged: the memory and policy of buckets. Bytes do not travel through it.

Owns no prefix yet. Its invariants: a bucket is named only as configured, a URL is shown without
credentials, and a bucket that cannot be reached is an entry in the list, never an error of it.
Everything it knows is counters of this process and may be lost.
"""
