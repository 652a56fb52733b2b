"""Which model answers under a name now, and whether it is the one that an index was embedded by.

Weights are known by their digest; where a server tells none, by the canary: the vector of a known
text. Vectors of two models must never meet, whatever their names and dimensions say (ADR-014).
"""

from __future__ import annotations

from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import IndexVersion
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ports import ModelInfo

__all__ = ["Models", "check_same_model", "same_model"]

_REMEMBERED_SECONDS: Final = 60.0


class Models:
    """What the embedding server said of its models, for a minute. Belongs to one event loop."""

    def __init__(self, parts: VectorParts) -> None:
        self._embedder = parts.embedder
        self._clock = parts.clock
        self._known: dict[str, tuple[float, ModelInfo]] = {}

    async def current(self, name: str, *, fresh: bool = False) -> ModelInfo:
        """The model under ``name``; ``fresh`` asks in any case. Raises what the embedder does."""
        now = self._clock.monotonic()
        known = self._known.get(name)
        if known is not None and not fresh and now - known[0] < _REMEMBERED_SECONDS:
            return known[1]
        info = await self._embedder.model(name)
        self.told(info)
        return info

    def told(self, info: ModelInfo) -> None:
        """An answer of the server said so: it need not be asked for a while."""
        self._known[info.name] = (self._clock.monotonic(), info)

    async def check(self, version: IndexVersion) -> ModelInfo:
        """The model of ``version``, for texts that are to meet its vectors. Raises ``conflict`` if
        another one answers under its name, and what the embedder raises."""
        info = await self.current(version.model)
        if not same_model(version, info):
            # Asked again before anybody is refused: what is remembered may be the older one.
            info = await self.current(version.model, fresh=True)
        check_same_model(version, info)
        return info


def same_model(version: IndexVersion, info: ModelInfo) -> bool:
    """Whether vectors by ``info`` can be compared with those of ``version``. Given vectors carry
    neither digest nor canary: who gave them answers for the name."""
    if info.dimensions != version.dimensions:
        return False
    if version.model_digest and info.digest:
        return version.model_digest == info.digest
    if version.canary_sha256 and info.canary_sha256:
        return version.canary_sha256 == info.canary_sha256
    return True


def check_same_model(version: IndexVersion, info: ModelInfo) -> None:
    """Raise ``conflict`` unless ``same_model``."""
    if same_model(version, info):
        return
    if info.dimensions != version.dimensions and not version.model_digest:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the model's vectors have another dimension than the index",
            model=version.model,
            dimensions=version.dimensions,
            model_dimensions=info.dimensions,
            hint="search with a vector, or with an index whose profile names the model",
        )
    raise LakehouseError(
        ErrorKind.CONFLICT,
        "the model changed under its name",
        model=version.model,
        model_digest=version.model_digest,
        digest_now=info.digest,
        dimensions=version.dimensions,
        dimensions_now=info.dimensions,
        number=version.number,
        hint="build a new version of the index: POST .../build with new_version",
    )
