"""The bytes of a body after decompression, and as UTF-8 text; with budgets, streaming."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa

from lakehouse.ingestd.limits import beyond, unreadable
from lakehouse.ingestd.settings import IngestSettings

_FOREIGN: Final = {
    b"PK\x03\x04": ("a zip archive (or an Excel workbook)", "unpack it, or export it as CSV"),
    b"PK\x05\x06": ("an empty zip archive", "unpack it, or export it as CSV"),
    b"BZh": ("bzip2-compressed", "compress it with gzip or zstd instead"),
    b"\xfd7zXZ\x00": ("xz-compressed", "compress it with gzip or zstd instead"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it first"),
    b"\x04\x22\x4d\x18": ("lz4-compressed", "compress it with gzip or zstd instead"),
    b"\xd0\xcf\x11\xe0": ("an old Excel or Word file", "export it as CSV"),
    b"%PDF": ("a PDF", "export the table as CSV"),
    b"\x89PNG": ("a PNG image", "send a table"),
    b"\xff\xd8\xff": ("a JPEG image", "send a table"),
    b"GIF8": ("a GIF image", "send a table"),
    b"SQLite format 3\x00": ("a SQLite database", "export its tables as CSV"),
    b"\x7fELF": ("a program", "send a table"),
    b"Obj\x01": ("an Avro file", "convert it to Parquet"),
    b"ORC": ("an ORC file", "convert it to Parquet"),
}
_CHUNK_BYTES: Final = 1 << 20
_TEXTUAL: Final = frozenset(b"\t\n\r") | frozenset(range(0x20, 0x7F)) | frozenset(range(0x80, 256))


Body = Path | bytes
"""A body at rest: spooled, or in memory."""


class Reader(Protocol):
    """``read(n)``: up to n bytes, fewer only near the end, ``b""`` at the end."""

    def read(self, size: int) -> bytes: ...


def compression_of(head: bytes, stated: str) -> str:
    """``gzip``, ``zstd`` or ``none``; raises ``invalid`` for what cannot be read at all."""
    if stated not in ("", "none", "gzip", "zstd"):
        raise unreadable(
            "this compression is not known", "use gzip, zstd or none", compression=stated[:40]
        )
    if stated:
        return stated
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    refuse_foreign(head)
    return "none"


def refuse_foreign(head: bytes) -> None:
    """Raise ``invalid`` for well-known formats that hold no table we read.

    Only where the head has bytes that no text has: a CSV may begin with ``ORC`` or ``BZh``.
    """
    binary = any(byte not in _TEXTUAL for byte in head[:512])
    for magic, (what, hint) in _FOREIGN.items():
        if head.startswith(magic) and (binary or magic.startswith((b"PK", b"%PDF"))):
            raise unreadable(f"the body is {what}", hint)


class Decoded:
    """A body after decompression. Not safe for use by several threads at once."""

    def __init__(self, body: Body, compression: str, settings: IngestSettings) -> None:
        self._file = pa.BufferReader(body) if isinstance(body, bytes) else pa.OSFile(str(body))
        self._compression = compression
        self._stream = (
            self._file
            if compression == "none"
            else pa.CompressedInputStream(self._file, compression)
        )
        self._settings = settings
        self.decoded_bytes = 0

    def read(self, size: int) -> bytes:
        """Raises ``invalid`` for a truncated or damaged stream and beyond the budgets."""
        try:
            data: bytes = self._stream.read(size)
        except (OSError, pa.ArrowException) as error:
            cut = "runcated" in str(error)
            raise unreadable(
                f"the {self._compression} data is {'truncated' if cut else 'damaged'}",
                "send the file again, whole",
                decoded_bytes=self.decoded_bytes,
            ) from error
        self.decoded_bytes += len(data)
        self._check()
        return data

    def _check(self) -> None:
        settings = self._settings
        if self.decoded_bytes > settings.decoded_bytes_max:
            raise beyond(
                "ingest.decoded_bytes_max",
                settings.decoded_bytes_max,
                "the body decompresses to more than an ingest may be",
                "split the file, or raise the limit",
            )
        if self._compression == "none" or self.decoded_bytes <= settings.ratio_free_bytes:
            return
        if self.decoded_bytes > settings.ratio_max * max(self._file.tell(), 1):
            raise beyond(
                "ingest.ratio_max",
                settings.ratio_max,
                "the body decompresses to implausibly much",
                "send it uncompressed, or raise the limit",
                decoded_bytes=self.decoded_bytes,
            )

    def close(self) -> None:
        self._stream.close()
        self._file.close()


class Utf8Text:
    """Text of any encoding as UTF-8 bytes, without its byte order mark.

    UTF-8 itself passes unchecked: its blocks are checked where they are parsed, so that a bad
    line costs that line alone.
    """

    def __init__(self, source: Reader, encoding: str, mark_bytes: int) -> None:
        self._source = source
        self._encoding = encoding
        self._skip = mark_bytes
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
        self._ended = False
        self._rest = b""

    def read(self, size: int) -> bytes:
        if self._skip:
            read_full(self._source, self._skip)
            self._skip = 0
        if self._decoder is None:
            return self._source.read(size)
        # Transcoded text may be longer or shorter than what was read for it.
        while not self._rest and not self._ended:
            self._rest = self._decode(self._source.read(size), self._decoder)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def _decode(self, data: bytes, decoder: codecs.IncrementalDecoder) -> bytes:
        self._ended = not data
        try:
            text = decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise unreadable(
                f"the text is not {self._encoding}",
                "state the encoding the file was written in",
                encoding=self._encoding,
                reason=error.reason,
            ) from error
        return text.encode("utf-8", "surrogatepass")


def read_full(source: Reader, size: int) -> bytes:
    """Up to ``size`` bytes, fewer only at the end."""
    parts: list[bytes] = []
    while size > 0 and (part := source.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_all(source: Reader) -> bytes:
    """Everything there is; it is the source that has the bound."""
    parts: list[bytes] = []
    while part := source.read(_CHUNK_BYTES):
        parts.append(part)
    return b"".join(parts)
