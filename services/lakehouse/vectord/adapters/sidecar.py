"""The embedding server over HTTP: the sidecar of the configuration, or one started here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import numpy as np
import orjson

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.vectord.ports import Embedded, Lane, ModelInfo, Vectors
from lakehouse.vectord.settings import EmbeddingSettings

if TYPE_CHECKING:
    import httpx

_TEXTS_AT_ONCE: Final = 256
_CHARACTERS_AT_ONCE: Final = 1 << 18
# The next request waits at the sidecar while the one before is at the model.
_REQUESTS_AT_ONCE: Final = 2
_ATTEMPTS: Final = 5
_RETRY_SECONDS: Final = 0.1
# The sidecar's own answer comes first: it says what was slow.
_GRACE_SECONDS: Final = 5.0
_INDEX_PATIENCE: Final = 10
_BINARY: Final = "application/octet-stream"
_TEXT_SHOWN: Final = 80

_KINDS: Final = {
    "invalid": ErrorKind.INVALID,
    "refused": ErrorKind.INVALID,
    "not_found": ErrorKind.NOT_FOUND,
    "exhausted": ErrorKind.EXHAUSTED,
    "deadline": ErrorKind.TIMEOUT,
    "unavailable": ErrorKind.UNAVAILABLE,
    "corrupt": ErrorKind.CORRUPT,
}


class SidecarEmbedder:
    """Implements ``ports.Embedder``. Belongs to one event loop.

    Args:
        url: where the sidecar is; starts it where that is needed, anew where it has died.
    """

    def __init__(self, settings: EmbeddingSettings, url: Callable[[], Awaitable[str]]) -> None:
        self._settings = settings
        self._url = url
        self._client: httpx.AsyncClient | None = None

    async def embed(self, model: str, texts: Sequence[str], lane: Lane) -> Embedded:
        """In several requests where there are many texts; all by one model, or ``conflict``."""
        if not texts:
            about = await self.model(model)
            return Embedded(np.empty((0, about.dimensions), np.float32), about)
        parts = [slice(*bounds) for bounds in batches(texts)]
        gate = asyncio.Semaphore(_REQUESTS_AT_ONCE)

        async def part(place: slice) -> Embedded:
            async with gate:
                return await self._batch(model, texts[place], place.start, lane)

        async with _first_error(asyncio.TaskGroup()) as group:
            doing = [group.create_task(part(place)) for place in parts]
        found = [task.result() for task in doing]
        about = found[0].model
        if any(one.model != about for one in found):
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "the model changed under its name while texts were embedded",
                model=model,
                hint="try again",
            )
        if len(found) == 1:
            return found[0]
        refused = {
            place.start + at: why
            for place, one in zip(parts, found, strict=True)
            for at, why in one.refused.items()
        }
        return Embedded(np.concatenate([one.vectors for one in found]), about, refused)

    async def model(self, name: str) -> ModelInfo:
        """As the server has it now."""
        answer = await self._ask(
            "GET", f"/models/{quote(name)}", None, self._settings.timeout_seconds
        )
        about = orjson.loads(answer.content)
        return ModelInfo(name, about["digest"], about["dimensions"], about["canary_sha256"])

    async def close(self) -> None:
        """End the connections; idempotent."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def _batch(self, model: str, texts: Sequence[str], first: int, lane: Lane) -> Embedded:
        seconds = self._seconds(lane)
        body = {
            "model": model,
            "input": list(texts),
            "lane": lane.value,
            "deadline_seconds": seconds,
            "partial": lane is Lane.INDEX,
        }
        try:
            answer = await self._ask("POST", "/embed", orjson.dumps(body), seconds)
        except LakehouseError as error:
            place = error.fields.get("text")
            if isinstance(place, int) and 0 <= place < len(texts):
                error.fields |= {"text": texts[place][:_TEXT_SHOWN], "place": first + place}
            raise
        return _decoded(model, answer, len(texts))

    async def _ask(
        self, method: str, path: str, body: bytes | None, seconds: float
    ) -> httpx.Response:
        """Asked again where the sidecar, or what it asks, was away or full for a moment."""
        # Slow to import, and of no use to a node that embeds nothing.
        import httpx

        problem = LakehouseError(ErrorKind.UNAVAILABLE, "the embedding server was not asked")
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_RETRY_SECONDS * 2 ** (attempt - 1))
            url = await self._url()
            try:
                answer = await self._opened().request(
                    method,
                    f"{url.rstrip('/')}{path}",
                    content=body,
                    timeout=seconds + _GRACE_SECONDS,
                )
            except httpx.HTTPError as error:
                problem = LakehouseError(
                    ErrorKind.UNAVAILABLE,
                    "the embedding server does not answer",
                    cause=str(error) or type(error).__name__,
                    hint="the node's log says why, or see embedding.sidecar_url",
                )
                problem.__cause__ = error
                if isinstance(error, httpx.TimeoutException):
                    break
                continue
            if answer.is_success:
                return answer
            problem = refusal(answer)
            if answer.status_code not in (429, 503):
                break
        raise problem

    def _seconds(self, lane: Lane) -> float:
        """Indexing waits behind all queries, and has the time."""
        return self._settings.timeout_seconds * (_INDEX_PATIENCE if lane is Lane.INDEX else 1)

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            self._client = httpx.AsyncClient(
                trust_env=False,
                headers={"content-type": "application/json", "accept": _BINARY},
            )
        return self._client


def batches(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Bounds of requests: so many texts, so many characters, at least one text."""
    start = size = 0
    for place, text in enumerate(texts):
        if place > start and (
            place - start == _TEXTS_AT_ONCE or size + len(text) > _CHARACTERS_AT_ONCE
        ):
            yield start, place
            start, size = place, 0
        size += len(text)
    if start < len(texts):
        yield start, len(texts)


@asynccontextmanager
async def _first_error(group: asyncio.TaskGroup) -> AsyncIterator[asyncio.TaskGroup]:
    """The first task's error as it is: its neighbours fell with it, or for the same reason."""
    try:
        async with group:
            yield group
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


def _decoded(name: str, answer: httpx.Response, rows: int) -> Embedded:
    try:
        found = int(answer.headers["x-rows"])
        dimensions = int(answer.headers["x-dimensions"])
        vectors: Vectors = np.frombuffer(answer.content, "<f4").reshape(found, dimensions)
        reasons: dict[str, list[int]] = orjson.loads(answer.headers.get("x-refused", "{}"))
        refused = {int(at): why for why, places in reasons.items() for at in places}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise LakehouseError(
            ErrorKind.CORRUPT, "the embedding server sent no vectors", cause=str(error)
        ) from error
    if found != rows:
        raise LakehouseError(
            ErrorKind.CORRUPT, "vectors are missing in an answer", wanted=rows, found=found
        )
    about = ModelInfo(
        name,
        answer.headers.get("x-model-digest", ""),
        dimensions,
        answer.headers.get("x-canary-sha256", ""),
    )
    return Embedded(vectors, about, refused)


def refusal(answer: httpx.Response) -> LakehouseError:
    """What the sidecar said instead of an answer."""
    try:
        said: dict[str, Any] = orjson.loads(answer.content)
        message = str(said.pop("error"))
    except (orjson.JSONDecodeError, KeyError, AttributeError, TypeError):
        return LakehouseError(
            ErrorKind.UNAVAILABLE,
            "the embedding server answers something else",
            answered=answer.status_code,
        )
    kind = _KINDS.get(said.pop("code", ""), ErrorKind.UNAVAILABLE)
    said.pop("status", None)
    return LakehouseError(kind, message, **said)
