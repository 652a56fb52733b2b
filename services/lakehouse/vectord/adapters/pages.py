"""Large pages for what is read at random: the vectors of a graph lie all over hundreds of
megabytes, and to look up where each of them is takes a seventh of a search.

Most systems give large pages to whoever asks for them (Linux, ``madvise``); a library that asks
the allocator for its memory does not ask. So it is asked here, of what a library has newly mapped.
Where it cannot be had nothing happens.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["in_large_pages"]

Ranges = list[tuple[int, int]]

LEAST_BYTES: Final = 32 << 20
"""Less than this is not worth it; and from here on what is allocated is a mapping of its own."""
# Not named by the module mmap: exchange pages that are in use already (Linux 6.1).
_COLLAPSE: Final = 25
_MAPS: Final = "/proc/self/maps"
_PRIVATE: Final = "rw-p"


@contextmanager
def in_large_pages(size_bytes: int) -> Iterator[None]:
    """What is mapped within, if it is about ``size_bytes`` and that is much, is in large pages from
    then on; what other threads map meanwhile perhaps too, which makes no difference to them."""
    if size_bytes < LEAST_BYTES or sys.platform != "linux":
        yield
        return
    before = _mapped()
    yield
    for start, end in _without(_mapped(), before):
        if end - start >= LEAST_BYTES:
            _advise(start, end - start)


def _advise(start: int, length: int) -> None:
    """Refusals do not matter: the memory is as good as before."""
    call = ctypes.CDLL(None).madvise
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if call(start, length, mmap.MADV_HUGEPAGE) == 0:
        call(start, length, _COLLAPSE)


def _mapped() -> Ranges:
    """The memory of this process that is its own and of no file, rising."""
    found = []
    try:
        with open(_MAPS, encoding="ascii", errors="replace") as lines:
            for line in lines:
                place, rights, *_, inode = line.split(maxsplit=5)[:5]
                if rights == _PRIVATE and inode == "0":
                    start, _, end = place.partition("-")
                    found.append((int(start, 16), int(end, 16)))
    except OSError:
        return []
    return found


def _without(ranges: Ranges, others: Ranges) -> Iterator[tuple[int, int]]:
    """What of ``ranges`` is in none of ``others``; both rise."""
    for start, end in ranges:
        at = start
        for low, high in others:
            if high > at and low < end:
                if low > at:
                    yield at, low
                at = high
        if at < end:
            yield at, end
