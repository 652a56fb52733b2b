"""Where the parts of a ledger lie below its prefix, and how slots are named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError

SLOT_MAX: Final = 9_999_999_999_999_999
_DIGITS: Final = 16


def reversed_number(number: int) -> str:
    """16 digits that sort the other way round, so that a LIST of one key finds the newest."""
    if not 0 <= number <= SLOT_MAX:
        raise LakehouseError(ErrorKind.INVALID, "slot number is out of range", number=number)
    return f"{SLOT_MAX - number:0{_DIGITS}d}"


def number_of(key: str, suffix: str = "") -> int:
    """The number in the last component of ``key``; raises ``corrupt`` for a foreign name."""
    name = key.rsplit("/", 1)[-1]
    digits = name.removesuffix(suffix) if suffix else name
    if len(digits) != _DIGITS or not (digits.isascii() and digits.isdigit()):
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "an object in the ledger's folder is not part of a ledger",
            key=key,
            hint="move the object away; nothing but the ledger may write here",
        )
    return SLOT_MAX - int(digits)


@dataclass(frozen=True, slots=True)
class Layout:
    """Keys of one ledger below ``prefix`` (no trailing slash); ``suffix`` ends the slots' names."""

    prefix: str = "_catalog"
    suffix: str = ".json"

    @property
    def slots(self) -> str:
        return f"{self.prefix}/c/"

    @property
    def floors(self) -> str:
        return f"{self.prefix}/floor/"

    @property
    def checkpoints(self) -> str:
        return f"{self.prefix}/k/"

    @property
    def bodies(self) -> str:
        return f"{self.prefix}/b/"

    def slot(self, n: int) -> str:
        return f"{self.slots}{reversed_number(n)}{self.suffix}"

    def slot_number(self, key: str) -> int:
        """The ``n`` of a key made by ``slot``; raises ``corrupt`` for a foreign name."""
        return number_of(key, self.suffix)

    def floor(self, n: int) -> str:
        return f"{self.floors}{reversed_number(n)}"

    def part(self, n: int, name: str, sha256: str) -> str:
        return f"{self.checkpoints}{n:0{_DIGITS}d}/{name}-{sha256}.parquet"

    def part_number(self, key: str) -> int:
        """The ``n`` of a key made by ``part``."""
        return int(key.removeprefix(self.checkpoints).split("/", 1)[0])

    def body(self, n: int, sha256: str) -> str:
        return f"{self.bodies}{n:0{_DIGITS}d}-{sha256}.json.zst"

    def body_number(self, key: str) -> int:
        """The ``n`` of a key made by ``body``."""
        return int(key.removeprefix(self.bodies).split("-", 1)[0])

    @property
    def packs(self) -> str:
        return f"{self.prefix}/p/"

    def pack(self, first: int, last: int, sha256: str) -> str:
        return f"{self.packs}{first:0{_DIGITS}d}-{last:0{_DIGITS}d}-{sha256}.parquet"

    def pack_range(self, key: str) -> tuple[int, int, str]:
        """First and last record and checksum of a key made by ``pack``; raises ``corrupt``."""
        name = key.removeprefix(self.packs).removesuffix(".parquet")
        try:
            first, last, sha256 = name.split("-")
            return int(first), int(last), sha256
        except ValueError:
            raise LakehouseError(
                ErrorKind.CORRUPT, "an object among the packs is not one of the ledger's", key=key
            ) from None
