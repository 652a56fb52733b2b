"""The Ollama server, by its official client: one call, its errors in our words."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np
import ollama

from lakehouse_sidecar.checks import Vectors
from lakehouse_sidecar.errors import PULLED, Code, SidecarError

_CONNECT_SECONDS: Final = 5.0
_NOT_FOUND: Final = 404
_TOO_MANY: Final = 429
# About what was asked; any other failure is about the server, or about who asks.
_ABOUT_THE_REQUEST: Final = frozenset({400, 413, 422})

_answered: ContextVar[Callable[[], None] | None] = ContextVar("answered", default=None)


async def _tell(_: httpx.Response) -> None:
    """The head of an answer has come. Servers send it when all of it is computed."""
    if (answered := _answered.get()) is not None:
        answered()


@dataclass(frozen=True, slots=True)
class ServerModel:
    """``digest`` of the weights, as the server says; "" if it does not."""

    name: str
    digest: str
    size_bytes: int
    family: str = ""
    parameters: str = ""


class Server:
    """Raises ``SidecarError``: UNAVAILABLE, EXHAUSTED, NOT_FOUND, REFUSED."""

    def __init__(self, url: str, call_seconds: float, word_seconds: float = 600.0) -> None:
        self.url = url
        self._client = _client(url, call_seconds)
        self._writer = _client(url, word_seconds)

    async def embed(
        self, model: str, texts: Sequence[str], answered: Callable[[], None] | None = None
    ) -> Vectors | None:
        """(texts, dimensions) float32; None where the rows have different lengths.

        ``answered`` is called when the server is done, before its answer is read: another may ask.
        """
        _answered.set(answered)
        try:
            answer = await self._client.embed(model=model, input=list(texts))
        except (ollama.ResponseError, httpx.HTTPError, OSError, ValueError) as error:
            raise _translated(error, self.url, model) from error
        try:
            return np.array(answer.embeddings, np.float32)
        except ValueError:
            return None

    async def models(self) -> tuple[ServerModel, ...]:
        try:
            answer = await self._client.list()
        except (ollama.ResponseError, httpx.HTTPError, OSError, ValueError) as error:
            raise _translated(error, self.url, "") from error
        return tuple(
            ServerModel(
                one.model or "",
                one.digest or "",
                int(one.size or 0),
                (one.details.family or "") if one.details else "",
                (one.details.parameter_size or "") if one.details else "",
            )
            for one in answer.models
        )

    async def generate(
        self, model: str, prompt: str, options: dict[str, Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The server's own messages as they come. Closing it stops the model."""
        try:
            stream: Any = await self._writer.generate(
                model=model, prompt=prompt, stream=True, options=options or None
            )
            async with aclosing(stream):
                async for part in stream:
                    yield part.model_dump(exclude_none=True)
        except (ollama.ResponseError, httpx.HTTPError, OSError, ValueError) as error:
            raise _translated(error, self.url, model) from error

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]
        await self._writer.close()  # type: ignore[no-untyped-call]


def _client(url: str, seconds: float) -> ollama.AsyncClient:
    timeout = httpx.Timeout(seconds, connect=_CONNECT_SECONDS)
    # The environment's proxies are for the world outside, not for a server that is named here.
    return ollama.AsyncClient(
        host=url, timeout=timeout, trust_env=False, event_hooks={"response": [_tell]}
    )


def _translated(error: Exception, url: str, model: str) -> SidecarError:
    if isinstance(error, ollama.ResponseError):
        status = error.status_code
        if status == _NOT_FOUND:
            return SidecarError(
                Code.NOT_FOUND, "the server has no such model", model=model, hint=PULLED
            )
        return SidecarError(
            _code(status), "the server refused", model=model, cause=error.error, status=status
        )
    if isinstance(error, httpx.TimeoutException):
        return SidecarError(Code.UNAVAILABLE, "the server took too long", url=url)
    return SidecarError(
        Code.UNAVAILABLE, "the server does not answer", url=url, cause=str(error) or repr(error)
    )


def _code(status: int) -> Code:
    if status in _ABOUT_THE_REQUEST:
        return Code.REFUSED
    return Code.EXHAUSTED if status == _TOO_MANY else Code.UNAVAILABLE
