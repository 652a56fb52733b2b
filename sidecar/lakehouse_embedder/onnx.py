"""As much of the ONNX format as the model's graph needs, written as protocol buffers by hand.

Weights stay in their file: a graph names where each one lies, and the runtime maps it from there.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

FLOAT: Final = 1
INT32: Final = 6
INT64: Final = 7
_IR_VERSION: Final = 8
_OPSETS: Final = (("", 17), ("com.microsoft", 1))
_EXTERNAL: Final = 1
_FLOAT_ATTRIBUTE: Final = 1
_INT_ATTRIBUTE: Final = 2


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def external(name: str, dims: Sequence[int], file: str, offset: int, size: int) -> bytes:
    """A float32 tensor whose ``size`` bytes lie at ``offset`` of a file beside the model."""
    places = {"location": file, "offset": str(offset), "length": str(size)}
    return (
        b"".join(_number(1, dim) for dim in dims)
        + _number(2, FLOAT)
        + _bytes(8, name)
        + b"".join(_bytes(13, _bytes(1, key) + _bytes(2, value)) for key, value in places.items())
        + _number(14, _EXTERNAL)
    )


def constant(name: str, values: Sequence[int]) -> bytes:
    """A vector of int64."""
    data = struct.pack(f"<{len(values)}q", *values)
    return _number(1, len(values)) + _number(2, INT64) + _bytes(8, name) + _bytes(9, data)


def node(
    op: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    domain: str = "",
    **attributes: int | float,
) -> bytes:
    """One operation; an input "" is one that is left out."""
    return (
        b"".join(_bytes(1, one) for one in inputs)
        + b"".join(_bytes(2, one) for one in outputs)
        + _bytes(3, outputs[0])
        + _bytes(4, op)
        + b"".join(_bytes(5, _attribute(name, value)) for name, value in attributes.items())
        + (_bytes(7, domain) if domain else b"")
    )


def _attribute(name: str, value: int | float) -> bytes:
    if isinstance(value, float):
        return _bytes(1, name) + _float(2, value) + _number(20, _FLOAT_ATTRIBUTE)
    return _bytes(1, name) + _number(3, value) + _number(20, _INT_ATTRIBUTE)


def value(name: str, element: int, dims: Sequence[str | int]) -> bytes:
    """An input or output; a dimension that is a name may be of any size."""
    shape = b"".join(
        _bytes(1, _bytes(2, dim) if isinstance(dim, str) else _number(1, dim)) for dim in dims
    )
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, element) + _bytes(2, shape)))


def model(
    nodes: Sequence[bytes],
    tensors: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
) -> bytes:
    """The whole, as a runtime loads it."""
    graph = (
        b"".join(_bytes(1, one) for one in nodes)
        + _bytes(2, "model")
        + b"".join(_bytes(5, one) for one in tensors)
        + b"".join(_bytes(11, one) for one in inputs)
        + b"".join(_bytes(12, one) for one in outputs)
    )
    opsets = (_bytes(1, domain) + _number(2, version) for domain, version in _OPSETS)
    return _number(1, _IR_VERSION) + _bytes(7, graph) + b"".join(_bytes(8, one) for one in opsets)
