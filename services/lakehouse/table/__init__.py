"""Functional core over Arrow: types, inference, fingerprints, diffs, statistics. No I/O."""
