"""The rescue bucket in the configuration, and what a process starts for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.kit.supervise import Supervisor
from lakehouse.node.config import Config, load_config
from lakehouse.node.rescuing import Rescue
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from support_catalog import build_house

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)


def config_of(folder: Path, text: str = "") -> Config:
    path = folder / "lakehouse.toml"
    path.write_text(text)
    return load_config(path, {})


@pytest.mark.parametrize("name", ["primary", "nowhere"])
def test_the_rescue_bucket_is_another_one_of_the_configuration(tmp_path: Path, name: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        config_of(tmp_path, f'[rescue]\nbucket = "{name}"\n')
    assert (caught.value.kind, caught.value.fields["key"]) == (ErrorKind.INVALID, "rescue.bucket")


def test_without_one_nothing_is_started(tmp_path: Path) -> None:
    buckets = Buckets([BucketSettings("primary", "memory://none")], CLOCK, IDS)
    rescue = Rescue(config_of(tmp_path), buckets, CLOCK, IDS)
    supervisor = Supervisor()
    # Outside of any loop: a task could not even be made.
    assert rescue.copier(None, supervisor) is None  # type: ignore[arg-type]


async def test_with_one_the_copier_runs_and_ends_with_the_node(tmp_path: Path) -> None:
    house = await build_house(extra=("spare",))
    text = '[buckets.spare]\nurl = "memory://spare"\n[rescue]\nbucket = "spare"\n'
    rescue = Rescue(config_of(tmp_path, text), house.buckets, CLOCK, IDS)
    supervisor = Supervisor()
    copier = rescue.copier(await house.open(), supervisor)
    assert copier is not None
    assert copier.info().bucket == "spare"
    await supervisor.stop()
    await house.close()
