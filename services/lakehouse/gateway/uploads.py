"""A file as the body of a request, raw or in a multipart form, never held whole in memory."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.bodies import check_length, limited, media_type

# A damaged form is answered; the library's warnings about it would only fill the log.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

_PREAMBLE_BYTES_MAX: Final = 64 * 1024
_NAME_CHARS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Upload:
    """A file under way; ``chunks`` are its bytes as they arrive.

    Attributes:
        media_type: bare and in lower case, "" if not stated.
        charset: of the media type, "" if not stated.
        encoding: the Content-Encoding as stated, "" if not.
        file_name: the name a form gave it, "" for a raw body.
    """

    media_type: str
    charset: str
    encoding: str
    file_name: str
    chunks: AsyncIterator[bytes]


def raw_body(request: Request, bytes_max: int) -> AsyncIterator[bytes]:
    """The bytes of a request's body as they arrive. At most ``bytes_max``, else 413."""
    check_length(request, bytes_max)
    return limited(request.stream(), bytes_max)


async def open_upload(request: Request, bytes_max: int) -> Upload:
    """The file a request carries. At most ``bytes_max`` bytes, else 413 while it streams.

    Raises ``invalid`` for a form that is damaged or has no file.
    """
    check_length(request, bytes_max)
    chunks = limited(request.stream(), bytes_max)
    encoding = request.headers.get("content-encoding", "")
    stated = request.headers.get("content-type", "")
    if media_type(request) == "multipart/form-data":
        return await _open_form(stated, encoding, chunks)
    return Upload(media_type(request), _charset(stated), encoding, "", chunks)


@dataclass(slots=True)
class _Part:
    """What the parser has seen of the form so far; ``data`` holds bytes of the file only."""

    headers: dict[str, str] = field(default_factory=dict)
    name: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    data: deque[bytes] = field(default_factory=deque)
    opened: bool = False
    closed: bool = False

    def on_part_begin(self) -> None:
        if self.opened:
            raise _bad_form("the form has more than one part; send one file and nothing else")

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def on_header_end(self) -> None:
        self.headers[self.name.decode("latin-1").lower()] = self.value.decode("latin-1")
        self.name.clear()
        self.value.clear()

    def on_headers_finished(self) -> None:
        self.opened = True

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.data.append(data[start:end])

    def on_part_end(self) -> None:
        self.closed = True


async def _open_form(stated: str, encoding: str, chunks: AsyncIterator[bytes]) -> Upload:
    part = _Part()
    parser = _parser(stated, part)
    read = 0
    async for chunk in chunks:
        read += len(chunk)
        _feed(parser, chunk)
        if part.opened:
            break
        if read > _PREAMBLE_BYTES_MAX:
            raise _bad_form("the form's first part does not begin")
    if not part.opened:
        raise _bad_form("the form has no part")
    _, options = parse_options_header(part.headers.get("content-disposition", ""))
    if b"filename" not in options:
        raise _bad_form(
            "the form's part is no file", hint="curl -F file=@people.csv; options go into the query"
        )
    inner = part.headers.get("content-type", "")
    return Upload(
        media_type=inner.partition(";")[0].strip().lower(),
        charset=_charset(inner),
        encoding=encoding,
        file_name=options[b"filename"].decode("utf-8", "replace")[:_NAME_CHARS_MAX],
        chunks=_part_chunks(parser, part, chunks),
    )


async def _part_chunks(
    parser: MultipartParser, part: _Part, chunks: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    while part.data:
        yield part.data.popleft()
    async for chunk in chunks:
        _feed(parser, chunk)
        while part.data:
            yield part.data.popleft()
    if not part.closed:
        raise _bad_form("the form ends in the middle of its file")


def _parser(stated: str, part: _Part) -> MultipartParser:
    _, options = parse_options_header(stated)
    boundary = options.get(b"boundary")
    if not boundary:
        raise _bad_form("the form's content type has no boundary")
    try:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": part.on_part_begin,
                "on_header_field": part.on_header_field,
                "on_header_value": part.on_header_value,
                "on_header_end": part.on_header_end,
                "on_headers_finished": part.on_headers_finished,
                "on_part_data": part.on_part_data,
                "on_part_end": part.on_part_end,
            },
        )
    except FormParserError:
        raise _bad_form("the form's boundary is not valid") from None


def _feed(parser: MultipartParser, chunk: bytes) -> None:
    try:
        parser.write(chunk)
    except FormParserError:
        raise _bad_form("the form is damaged") from None


def _charset(stated: str) -> str:
    _, options = parse_options_header(stated)
    return options.get(b"charset", b"").decode("latin-1").strip()[:100]


def _bad_form(message: str, **fields: str) -> LakehouseError:
    return LakehouseError(ErrorKind.INVALID, message, **fields)
