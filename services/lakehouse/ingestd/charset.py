"""Which encoding a text is in: by its mark, by zeros between letters, by what is valid UTF-8.

The stated rule, where no encoding is given: a byte order mark decides. Else zeros at every other
byte are UTF-16. Else the text is UTF-8 if all of it is valid UTF-8; if not, and most characters
beyond ASCII are well-formed UTF-8, it still is, and the lines that are not are dead letters; else
it is cp1252, or latin-1 where it has bytes that cp1252 leaves undefined, and a warning says so.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Final

from lakehouse.ingestd.decoded import Reader
from lakehouse.ingestd.limits import unreadable

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SEQUENCE: Final = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
_ASCII: Final = bytes(range(128))
_UNDEFINED_IN_CP1252: Final = (b"\x81", b"\x8d", b"\x8f", b"\x90", b"\x9d")
_BLOCK: Final = 1 << 20
_NUL_SHARE: Final = 0.3
_BINARY_SHARE: Final = 0.02
_CONTROL: Final = bytes(set(range(32)) - set(b"\t\n\r\x0b\x0c\x1b\x1a"))


@dataclass(frozen=True, slots=True)
class Charset:
    """``settled``: stated or marked; else UTF-8 is an assumption to be checked while reading."""

    encoding: str
    mark_bytes: int = 0
    settled: bool = True


def charset_of(head: bytes, stated: str) -> Charset:
    """From the first bytes. Raises ``invalid`` for an unknown name or a body that is no text."""
    mark = next(((name, len(mark)) for mark, name in _MARKS if head.startswith(mark)), None)
    if stated:
        name = _known(stated)
        if mark is not None and (name == mark[0] or name in ("utf-16", "utf-32")):
            return Charset(*mark)
        return Charset({"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(name, name))
    if mark is not None:
        return Charset(*mark)
    even, odd = head[0:4096:2].count(0), head[1:4096:2].count(0)
    half = max(len(head[:4096]) // 2, 1)
    if max(even, odd) > half * _NUL_SHARE and min(even, odd) < half * _BINARY_SHARE:
        return Charset("utf-16-be" if even > odd else "utf-16-le")
    control = len(head) - len(head.translate(None, _CONTROL))
    if control > max(len(head) * _BINARY_SHARE, 8):
        raise unreadable(
            "the body is binary data of no known kind",
            "send CSV, TSV, JSON, NDJSON, Parquet or Arrow; or state the format",
        )
    return Charset("utf-8", 0, settled=False)


def _known(stated: str) -> str:
    try:
        name = codecs.lookup(stated).name
        "".encode(name)
    except (LookupError, UnicodeError, ValueError):
        raise unreadable(
            "this encoding is not known",
            "use a name such as utf-8, utf-16, latin-1, cp1252",
            encoding=stated[:40],
        ) from None
    if name in ("utf-8-sig", "ascii"):
        return "utf-8"
    return name


def decide_unmarked(source: Reader) -> Charset:
    """Read a whole text that was found not to be UTF-8 throughout, and decide."""
    well_formed = 0
    high = 0
    undefined = False
    while block := source.read(_BLOCK):
        if block.isascii():
            continue
        beyond_ascii = block.translate(None, _ASCII)
        high += len(beyond_ascii)
        well_formed += sum(len(found) for found in _SEQUENCE.findall(block))
        undefined = undefined or any(byte in block for byte in _UNDEFINED_IN_CP1252)
    if well_formed * 2 > high:
        return Charset("utf-8")
    return Charset("latin-1" if undefined else "cp1252")
