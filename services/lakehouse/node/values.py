"""Values of configuration keys: which types there are, how text becomes one, what is refused."""

from __future__ import annotations

import ipaddress
import types
import typing
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from lakehouse.errors import ErrorKind, LakehouseError

Scalar = str | int | float | bool | None | tuple[str, ...]

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_PLACE_SUFFIXES: Final = ("_dir", "_folder", "_path", "_root")


def is_plain(kind: Any) -> bool:
    """Whether a field of this type can be given in the file: scalars, words, lists of text."""
    return _bare(kind) in (str, int, float, bool) or _is_texts(kind)


def checked(key: str, raw: object, kind: Any, source: str) -> Scalar:
    """A value as TOML gave it, if it has the type that the key wants."""
    if _is_texts(kind):
        if isinstance(raw, list) and all(isinstance(item, str) for item in raw):
            return tuple(raw)
        raise _wrong(key, raw, "a list of texts", source)
    want = _bare(kind)
    if want is float and isinstance(raw, int) and not isinstance(raw, bool):
        raw = float(raw)
    if type(raw) is not want:
        raise _wrong(key, raw, _NAMES[want], source)
    return _in_range(key, _among(key, typing.cast(Scalar, raw), kind, source), source)


def parsed(key: str, text: str, kind: Any, source: str) -> Scalar:
    """A value as an environment variable gave it; lists are separated by commas."""
    if _is_texts(kind):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    want = _bare(kind)
    if want is str:
        return _among(key, text, kind, source)
    if want is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise _wrong(key, text, _NAMES[bool], source)
    try:
        return _in_range(key, typing.cast(Scalar, want(text)), source)
    except ValueError as error:
        raise _wrong(key, text, _NAMES[want], source) from error


def placed(key: str, value: Scalar, base: Path) -> Scalar:
    """Relative places on disk (``*_dir``, ``file:`` URLs) made absolute against ``base``."""
    if not isinstance(value, str) or not value:
        return value
    if key.endswith(_PLACE_SUFFIXES):
        return str(base / Path(value).expanduser())
    if key == "url" and value.startswith("file:") and not value.startswith("file:/"):
        return (base / unquote(value.removeprefix("file:"))).resolve().as_uri()
    return value


def host_and_port(key: str, address: str) -> tuple[str, int]:
    """``host:port``, ``[v6]:port``; raises ``invalid`` naming ``key``."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise _wrong(key, address, "an address host:port", "")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_NAMES: Final[dict[Any, str]] = {
    str: "a text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def _bare(kind: Any) -> Any:
    """``X`` for ``X | None``, text for an enumeration of words."""
    if isinstance(kind, types.UnionType):
        rest = [arg for arg in typing.get_args(kind) if arg is not type(None)]
        kind = rest[0] if len(rest) == 1 else kind
    return str if _is_words(kind) else kind


def _is_words(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, StrEnum)


def _among(key: str, value: Scalar, kind: Any, source: str) -> Scalar:
    if _is_words(kind) and value not in list(kind):
        raise _wrong(key, value, f"one of {', '.join(kind)}", source)
    return value


def _is_texts(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple and typing.get_args(kind) == (str, ...)


def _in_range(key: str, value: Scalar, source: str) -> Scalar:
    if isinstance(value, int | float) and not isinstance(value, bool) and not value >= 0:
        raise _wrong(key, value, "zero or more", source)
    return value


def _wrong(key: str, value: object, wanted: str, source: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID,
        f"{key} must be {wanted}",
        key=key,
        value=str(value)[:80],
        source=source,
    )
