"""Frames between the service and its worker processes: kind (1 byte), length of the body (4
bytes), rows so far (8 bytes), body."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

HEADER: Final = struct.Struct("!BIQ")
FRAME_BYTES_MAX: Final = 256 << 10


class Frame(IntEnum):
    """READY: the worker is warm. PLAN: run this. HEAD: columns. DATA: bytes of the document.
    END: figures. ERROR: a LakehouseError as JSON. CANCEL: nobody wants the rest of what runs."""

    READY = 1
    PLAN = 2
    HEAD = 3
    DATA = 4
    END = 5
    ERROR = 6
    CANCEL = 7


def frame(kind: Frame, body: bytes, rows: int = 0) -> bytes:
    """One frame; ``body`` below 4 GiB."""
    return HEADER.pack(kind, len(body), rows) + body
