"""Frozen value types shared by every layer above. No I/O, no behaviour beyond validation."""
