"""The sidecar and the model as processes of a node: started, killed, left behind by nobody."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.node import embedding
from lakehouse.node.embedding import EmbeddingProcesses
from lakehouse.vectord.adapters.sidecar import SidecarEmbedder
from lakehouse.vectord.ports import Lane
from lakehouse.vectord.settings import EmbeddingSettings
from support_ollama import Ollama, served, vector_of


def children_of(pid: int) -> dict[str, int]:
    """Module -> process id, of the embedding processes below a process."""
    found = {}
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            parent = int(place.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            command = place.joinpath("cmdline").read_bytes().decode().split("\0")
        except (OSError, ValueError):
            continue
        if parent == pid and "-m" in command:
            found[command[command.index("-m") + 1]] = int(place.name)
    return found


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


async def all_gone(pids: list[int]) -> None:
    async with asyncio.timeout(20):
        while not all(map(is_gone, pids)):
            await asyncio.sleep(0.05)


async def test_either_process_may_die_and_both_end_with_the_node() -> None:
    settings = EmbeddingSettings(threads=1)
    processes = EmbeddingProcesses(settings)
    embedder = SidecarEmbedder(settings, processes.url)
    assert children_of(os.getpid()) == {}, "nothing is started before the first text"
    try:
        # Several first texts start one pair.
        first, *_ = await asyncio.gather(
            *(embedder.embed("all-minilm", ["a cat"], Lane.QUERY) for _ in range(4))
        )
        seen = children_of(os.getpid())
        assert set(seen) == {embedding.EMBEDDER, embedding.SIDECAR}
        for victim in (embedding.SIDECAR, embedding.EMBEDDER):
            os.kill(children_of(os.getpid())[victim], signal.SIGKILL)
            again = await embedder.embed("all-minilm", ["a cat"], Lane.QUERY)
            np.testing.assert_array_equal(again.vectors, first.vectors)
            assert again.model == first.model
        assert first.vectors.shape == (1, 384)
    finally:
        left = list(children_of(os.getpid()).values())
        await embedder.close()
        await processes.close()
        await processes.close()
    assert len(left) == 2
    assert all(map(is_gone, left))
    with pytest.raises(LakehouseError) as stopped:
        await processes.url()
    assert stopped.value.kind is ErrorKind.UNAVAILABLE


NODE = """
import asyncio, sys
from lakehouse.node.embedding import EmbeddingProcesses
from lakehouse.vectord.settings import EmbeddingSettings

async def main():
    processes = EmbeddingProcesses(EmbeddingSettings(threads=1))
    print(await processes.url(), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_killed_node_leaves_no_process() -> None:
    with subprocess.Popen([sys.executable, "-c", NODE], stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        assert (await asyncio.to_thread(node.stdout.readline)).startswith("http://127.0.0.1:")
        left = children_of(node.pid)
        assert set(left) == {embedding.EMBEDDER, embedding.SIDECAR}
        node.kill()
    await all_gone(list(left.values()))


async def test_with_an_ollama_of_the_configuration_no_model_is_started() -> None:
    async with served(Ollama().app()) as url:
        settings = EmbeddingSettings(ollama_url=url, timeout_seconds=0.3, idle_seconds=0.3)
        processes = EmbeddingProcesses(settings)
        embedder = SidecarEmbedder(EmbeddingSettings(), processes.url)
        try:
            found = await embedder.embed("small", ["a"], Lane.QUERY)
            np.testing.assert_array_equal(found.vectors[0], np.array(vector_of("a"), "f4"))
            started = children_of(os.getpid())
            assert set(started) == {embedding.SIDECAR}
            # Nobody asks any more.
            await all_gone(list(started.values()))
            await embedder.embed("small", ["a"], Lane.QUERY)
            assert set(children_of(os.getpid())) == {embedding.SIDECAR}
        finally:
            await embedder.close()
            await processes.close()


async def test_a_process_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "EMBEDDER", "lakehouse_embedder_of_nobody")
    processes = EmbeddingProcesses(EmbeddingSettings())
    with pytest.raises(LakehouseError) as caught:
        await processes.url()
    await processes.close()
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "No module named" in str(caught.value.fields["cause"])
    assert "ollama_url" in str(caught.value.fields["hint"])


async def test_a_sidecar_of_the_configuration_is_asked_and_nothing_started() -> None:
    processes = EmbeddingProcesses(EmbeddingSettings(sidecar_url="http://127.0.0.1:1"))
    assert await processes.url() == "http://127.0.0.1:1"
    assert children_of(os.getpid()) == {}
    await processes.close()
