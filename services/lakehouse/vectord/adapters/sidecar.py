"""The embedding server over HTTP: the sidecar of the configuration, or one started here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.vectord.ports import Embedded, Lane, ModelInfo
from lakehouse.vectord.settings import EmbeddingSettings


class SidecarEmbedder:
    """Implements ``ports.Embedder``.

    Args:
        url: where the sidecar is; starts it where that is needed.
    """

    def __init__(self, settings: EmbeddingSettings, url: Callable[[], Awaitable[str]]) -> None:
        self._settings = settings
        self._url = url

    async def embed(self, model: str, texts: Sequence[str], lane: Lane) -> Embedded:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def model(self, name: str) -> ModelInfo:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "not served yet")

    async def close(self) -> None:
        """Nothing is open."""
