"""Where the parts of a log lie below its prefix."""

from __future__ import annotations

from dataclasses import dataclass

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.layout import Layout, number_of, reversed_number


@dataclass(frozen=True, slots=True)
class Range:
    """A merged object: the batches ``first`` to ``last``, both included."""

    first: int
    last: int
    key: str
    sha256: str
    size_bytes: int = 0

    @property
    def batches(self) -> int:
        return self.last - self.first + 1

    def covers(self, other: Range) -> bool:
        """True if everything in ``other`` is in this one, and more."""
        return (
            self.first <= other.first and other.last <= self.last and self.batches > other.batches
        )


@dataclass(frozen=True, slots=True)
class LogLayout(Layout):
    """Beside slots and floor: merged objects, and markers of what retention gave up."""

    suffix: str = ".jsonl"

    @property
    def merged(self) -> str:
        return f"{self.prefix}/m/"

    @property
    def retained(self) -> str:
        return f"{self.prefix}/retained/"

    def merged_from(self, first: int) -> str:
        """Sorts before the keys of all merged objects that begin at ``first`` or later."""
        return f"{self.merged}{first:016d}"

    def merged_key(self, first: int, last: int, sha256: str) -> str:
        return f"{self.merged}{first:016d}-{last:016d}-{sha256}{self.suffix}"

    def range_of(self, key: str, size_bytes: int = 0) -> Range:
        """What a key made by ``merged_key`` says; raises ``corrupt``."""
        name = key.removeprefix(self.merged).removesuffix(self.suffix)
        try:
            first, last, sha256 = name.split("-")
            return Range(int(first), int(last), key, sha256, size_bytes)
        except ValueError:
            raise LakehouseError(
                ErrorKind.CORRUPT, "an object among the merged is not one of the log's", key=key
            ) from None

    def retained_mark(self, n: int) -> str:
        return f"{self.retained}{reversed_number(n)}"

    def retained_number(self, key: str) -> int:
        """The ``n`` of a key made by ``retained_mark``."""
        return number_of(key)
