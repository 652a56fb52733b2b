"""Vectors and profiles: what embeds texts, and what finds the nearest of them.

The truth is in the catalog and in datasets: an index and a profile are documents, the vectors of an
index version are the rows of a dataset of their own (``vectors.<index>.v<number>``), written
through the contracts ``ingest`` and ``rows`` as anybody's are. What vectord itself writes, below
``_vectors/``, are search structures: caches, checked before use, and made anew from the rows where
they are gone, damaged or too old. Deleting all of them changes no answer. What was retrieved, and
what was tried in tuning, are append logs below ``_retrievals/`` and ``_trials/``: deleting those
forgets it.
"""
