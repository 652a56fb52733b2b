"""A model that writes, behind the embedding server's sidecar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import orjson

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.vectord.adapters.sidecar import refusal
from lakehouse.vectord.ports import Generated
from lakehouse.vectord.settings import RagSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

__all__ = ["SidecarGenerator"]

_ATTEMPTS: Final = 4
_RETRY_SECONDS: Final = 0.1
_CONNECT_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 5.0
_LINE_BYTES_MAX: Final = 4 << 20
_CANNOT: Final = "the model's server does not generate text with this model"


class SidecarGenerator:
    """Implements ``ports.Generator``. Belongs to one event loop.

    Args:
        url: where the sidecar is; starts it where that is needed, anew where it has died.
    """

    def __init__(self, settings: RagSettings, url: Callable[[], Awaitable[str]]) -> None:
        self._settings = settings
        self._url = url
        self._client: httpx.AsyncClient | None = None

    async def generate(
        self, model: str, prompt: str, options: Mapping[str, float | int]
    ) -> AsyncGenerator[Generated, None]:
        """See the port. Asked again while not a word has come and the server was away."""
        body = orjson.dumps({"model": model, "prompt": prompt, "options": dict(options)})
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_RETRY_SECONDS * 2 ** (attempt - 1))
            try:
                async with self._answer(body) as lines:
                    done = False
                    async for each in lines:
                        done = each.done
                        yield each
                if not done:
                    raise _broken("the model stopped in the middle of its answer")
                return
            except _NoWordError as error:
                if attempt == _ATTEMPTS - 1 or not error.again:
                    raise await self._named(model, error.problem) from error

    async def close(self) -> None:
        """End the connections; idempotent."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    @asynccontextmanager
    async def _answer(self, body: bytes) -> AsyncIterator[AsyncGenerator[Generated, None]]:
        """The parts of an answer that has begun. Raises ``_NoWordError`` where none has."""
        # Slow to import, and of no use to a node that answers nothing.
        import httpx

        url = await self._url()
        asked = self._opened().stream("POST", f"{url.rstrip('/')}/generate", content=body)
        try:
            answer = await asked.__aenter__()
        except httpx.HTTPError as error:
            raise _NoWordError(_translated(error), again=not _slow(error)) from error
        try:
            if not answer.is_success:
                await answer.aread()
                raise _NoWordError(_cannot(refusal(answer)), answer.status_code in (429, 503))
            lines = _parts(answer)
            try:
                yield lines
            finally:
                await lines.aclose()
        except httpx.HTTPError as error:
            raise _translated(error) from error
        finally:
            # Its connection is closed with it, which is what stops the model.
            await asked.__aexit__(None, None, None)

    async def _named(self, model: str, problem: LakehouseError) -> LakehouseError:
        """With the models that there are, where there is not the one that was asked for."""
        if problem.kind is not ErrorKind.NOT_FOUND or "models" in problem.fields:
            return problem
        import httpx

        try:
            url = await self._url()
            where = f"{url.rstrip('/')}/models?writer=true"
            answer = await self._opened().get(where, timeout=_LOOK_SECONDS)
            there = [str(one["name"]) for one in orjson.loads(answer.content)["models"]]
        except (httpx.HTTPError, LakehouseError, ValueError, KeyError, TypeError):
            return problem
        problem.fields |= {"model": model, "models": [*there[:100]]}
        return problem

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            seconds = self._settings.timeout_seconds
            self._client = httpx.AsyncClient(
                trust_env=False,
                timeout=httpx.Timeout(seconds, connect=_CONNECT_SECONDS),
                headers={"content-type": "application/json"},
            )
        return self._client


class _NoWordError(Exception):
    """Not a word has come. ``again``: asking once more may help."""

    def __init__(self, problem: LakehouseError, again: bool) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.again = again


async def _parts(answer: httpx.Response) -> AsyncGenerator[Generated, None]:
    """By line ends alone: words may have other characters that end lines."""
    held = bytearray()
    async for data in answer.aiter_bytes():
        held += data
        *lines, rest = held.split(b"\n")
        for line in lines:
            if line:
                yield _part(line)
        held = bytearray(rest)
        if len(held) > _LINE_BYTES_MAX:
            raise _broken("the model's server sends a line without an end")
    if held:
        yield _part(held)


def _part(line: bytes | bytearray) -> Generated:
    try:
        said: dict[str, Any] = orjson.loads(line)
        if "error" in said:
            cause = str(said.get("cause") or said["error"])[:300]
            raise _broken("the model failed in the middle of its answer", cause=cause)
        return Generated(
            str(said.get("response") or ""),
            said.get("done") is True,
            str(said.get("done_reason") or ""),
            int(said.get("prompt_eval_count") or 0),
            int(said.get("eval_count") or 0),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise _broken("the model's server answers something else", cause=str(error)) from error


def _broken(message: str, **fields: str) -> LakehouseError:
    return LakehouseError(ErrorKind.UNAVAILABLE, message, **fields)


def _slow(error: httpx.HTTPError) -> bool:
    import httpx

    return isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout)


def _translated(error: httpx.HTTPError) -> LakehouseError:
    cause = str(error) or type(error).__name__
    if _slow(error):
        return LakehouseError(
            ErrorKind.TIMEOUT,
            "the model took too long for its next words",
            cause=cause,
            limit="rag.timeout_seconds",
        )
    return LakehouseError(
        ErrorKind.UNAVAILABLE,
        "the model's server does not answer",
        cause=cause,
        hint="the node's log says why, or see embedding.sidecar_url",
    )


def _cannot(problem: LakehouseError) -> LakehouseError:
    """What a server refuses that knows the model is that it writes with it."""
    if problem.kind is not ErrorKind.INVALID:
        return problem
    return LakehouseError(
        ErrorKind.UNAVAILABLE,
        _CANNOT,
        **problem.fields,
        hint="name a model that generates: rag.model, or model of the request, on an Ollama server"
        " at embedding.generate_url",
    )
