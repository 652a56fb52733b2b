"""The HTTP protocol on a connection, with bounds that the server itself does not set.

A request's head is held in memory until it is whole: it has a largest size and a time to arrive in.
What is no HTTP at all is answered by a problem document like everything else.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.problems import PROBLEM_TYPE, document

HEAD_BYTES_MAX: Final = 1024 * 1024
"""Far over what the edge lets pass, which says more of it."""

HEAD_SECONDS: Final = 30.0


class BoundedHttp(HttpToolsProtocol):
    """For ``uvicorn.Config(http=BoundedHttp)``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_bytes = 0
        self._head_begun = False
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the request's head is too large",
                bytes_max=HEAD_BYTES_MAX,
            )
        elif self._head_begun:
            self._arm()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_begun, self._head_bytes = True, True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._disarm()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(
            HTTPStatus.BAD_REQUEST,
            "this is no HTTP/1.1 request that can be read",
            hint="check the request line, the headers and the length of the body",
        )

    def _arm(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        if not self._head_begun:
            # Nobody asked anything: there is nothing to answer.
            self.transport.close()
            return
        self._refuse(
            HTTPStatus.REQUEST_TIMEOUT,
            "the request's head did not arrive in time",
            seconds=HEAD_SECONDS,
        )

    def _refuse(self, status: HTTPStatus, message: str, **fields: int | float | str) -> None:
        self._disarm()
        if self.cycle is not None and not self.cycle.response_complete:
            # An answer is under way: bytes of another one must not be mixed into it.
            self.transport.close()
            return
        error = LakehouseError(ErrorKind.INVALID, message, http_status=status.value, **fields)
        body = orjson.dumps(document(error, ""))
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {PROBLEM_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
