"""What was retrieved, remembered in the log ``_retrievals/``: replayed, explained, pinned."""
