"""Which weights stand behind a name now, and whether they still answer as they did."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from lakehouse_sidecar.checks import CANARY_TEXT, Vectors, canary_sha256, same_direction, wrong_with
from lakehouse_sidecar.errors import PULLED, Code, SidecarError, of_all
from lakehouse_sidecar.lanes import Lane, Lanes
from lakehouse_sidecar.pieces import Pace
from lakehouse_sidecar.server import Server, ServerModel
from lakehouse_sidecar.settings import Settings

_DEFAULT_TAG: Final = ":latest"
_NAMES_SHOWN: Final = 20


@dataclass(slots=True)
class Model:
    """Weights behind a name; other weights are another one.

    Attributes:
        canary: the vector of a known text, as it was when they were first seen.
        looked_up, canary_checked: when, on the monotonic clock.
    """

    name: str
    digest: str
    canary: Vectors
    looked_up: float
    canary_checked: float
    pace: Pace = field(default_factory=Pace)

    @property
    def dimensions(self) -> int:
        return len(self.canary)

    @property
    def canary_sha256(self) -> str:
        return canary_sha256(self.canary)


class Models:
    """Belongs to one event loop."""

    def __init__(self, server: Server, lanes: Lanes, settings: Settings) -> None:
        self._server = server
        self._lanes = lanes
        self._settings = settings
        self._known: dict[str, Model] = {}
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, name: str, lane: Lane) -> Model:
        """What stands behind the name, as of at most ``digest_seconds`` ago. Raises NOT_FOUND,
        UNAVAILABLE, CORRUPT."""
        async with self._asking[name]:
            model = self._known.get(name)
            now = time.monotonic()
            if model is not None and now - model.looked_up < self._settings.digest_seconds:
                return model
            listed = _listed(name, await self._server.models())
            if model is None or model.digest != listed.digest:
                model = await self._meet(name, listed, lane)
                self._known[name] = model
            model.looked_up = now
            return model

    def doubt(self, model: Model) -> None:
        """Look it up with the next call."""
        model.looked_up = float("-inf")

    def forget(self, model: Model) -> None:
        """Take its next answers for those of another model."""
        if self._known.get(model.name) is model:
            del self._known[model.name]

    async def _meet(self, name: str, listed: ServerModel, lane: Lane) -> Model:
        """Ask for the known text twice: a server whose answers differ is no use."""
        first, second = [await self._canary(name, lane) for _ in range(2)]
        if not same_direction(first, second):
            raise SidecarError(
                Code.CORRUPT, "the server gave one text two different vectors", model=name
            )
        now = time.monotonic()
        return Model(name, listed.digest, first, now, now)

    async def _canary(self, name: str, lane: Lane) -> Vectors:
        async with self._lanes.permit(lane):
            try:
                vectors = await self._server.embed(name, [CANARY_TEXT])
            except SidecarError as error:
                raise of_all(error) from error
        wrong = wrong_with(vectors, 1, 0)
        if vectors is None or wrong:
            raise SidecarError(Code.CORRUPT, wrong, model=name)
        found: Vectors = vectors[0]
        return found


def _listed(name: str, models: tuple[ServerModel, ...]) -> ServerModel:
    names = {one.name: one for one in models}
    found = names.get(name) or names.get(name + _DEFAULT_TAG)
    if found is None:
        raise SidecarError(
            Code.NOT_FOUND,
            "the server has no such model",
            model=name,
            models=sorted(names)[:_NAMES_SHOWN],
            hint=PULLED,
        )
    return found
