"""Texts to vectors: admitted, cut into pieces, asked for, checked, put back in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lakehouse_sidecar.checks import CANARY_TEXT, Vectors, same_direction, wrong_with
from lakehouse_sidecar.errors import Code, SidecarError, of_all
from lakehouse_sidecar.lanes import Lane, Lanes
from lakehouse_sidecar.models import Model, Models
from lakehouse_sidecar.pieces import cost, order, take
from lakehouse_sidecar.server import Server
from lakehouse_sidecar.settings import Settings

# These may pass: asked again, a server often answers.
_PASSING = (Code.CORRUPT, Code.UNAVAILABLE, Code.EXHAUSTED)
_SERVER_FAULT = 500


class _Unlike(SidecarError):
    """A known text has another vector: that is never the fault of the texts beside it."""


class _Changed(Exception):
    """Other weights stand behind the name than when the request began."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """``vectors``: (texts, dimensions) float32, all by ``model``. ``refused``: why, by place, of
    texts that got none, where the request allows that; theirs are zeros."""

    vectors: Vectors
    model: Model
    refused: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Asked:
    """``refused``: takes those that get no vector, by place; None where one such fails all."""

    texts: Sequence[str]
    lane: Lane
    refused: dict[int, str] | None

    def refuse(self, place: int, error: SidecarError) -> None:
        if self.refused is None:
            raise error
        self.refused[place] = str(error)


class Embedding:
    """Belongs to one event loop."""

    def __init__(self, server: Server, models: Models, lanes: Lanes, settings: Settings) -> None:
        self._server = server
        self._models = models
        self._lanes = lanes
        self._settings = settings

    async def embed(
        self,
        name: str,
        texts: Sequence[str],
        lane: Lane,
        seconds: float | None = None,
        *,
        partial: bool = False,
    ) -> Embedded:
        """Raises INVALID, NOT_FOUND, EXHAUSTED, DEADLINE, UNAVAILABLE, REFUSED, CORRUPT. With
        ``partial`` a text that is INVALID or REFUSED keeps the others from nothing."""
        wrong = self._check(texts)
        if wrong and not partial:
            raise next(iter(wrong.values()))
        limit = seconds or self._settings.deadline_seconds
        async with self._lanes.admitted(lane):
            try:
                async with asyncio.timeout(limit):
                    return await self._by_one_model(name, texts, lane, wrong if partial else None)
            except TimeoutError as error:
                raise SidecarError(Code.DEADLINE, "not done in time", seconds=limit) from error

    def _check(self, texts: Sequence[str]) -> dict[int, SidecarError]:
        """What is wrong with single texts, by place."""
        settings = self._settings
        bytes_max = settings.text_bytes_max
        if len(texts) > settings.texts_max:
            raise SidecarError(
                Code.INVALID, "too many texts", texts=len(texts), texts_max=settings.texts_max
            )
        wrong = {}
        for place, text in enumerate(texts):
            if not text.strip():
                wrong[place] = SidecarError(Code.INVALID, "a text is empty", text=place)
            # Counting characters is free, and rules most texts out.
            elif len(text) * 4 > bytes_max and len(text.encode()) > bytes_max:
                wrong[place] = SidecarError(
                    Code.INVALID, "a text is too long", text=place, bytes_max=bytes_max
                )
        return wrong

    async def _by_one_model(
        self,
        name: str,
        texts: Sequence[str],
        lane: Lane,
        wrong: Mapping[int, SidecarError] | None,
    ) -> Embedded:
        """Never vectors of two models in one answer."""
        for _ in range(self._settings.attempts):
            model = await self._models.get(name, lane)
            refused = None if wrong is None else {at: str(each) for at, each in wrong.items()}
            try:
                vectors = await self._all(model, _Asked(texts, lane, refused))
            except _Changed:
                continue
            if await self._models.get(name, lane) is model:
                return Embedded(vectors, model, refused or {})
        raise SidecarError(Code.CORRUPT, "the model changes under its name", model=name)

    async def _all(self, model: Model, asked: _Asked) -> Vectors:
        texts = asked.texts
        found = np.zeros((len(texts), model.dimensions), np.float32)
        left = [place for place in order(texts) if place not in (asked.refused or ())]
        while left:
            budget = model.pace.rate * self._settings.batch_seconds
            count = take(texts, left, budget, self._settings.batch_texts_max)
            places, left = left[:count], left[count:]
            found[places] = await self._piece(model, asked, places)
        return found

    async def _piece(
        self, model: Model, asked: _Asked, places: Sequence[int], *, halved: bool = False
    ) -> Vectors:
        """In halves where one text may be to blame, until that one stands alone."""
        try:
            texts = [asked.texts[place] for place in places]
            return await self._tried(model, texts, asked.lane, halved=halved)
        except SidecarError as error:
            problem = error
        if not _of_a_text(problem) or not await self._answers(model, asked.lane):
            if problem.code is Code.CORRUPT:
                # A server that tells no digests may have other weights by now: meet them anew.
                self._models.forget(model)
            raise of_all(problem)
        if len(places) == 1:
            return await self._alone(model, asked, places[0], problem)
        half = len(places) // 2
        first = await self._piece(model, asked, places[:half], halved=True)
        rest = await self._piece(model, asked, places[half:], halved=True)
        return np.concatenate([first, rest])

    async def _tried(self, model: Model, texts: list[str], lane: Lane, *, halved: bool) -> Vectors:
        """Asked for again where that may help: not for half of what has failed again and again,
        which in all likelihood is the half with the text that is to blame."""
        settings = self._settings
        problem = SidecarError(Code.UNAVAILABLE, "the server was not asked", model=model.name)
        for attempt in range(settings.attempts):
            if attempt:
                await asyncio.sleep(settings.retry_seconds * 2 ** (attempt - 1))
            try:
                return await self._ask(model, texts, lane)
            except SidecarError as error:
                problem = error
            if problem.code is Code.CORRUPT:
                self._models.doubt(model)
                if await self._models.get(model.name, lane) is not model:
                    raise _Changed
            elif problem.code not in _PASSING:
                break
            if halved and _of_a_text(problem):
                break
        raise problem

    async def _alone(
        self, model: Model, asked: _Asked, place: int, problem: SidecarError
    ) -> Vectors:
        """A text that failed while a known one did not: REFUSED. A server that only fails now and
        then must not cost a text its vector: it is to fail at this one again and again, and at the
        known one in between never."""
        for _ in range(self._settings.attempts):
            if problem.code is Code.REFUSED:
                break
            try:
                return await self._ask(model, [asked.texts[place]], asked.lane)
            except SidecarError as error:
                problem = error
            if not _of_a_text(problem) or not await self._answers(model, asked.lane):
                raise of_all(problem)
        fields = {"cause": str(problem), **problem.fields, "text": place}
        asked.refuse(place, SidecarError(Code.REFUSED, "the server refused", **fields))
        return np.zeros((1, model.dimensions), np.float32)

    async def _answers(self, model: Model, lane: Lane) -> bool:
        """Whether a known text gets its vector now: what fails then is not the server."""
        try:
            found = await self._ask(model, [CANARY_TEXT], lane)
        except SidecarError:
            return False
        return same_direction(found[0], model.canary)

    async def _ask(self, model: Model, texts: list[str], lane: Lane) -> Vectors:
        """One call. Raises CORRUPT for an answer that cannot be right."""
        watch = time.monotonic() - model.canary_checked >= self._settings.canary_seconds
        asked = [*texts, CANARY_TEXT] if watch else texts
        async with self._lanes.permit(lane) as answered:
            started = time.perf_counter()
            vectors = await self._server.embed(model.name, asked, answered)
            took = time.perf_counter() - started
        wrong = wrong_with(vectors, len(asked), model.dimensions)
        if vectors is None or wrong:
            raise SidecarError(Code.CORRUPT, wrong, model=model.name)
        if watch:
            if not same_direction(vectors[-1], model.canary):
                raise _Unlike(
                    Code.CORRUPT, "a known text has another vector than before", model=model.name
                )
            model.canary_checked = time.monotonic()
            vectors = vectors[:-1]
        model.pace.measured(sum(map(cost, asked)), took)
        return vectors


def _of_a_text(problem: SidecarError) -> bool:
    """Whether a text can be the cause: models break down over some, with 500 or with NaN."""
    if problem.code is Code.CORRUPT:
        return not isinstance(problem, _Unlike)
    status = problem.fields.get("status")
    broke = isinstance(status, int) and status >= _SERVER_FAULT
    return problem.code is Code.REFUSED or broke
