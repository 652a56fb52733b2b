"""An answer under way: words as they come, then what they were based on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from lakehouse.contracts.rag import AnswerEnd, AnswerPart
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.vectord.ports import Generated
from lakehouse.vectord.rag.citing import cited

__all__ = ["Asked", "Words"]

_ANSWER_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model was asked. ``deadline``: of the caller, on the clock's monotonic scale."""

    model: str
    retrieval_id: str
    context: int
    began: float
    deadline: float | None


class Words:
    """Implements the iterator of ``AnswerStream``. Closing it stops the model, also before the
    first word was asked for."""

    def __init__(self, source: AsyncGenerator[Generated, None], asked: Asked, clock: Clock) -> None:
        self._source = source
        self._asked = asked
        self._clock = clock
        self._held: Generated | None = None
        self._said: list[str] = []
        self._size = 0
        self._end: AnswerEnd | None = None
        self._ended = False

    async def begin(self) -> None:
        """Wait for the first words. Raises what the model raises."""
        self._held = await self._next()

    def __aiter__(self) -> Words:
        return self

    async def __anext__(self) -> AnswerPart:
        if self._end is not None:
            end, self._end = self._end, None
            return AnswerPart(end=end)
        while not self._ended:
            held, self._held = self._held, None
            part = held or await self._next()
            if part.text:
                self._said.append(part.text)
                self._size += len(part.text)
            long = self._size > _ANSWER_MAX and not part.done
            if part.done or long:
                await self.aclose()
                end = self._ending(part, "length" if long else part.done_reason)
                if not part.text:
                    return AnswerPart(end=end)
                self._end = end
            if part.text:
                return AnswerPart(part.text)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop the model; idempotent."""
        self._ended = True
        await self._source.aclose()

    async def _next(self) -> Generated:
        left = None
        if self._asked.deadline is not None:
            left = max(0.0, self._asked.deadline - self._clock.monotonic())
        try:
            async with asyncio.timeout(left):
                part = await anext(self._source, None)
        except TimeoutError as error:
            await self.aclose()
            raise self._told(
                LakehouseError(
                    ErrorKind.TIMEOUT,
                    "the deadline passed before the answer was complete",
                    hint="allow more time, or ask for fewer words",
                )
            ) from error
        except LakehouseError as error:
            await self.aclose()
            raise self._told(error) from None
        if part is None:
            await self.aclose()
            raise self._told(
                LakehouseError(ErrorKind.UNAVAILABLE, "the model gave no end of its answer")
            )
        return part

    def _told(self, error: LakehouseError) -> LakehouseError:
        error.fields |= {"retrieval_id": self._asked.retrieval_id, "model": self._asked.model}
        if self._said:
            error.fields["answered_characters"] = self._size
        return error

    def _ending(self, last: Generated, reason: str) -> AnswerEnd:
        answer = "".join(self._said)
        known, unknown = cited(answer, self._asked.context)
        return AnswerEnd(
            answer,
            known,
            unknown,
            self._asked.model,
            reason,
            last.prompt_tokens,
            last.answer_tokens,
            self._clock.monotonic() - self._asked.began,
        )
