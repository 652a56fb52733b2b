"""The chunks of a streamed write, watched: who is waited for, and whose failure is it?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Self

from lakehouse.kit.clock import Clock


class Source:
    """Forwards ``chunks`` and notes when they came.

    Attributes:
        asked: called with True when the store asks for a chunk and so waits for the source, with
            False when it has got one.
        failure: what the chunks raised; not the store's failure.
    """

    def __init__(self, chunks: AsyncIterator[bytes], clock: Clock) -> None:
        self._chunks = chunks
        self._clock = clock
        self.asked: Callable[[bool], None] | None = None
        self._moved = clock.monotonic()
        self._waiting = False
        self.failure: BaseException | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        self._waiting = True
        if self.asked is not None:
            self.asked(True)
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self._waiting = False
            self._moved = self._clock.monotonic()
            if self.asked is not None:
                self.asked(False)

    def silence(self) -> float:
        """Seconds since the store last got something to send; 0 while it waits for that."""
        return 0.0 if self._waiting else self._clock.monotonic() - self._moved
