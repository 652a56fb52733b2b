"""The log of trials: what waits for it, and runs whose process ended before them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from lakehouse.contracts.trials import TrialsRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_datetime
from lakehouse.kit.ids import encode_ulid
from lakehouse.model.retrieval import Trial
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.identity import init_store
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.records.place import local_folder
from lakehouse.vectord.settings import RetrievalSettings
from lakehouse.vectord.tuning.events import Began, Run, RunEnd
from lakehouse.vectord.tuning.holding import Hold, is_held, left
from lakehouse.vectord.tuning.journal import TrialLog
from lakehouse.vectord.tuning.runs import Outcome, Runs, Subject
from support_vectors import ADA, Shelf
from unit.vectord.records_support import Catalog

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUBJECT = Subject("points", 1, "hnsw", 4, 60.0)


@pytest.fixture
def parts(store: Shelf, tmp_path: Path) -> VectorParts:
    made = store.parts(HashingEmbedder())
    return replace(made, retrievals=RetrievalSettings(spool_dir=str(tmp_path / "spool")))


@pytest_asyncio.fixture(loop_scope="module")
async def log(parts: VectorParts) -> AsyncIterator[TrialLog]:
    made = TrialLog(parts)
    yield made
    await made.close()


def trial(parts: VectorParts, run: str, **fields: object) -> Trial:
    at = to_datetime(parts.clock.now_us())
    made = Trial(parts.ids.ulid(), run, at, "ada", "points", 1, "hnsw", 10, 5, 100)
    return replace(made, m=8, ef_construction=40, ef=20, recall=0.5, **fields)  # type: ignore[arg-type]


async def test_what_the_log_does_not_take_waits_here_and_gets_there(
    parts: VectorParts, log: TrialLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = parts.ids.ulid()
    one = trial(parts, run)
    await log.open()
    assert log._log is not None

    async def away(events: object) -> None:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "away")

    with monkeypatch.context() as patched:
        patched.setattr(log._log, "append", away)
        await log.keep([one])
    # At once, whether it is there yet or not; and once only when it is.
    assert await log.trial(one.id) == one
    await log._log.flush()
    page = await log.page(TrialsRequest(run=run), 1)
    assert page.trials == (one,)
    other = TrialLog(parts)
    assert await other.trial(one.id) == one
    await other.close()


async def test_what_waited_when_the_process_died_is_taken_over_at_the_next_start(
    parts: VectorParts, log: TrialLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = parts.ids.ulid()
    one = trial(parts, run)
    await log.open()
    assert log._log is not None
    log._log.offer([])
    log._log._outbox._send = _never  # type: ignore[method-assign]
    monkeypatch.setattr(log._log, "append", _never)
    await log.keep([one])
    while log._log.status().spooled < 1:
        await parts.clock.sleep(0.005)
    log._log.abandon()
    log._log = None
    after = TrialLog(parts)
    runs = Runs(parts, after)
    await runs.recover()
    assert (await after.page(TrialsRequest(run=run), 1)).trials == (one,)
    await after.close()


async def test_what_another_store_left_here_is_left_to_it(
    parts: VectorParts, log: TrialLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    active = await Runs(parts, log).begin(ADA, SUBJECT)
    run = active.began.id
    assert log._log is not None
    log._log._outbox._send = _never  # type: ignore[method-assign]
    with monkeypatch.context() as patched:
        patched.setattr(log._log, "append", _never)
        await log.keep([trial(parts, run)])
    while log._log.status().spooled < 1:
        await parts.clock.sleep(0.005)
    log._log.abandon()
    log._log = None
    _die(active.hold)

    one = BucketSettings("primary", f"memory://{parts.ids.ulid()}")
    buckets = Buckets([one], parts.clock, parts.ids)
    store_id = (await init_store(buckets.raw("primary"), parts.clock, parts.ids)).store_id
    other = replace(parts, buckets=buckets, catalog=Catalog(store_id))  # type: ignore[arg-type]
    there = TrialLog(other)
    await Runs(other, there).recover()
    assert (await there.page(TrialsRequest(), 1)).trials == ()
    await there.close()
    await buckets.close()

    here = TrialLog(parts)
    await Runs(parts, here).recover()
    found = await Runs(parts, here).report(run, 1)
    assert (found.state, len(found.trials)) == ("failed", 1)
    await here.close()


async def test_without_a_folder_nothing_is_left_anywhere(
    parts: VectorParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a working folder happens to have is none of it.
    monkeypatch.chdir(tmp_path)
    Path("trials").mkdir()
    for stray in (Path("stray.running"), Path("trials", "stray.jsonl")):
        stray.touch()
    bare = replace(parts, retrievals=RetrievalSettings(spool_dir=""))
    log = TrialLog(bare)
    runs = Runs(bare, log)
    await runs.recover()
    assert log._log is None
    active = await runs.begin(ADA, SUBJECT)
    assert (await Runs(bare, log).report(active.began.id, 1)).state == "running"
    assert (log.spool, left(""), is_held("", active.began.id)) == ("", [], None)
    assert len(list(tmp_path.rglob("*"))) == 3
    await runs.finish(active, Outcome(ended="all"))
    await log.close()


async def _never(*_: object) -> None:
    raise LakehouseError(ErrorKind.UNAVAILABLE, "away")


async def test_a_run_whose_process_is_gone_is_noted_as_failed(
    parts: VectorParts, log: TrialLog
) -> None:
    runs = Runs(parts, log)
    active = await runs.begin(ADA, SUBJECT)
    run = active.began.id
    one = trial(parts, run)
    await runs.add(active, [one])
    assert (await runs.report(run, 1)).state == "running"
    # Seen from another process, while it runs.
    second = Runs(parts, log)
    assert (await second.report(run, 1)).state == "running"
    await second.recover()
    assert (await second.report(run, 1)).state == "running"
    _die(active.hold)
    running = local_folder(parts, "running")
    assert left(running) == [run]
    third = Runs(parts, log)
    await third.recover()
    assert left(running) == []
    found = await third.report(run, 7)
    assert (found.state, found.trials, found.version) == ("failed", (one,), 7)
    assert "process ended" in found.error
    # Noted, not worked out anew: elsewhere it is known too.
    elsewhere = replace(
        parts, retrievals=RetrievalSettings(spool_dir=f"{parts.retrievals.spool_dir}/else")
    )
    assert (await Runs(elsewhere, log).report(run, 7)).state == "failed"


async def test_elsewhere_a_run_is_believed_to_go_on_until_its_time_is_over(
    parts: VectorParts, log: TrialLog
) -> None:
    now = to_datetime(parts.clock.now_us())
    states = []
    for until in (now + timedelta(minutes=1), now - timedelta(seconds=1)):
        run = parts.ids.ulid()
        await log.append([Began(run, now, until, "points", 1, "hnsw", "ada", 4, "elsewhere")])
        states.append((await Runs(parts, log).report(run, 1)).state)
    assert states == ["running", "failed"]


async def test_an_index_has_one_run_and_is_free_after_it(parts: VectorParts, log: TrialLog) -> None:
    runs = Runs(parts, log)
    active = await runs.begin(ADA, SUBJECT)
    with pytest.raises(LakehouseError) as refused:
        await runs.begin(ADA, replace(SUBJECT, index="POINTS"))
    assert refused.value.kind is ErrorKind.CONFLICT
    other = await runs.begin(ADA, replace(SUBJECT, index="others"))
    await runs.finish(other, Outcome(ended="all"))
    one = trial(parts, active.began.id)
    await runs.add(active, [one])
    await runs.finish(active, Outcome(one.id, True, "enough"))
    assert not is_held(local_folder(parts, "running"), active.began.id)
    found = await Runs(parts, log).report(active.began.id, 1)
    assert (found.state, found.ended, found.reached) == ("done", "enough", True)
    assert found.chosen == replace(one, chosen=True)
    assert (await log.trial(one.id)) == found.chosen
    await runs.finish(await runs.begin(ADA, SUBJECT), Outcome(error="of something"))


async def test_who_gives_up_while_a_run_begins_leaves_the_index_free(
    parts: VectorParts, log: TrialLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking, go_on, taken = asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    def slowly(folder: str, run: str) -> Hold:
        loop.call_soon_threadsafe(taking.set)
        assert go_on.wait(30)
        taken.append(run)
        return Hold(folder, run)

    runs = Runs(parts, log)
    with monkeypatch.context() as patched:
        patched.setattr("lakehouse.vectord.tuning.runs.Hold", slowly)
        begun = asyncio.create_task(runs.begin(ADA, SUBJECT))
        await taking.wait()
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun
        runs.check_free(SUBJECT.index)
        go_on.set()
        # What its thread took after that is let go as well.
        async with asyncio.timeout(10):
            while not taken or is_held(local_folder(parts, "running"), taken[0]) is not None:
                await asyncio.sleep(0.005)
    await runs.finish(await runs.begin(ADA, SUBJECT), Outcome(ended="all"))


async def test_damaged_and_strange_events_hide_no_other(parts: VectorParts, log: TrialLog) -> None:
    run = parts.ids.ulid()
    one, two = trial(parts, run), trial(parts, run)
    await log.append([one])
    assert log._log is not None
    await log._log.append(
        [
            {"event": "trial", "id": parts.ids.ulid(), "run": run},
            {"event": "of a later release", "run": run},
            {"event": "ended", "run": run, "state": 7},
        ]
    )
    await log.append([two])
    await log.append([RunEnd(parts.ids.ulid(), two.at, run, "done", two.id, True, 1.0, "all")])
    page = await log.page(TrialsRequest(run=run), 1)
    assert [one.id for one in page.trials] == [two.id, one.id]
    assert [one.chosen for one in page.trials] == [True, False]


@pytest.mark.parametrize("millis", [0, 1, 253_402_300_799_000, 253_402_300_799_999, 2**48 - 1])
async def test_ids_of_no_time_that_there_was_are_of_nothing(log: TrialLog, millis: int) -> None:
    known = encode_ulid(millis, 0)
    assert await log.trial(known) is None
    assert await log.run(known) == Run()


def _die(hold: Hold) -> None:
    """As the system does it for a process that is killed."""
    os.close(hold._descriptor)
    hold._descriptor = -1
