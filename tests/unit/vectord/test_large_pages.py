"""Large pages are asked for, of the memory that is new, and nothing comes of it where there are
none."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest

from lakehouse.vectord.adapters import pages

SIZE = 2 * pages.LEAST_BYTES
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has them on request")


def test_what_is_new_is_all_that_was_not_there() -> None:
    before = [(10, 20), (30, 40), (60, 70)]
    after = [(5, 25), (30, 40), (50, 80), (90, 95)]
    assert list(pages._without(after, before)) == [(5, 10), (20, 25), (50, 60), (70, 80), (90, 95)]
    assert list(pages._without(after, after)) == []
    assert list(pages._without([], before)) == []


@linux
def test_new_memory_is_asked_for_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(pages, "_advise", lambda start, length: asked.append((start, length)))
    there = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with pages.in_large_pages(SIZE):
        pass
    assert asked == []
    with pages.in_large_pages(pages.LEAST_BYTES - 1):
        small = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    assert asked == []
    with pages.in_large_pages(SIZE):
        fresh = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    assert sum(length for _, length in asked) >= SIZE
    for held in (there, small, fresh):
        held.close()


@linux
def test_what_is_in_use_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with pages.in_large_pages(SIZE):
        held = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        held[:] = bytes(range(256)) * (SIZE // 256)
    assert held[:] == bytes(range(256)) * (SIZE // 256)
    held.close()
    monkeypatch.setattr(pages, "_MAPS", str(Path("/nowhere/maps")))
    with pages.in_large_pages(SIZE):
        pass


@linux
def test_an_error_within_is_told_as_it_is() -> None:
    with pytest.raises(MemoryError), pages.in_large_pages(SIZE):
        raise MemoryError
