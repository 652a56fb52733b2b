"""The only door to randomness and identifiers."""

from __future__ import annotations

import os
import random
import threading
from typing import Final, Protocol

from lakehouse.kit.clock import Clock

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_DIGITS: Final = {letter: digit for digit, letter in enumerate(_CROCKFORD)}
_PAIRS: Final = tuple(high + low for high in _CROCKFORD for low in _CROCKFORD)
_SHIFTS: Final = tuple(range(120, -1, -10))
_RANDOM_BITS: Final = 80
_ULID_LENGTH: Final = 26
_TIME_LENGTH: Final = 10


class Ids(Protocol):
    """A source of identifiers; seeded in tests and simulations."""

    def ulid(self) -> str:
        """26 characters, sorts by time of making, strictly rising within one source."""
        ...

    def token(self, size_bytes: int) -> str:
        """``size_bytes`` of unguessable randomness as lower-case hex."""
        ...

    def uniform(self) -> float:
        """A float in [0, 1), for jitter only."""
        ...


def encode_ulid(millis: int, entropy: int) -> str:
    """The 26 characters of a ULID from 48 bits of time and 80 bits of entropy (ulid/spec)."""
    value = (millis << _RANDOM_BITS) | entropy
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in _SHIFTS])


def ulid_millis(ulid: str) -> int:
    """The milliseconds since the epoch in a ULID. Raises ValueError for what is none."""
    if len(ulid) != _ULID_LENGTH or ulid[0] > "7":
        raise ValueError("a ULID has 26 characters, and 128 bits")
    if not _DIGITS.keys() >= set(ulid):
        raise ValueError("a ULID is made of digits and upper-case letters without I, L, O, U")
    millis = 0
    for letter in ulid[:_TIME_LENGTH]:
        millis = millis << 5 | _DIGITS[letter]
    return millis


class SystemIds:
    """Identifiers from the operating system's randomness."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last = (0, 0)

    def ulid(self) -> str:
        with self._lock:
            millis = self._clock.now_us() // 1_000
            last_millis, last_entropy = self._last
            if millis <= last_millis:
                self._last = (last_millis, last_entropy + 1)
            else:
                # The top bit stays free: counting up within one millisecond never overflows.
                self._last = (millis, int.from_bytes(os.urandom(10)) >> 1)
            return encode_ulid(*self._last)

    def token(self, size_bytes: int) -> str:
        return os.urandom(size_bytes).hex()

    def uniform(self) -> float:
        return random.random()
