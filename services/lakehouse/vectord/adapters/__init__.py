"""The ports over real parts: the only place that knows hnswlib, Lance and the embedding server."""
