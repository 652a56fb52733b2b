"""A bucket whose requests take time, lose their replies, and happen later than anybody thinks."""

from __future__ import annotations

import asyncio
import bisect
import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.port import ByteRange, ObjectMeta
from lakehouse.testing.simulation.process import Process

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Faults:
    """Probability of each fault a request, and how long things take.

    Attributes:
        before: an error, nothing done. after: an error, though it was done.
        late: an error, and it is done up to ``late_seconds`` afterwards.
        again: a write happens a second time up to ``late_seconds`` afterwards (a duplicate that was
            under way somewhere).
        slow: it takes up to ``slow_seconds`` instead of ``usual_seconds``.
    """

    before: float = 0.01
    after: float = 0.01
    late: float = 0.02
    again: float = 0.03
    slow: float = 0.02
    usual_seconds: float = 0.02
    slow_seconds: float = 3.0
    late_seconds: float = 40.0


_REPLY_TAKES_TIME = 0.3
NO_FAULTS = Faults(before=0, after=0, late=0, again=0, slow=0)


class Bucket:
    """The objects. Effects are atomic; ``on_delete`` hears of each object that goes."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self._keys: list[str] = []
        self.requests = 0
        self.on_delete: Callable[[str], None] | None = None

    def get(self, key: str) -> bytes:
        try:
            return self.objects[key]
        except KeyError:
            raise LakehouseError(ErrorKind.NOT_FOUND, "no such object", key=key) from None

    def put(self, key: str, data: bytes, if_absent: bool) -> ObjectMeta:
        if key not in self.objects:
            bisect.insort(self._keys, key)
        elif if_absent:
            raise LakehouseError(ErrorKind.ALREADY_EXISTS, "object exists", key=key)
        self.objects[key] = data
        return ObjectMeta(key, len(data))

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            if self.objects.pop(key, None) is not None:
                del self._keys[bisect.bisect_left(self._keys, key)]
                if self.on_delete is not None:
                    self.on_delete(key)

    def list(self, prefix: str, start_after: str, limit: int) -> list[ObjectMeta]:
        first = bisect.bisect_left(self._keys, prefix)
        if start_after:
            first = max(first, bisect.bisect_right(self._keys, start_after))
        found: list[ObjectMeta] = []
        for key in self._keys[first : first + limit]:
            if not key.startswith(prefix):
                break
            found.append(ObjectMeta(key, len(self.objects[key])))
        return found


class SimulatedStore:
    """``ObjectStore`` of one process. What a process sent happens whether it lives or not."""

    def __init__(
        self, bucket: Bucket, process: Process, rng: random.Random, faults: Faults
    ) -> None:
        self._bucket = bucket
        self._process = process
        self._random = rng
        self._faults = faults

    @property
    def url(self) -> str:
        return "simulated://bucket"

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        data = await self._request(lambda: self._bucket.get(key))
        return data if byte_range is None else data[byte_range.start : byte_range.end]

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        return await self._request(lambda: self._bucket.put(key, data, if_absent), write=True)

    async def head(self, key: str) -> ObjectMeta:
        return await self._request(lambda: ObjectMeta(key, len(self._bucket.get(key))))

    async def delete(self, keys: Sequence[str]) -> None:
        await self._request(lambda: self._bucket.delete(keys), write=True)

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        return await self._request(lambda: self._bucket.list(prefix, start_after, limit))

    async def close(self) -> None:
        """Nothing is held."""

    async def _request(self, effect: Callable[[], T], *, write: bool = False) -> T:
        await self._process.gate()
        self._process.before_request()
        await self._process.gate()
        self._bucket.requests += 1
        reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._schedule(effect, reply, write)
        try:
            result = await reply
        except LakehouseError:
            await self._process.gate()
            raise
        await self._process.gate()
        return result

    def _schedule(self, effect: Callable[[], T], reply: asyncio.Future[T], write: bool) -> None:
        """Let the effect happen and the reply arrive, each at its time or not at all."""
        faults, rng, loop = self._faults, self._random, asyncio.get_running_loop()
        slow = rng.random() < faults.slow
        there = rng.random() * (faults.slow_seconds if slow else faults.usual_seconds)
        back = rng.random() * faults.usual_seconds if rng.random() < _REPLY_TAKES_TIME else 0.0
        dice = rng.random()
        if write and rng.random() < faults.again:
            loop.call_later(there + rng.random() * faults.late_seconds, _apply, effect, None)
        if dice < faults.before:
            loop.call_later(there, _lose, reply)
        elif dice < faults.before + faults.after:
            loop.call_later(there, _apply, effect, None)
            loop.call_later(there + back, _lose, reply)
        elif write and dice < faults.before + faults.after + faults.late:
            loop.call_later(rng.random() * faults.late_seconds, _apply, effect, None)
            loop.call_later(there, _lose, reply)
        else:
            loop.call_later(there, self._do, effect, reply, back)

    def _do(self, effect: Callable[[], T], reply: asyncio.Future[T], back: float) -> None:
        loop = asyncio.get_running_loop()
        self._process.at_effect()
        arrive: Callable[[], None]
        try:
            arrive = functools.partial(_answer, reply, effect())
        except LakehouseError as error:
            arrive = functools.partial(_fail, reply, error)
        if back:
            loop.call_later(back, arrive)
        else:
            arrive()


def _apply(effect: Callable[[], T], _: None) -> None:
    try:
        effect()
    except LakehouseError:
        return  # a late conditional write that lost: nobody is there to be told


def _lose(reply: asyncio.Future[T]) -> None:
    if not reply.done():
        reply.set_exception(LakehouseError(ErrorKind.TIMEOUT, "no reply"))


def _fail(reply: asyncio.Future[T], error: LakehouseError) -> None:
    if not reply.done():
        reply.set_exception(error)


def _answer(reply: asyncio.Future[T], result: T) -> None:
    if not reply.done():
        reply.set_result(result)
