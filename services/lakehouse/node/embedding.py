"""The processes that turn texts into vectors, started with the first text."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections import deque
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.vectord.settings import EmbeddingSettings

log = logging.getLogger(__name__)

EMBEDDER: Final = "lakehouse_embedder"
SIDECAR: Final = "lakehouse_sidecar"
_START_SECONDS: Final = 60.0
# Longer than they take to end by themselves.
_END_SECONDS: Final = 8.0
_LINES_KEPT: Final = 5
_VARIABLES: Final = ("HOME", "LANG", "PATH", "TZ", "OLLAMA_API_KEY", "SSL_CERT_FILE")


class EmbeddingProcesses:
    """The sidecar of the configuration, or one of this node's own over its own small model.

    They listen on loopback at free ports, and end with the node however it ends: each watches its
    standard input, which the kernel closes with the node. Belongs to one event loop.
    """

    def __init__(self, settings: EmbeddingSettings) -> None:
        self._settings = settings
        self._starting = asyncio.Lock()
        self._embedder: _Child | None = None
        self._sidecar: _Child | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def url(self) -> str:
        """Where the sidecar answers; starts it where it is not there. Raises ``unavailable``."""
        if self._settings.sidecar_url:
            return self._settings.sidecar_url
        sidecar = self._running()
        if sidecar is None:
            async with self._starting:
                sidecar = self._running() or await self._start()
        self._put_off_the_end()
        return sidecar.url

    async def close(self) -> None:
        """End what was started here; idempotent."""
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
        async with self._starting:
            await self._end()
        await asyncio.gather(*self._ending)

    def _running(self) -> _Child | None:
        sidecar, embedder = self._sidecar, self._embedder
        if sidecar is None or not sidecar.answers:
            return None
        if not self._settings.ollama_url and (embedder is None or not embedder.answers):
            return None
        return sidecar

    async def _start(self) -> _Child:
        if self._closed:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "the node is stopping")
        settings = self._settings
        ollama_url = settings.ollama_url
        if not ollama_url:
            if self._embedder is None or not self._embedder.alive:
                self._embedder = await _Child.start(EMBEDDER, "--threads", str(settings.threads))
            ollama_url = self._embedder.url
        # One that is still there asks an embedder that has gone.
        if self._sidecar is not None:
            await self._sidecar.end()
        arguments = ["--ollama-url", ollama_url, "--queue-max", str(settings.queue_max)]
        if settings.generate_url:
            arguments += ["--generate-url", settings.generate_url]
        sidecar = self._sidecar = await _Child.start(SIDECAR, *arguments)
        # Each loads what it needs, at the same time.
        for child in (self._embedder, sidecar):
            if child is not None:
                await child.ready()
        return sidecar

    async def _end(self) -> None:
        children = [child for child in (self._sidecar, self._embedder) if child is not None]
        self._sidecar = self._embedder = None
        await asyncio.gather(*(child.end() for child in children))

    def _put_off_the_end(self) -> None:
        """After ``idle_seconds`` without a call they end, but no request that runs is cut off."""
        if self._idle is not None:
            self._idle.cancel()
        if self._settings.idle_seconds > 0 and not self._closed:
            seconds = max(self._settings.idle_seconds, self._settings.timeout_seconds)
            self._idle = asyncio.get_running_loop().call_later(seconds, self._go_idle)

    def _go_idle(self) -> None:
        ending = asyncio.ensure_future(self._end_idle(self._idle))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end_idle(self, idle: asyncio.TimerHandle | None) -> None:
        async with self._starting:
            if self._idle is idle:
                await self._end()


class _Child:
    """A process of the package that was installed with this one."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.url = ""
        self._ready = False
        self._name = name
        self._process = process
        self._said: deque[str] = deque(maxlen=_LINES_KEPT)
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    async def start(cls, module: str, *arguments: str) -> _Child:
        """Return once its port is known. Raises ``unavailable`` with what it said last."""
        environment = {key: os.environ[key] for key in _VARIABLES if key in os.environ}
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-s", "-m", module, *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                # Ctrl-C at a terminal is for the node, which ends them when it is done.
                start_new_session=True,
            )
        except OSError as error:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE, "a process for embeddings did not start", cause=str(error)
            ) from error
        child = cls(module, process)
        try:
            child.url = f"http://127.0.0.1:{(await child._told())['port']}"
        except BaseException:
            await child.end(at_once=True)
            raise
        return child

    async def ready(self) -> None:
        """Return once it answers; idempotent. Raises ``unavailable``."""
        if self._ready:
            return
        await self._told()
        self._ready = True
        log.info("a process for embeddings answers", extra={"child": self._name, "url": self.url})

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    @property
    def answers(self) -> bool:
        return self._ready and self.alive

    async def end(self, *, at_once: bool = False) -> None:
        """Idempotent. It drains what runs, unless it must end ``at_once``."""
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(0 if at_once else _END_SECONDS):
                await process.wait()
        except TimeoutError:
            if process.returncode is None:
                process.kill()
            await process.wait()
        await self._listening

    async def _told(self) -> dict[str, object]:
        """The next of its two lines: where it listens, and that all is loaded."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_START_SECONDS):
                line = await self._process.stdout.readline()
        except TimeoutError as error:
            raise self._failed("it took too long") from error
        if not line:
            await self._listening
            raise self._failed("\n".join(self._said) or "it ended")
        told: dict[str, object] = json.loads(line)
        return told

    def _failed(self, cause: str) -> LakehouseError:
        return LakehouseError(
            ErrorKind.UNAVAILABLE,
            "a process for embeddings did not start",
            process=self._name,
            cause=cause,
            hint="set embedding.ollama_url or embedding.sidecar_url to a server that runs",
        )

    async def _listen(self) -> None:
        """What it complains of is told in the node's own log."""
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            if line := raw.decode(errors="replace").rstrip():
                self._said.append(line)
                log.warning(line, extra={"child": self._name})
