"""The processes that turn texts into vectors, started with the first text."""

from __future__ import annotations

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.vectord.settings import EmbeddingSettings


class EmbeddingProcesses:
    """The sidecar of the configuration, or one of this node's own over its own small model."""

    def __init__(self, settings: EmbeddingSettings) -> None:
        self._settings = settings

    async def url(self) -> str:
        """Where the sidecar answers; starts it if nobody has. Raises ``unavailable``."""
        if self._settings.sidecar_url:
            return self._settings.sidecar_url
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def close(self) -> None:
        """End what was started here; idempotent."""
