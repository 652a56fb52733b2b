"""A bucket restored to an older state under a machine that has seen a newer one."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.node.config import Config, load_config
from lakehouse.node.lifecycle import Node
from lakehouse.node.primary import PositionNote
from lakehouse.node.settings import BucketEntry
from lakehouse.objectstore.identity import recall_position, remember, remember_position

URL = "file:///bucket"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = load_config(None, {})
    listen = replace(config.listen, http="127.0.0.1:0", grpc="127.0.0.1:0")
    state = str(tmp_path / "state")
    roles = ("catalogd", "storaged")
    node = replace(config.node, roles=roles, state_dir=state, drain_seconds=0.1)
    buckets = {"primary": BucketEntry(url=f"file://{tmp_path}/bucket")}
    return replace(config, listen=listen, node=node, buckets=buckets)


async def run_once(config: Config) -> None:
    node = Node(config)
    await node.start()
    await node.stop()


async def refused(config: Config) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await run_once(config)
    return caught.value


async def test_an_older_bucket_is_refused_until_it_is_accepted(
    config: Config, tmp_path: Path
) -> None:
    await run_once(config)
    await asyncio.to_thread(shutil.copytree, tmp_path / "bucket", tmp_path / "backup")
    await run_once(config)
    shutil.rmtree(tmp_path / "bucket")
    (tmp_path / "backup").rename(tmp_path / "bucket")
    error = await refused(config)
    assert error.kind is ErrorKind.CONFLICT
    assert "node.accept_older" in str(error.fields["hint"])
    await run_once(replace(config, node=replace(config.node, accept_older=True)))
    await run_once(config)  # what was accepted is what this machine has seen from then on


async def test_a_bucket_without_its_catalog_is_refused(config: Config, tmp_path: Path) -> None:
    await run_once(config)
    shutil.rmtree(tmp_path / "bucket" / "_catalog")
    assert (await refused(config)).kind is ErrorKind.CONFLICT
    assert not (tmp_path / "bucket" / "_catalog").exists()


async def test_the_note_follows_the_chain(tmp_path: Path) -> None:
    at = [(5, "a")]
    note = PositionNote(tmp_path, URL, "one", lambda: at[0])
    for record, noted in ((5, 5), (36, 5), (37, 37), (40, 37)):
        at[0] = (record, f"sha{record}")
        await note.refresh()
        assert recall_position(tmp_path, URL, "one") == (noted, f"sha{noted}")
    await note.close()
    assert recall_position(tmp_path, URL, "one") == (40, "sha40")


def test_a_note_is_of_one_store_and_outlasts_a_start(tmp_path: Path) -> None:
    assert remember_position(tmp_path, URL, "one", (3, "a"))
    remember(tmp_path, URL, "one")
    assert recall_position(tmp_path, URL, "one") == (3, "a")
    assert recall_position(tmp_path, URL, "two") is None
    remember(tmp_path, URL, "two")
    assert recall_position(tmp_path, URL, "one") is None


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "stores").write_text("in the way")
    assert not remember_position(tmp_path, URL, "one", (3, "a"))
    assert recall_position(tmp_path, URL, "one") is None
