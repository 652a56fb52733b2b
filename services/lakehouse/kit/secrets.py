"""Secrets: a type that does not print itself, and where a reference leads."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError

_SIZE_MAX: Final = 65_536
_SHOWN: Final = "***"


class Secret:
    """Text that shows as ``***`` in str, repr, format and pickles nowhere; ``reveal`` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself; call it where it is used, and keep the result nowhere."""
        return self._text

    def __repr__(self) -> str:
        return _SHOWN

    def __format__(self, spec: str) -> str:
        return format(_SHOWN, spec)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


def resolve(secret_ref: str, environ: Mapping[str, str]) -> Secret:
    """The secret behind ``env:NAME`` or ``file:/path``.

    A file must be a regular file of at most 64 KiB that neither group nor others may read or
    write; one trailing line break is dropped.

    Raises ``invalid`` for a reference of another form, ``not_found`` if there is nothing behind
    it, ``forbidden`` for a file that others may read. No error repeats the secret.
    """
    scheme, _, rest = secret_ref.partition(":")
    if scheme == "env" and rest:
        text = environ.get(rest)
        if not text:
            raise LakehouseError(
                ErrorKind.NOT_FOUND, "the secret's environment variable is not set", variable=rest
            )
        return Secret(text)
    if scheme == "file" and rest:
        return Secret(_read(rest))
    # Whatever stands here may be a secret someone pasted: only its form is named.
    raise LakehouseError(
        ErrorKind.INVALID,
        "a secret reference must be env:NAME or file:/path",
        hint="put the secret into a file of mode 600 or a variable, and name that",
    )


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _check_private(path, os.fstat(fd))
            # One byte more than may be there tells that there is too much.
            data = os.read(fd, _SIZE_MAX + 1)
        finally:
            os.close(fd)
    except FileNotFoundError as error:
        raise LakehouseError(
            ErrorKind.NOT_FOUND, "the secret file does not exist", path=path
        ) from error
    except OSError as error:
        raise LakehouseError(
            ErrorKind.FORBIDDEN,
            "the secret file cannot be read",
            path=path,
            reason=(error.strerror or "").lower(),
        ) from error
    if len(data) > _SIZE_MAX:
        raise LakehouseError(ErrorKind.INVALID, "the secret file is over 64 KiB", path=path)
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise LakehouseError(ErrorKind.INVALID, "the secret file is not text", path=path) from None


def _check_private(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise LakehouseError(ErrorKind.INVALID, "the secret file is not a regular file", path=path)
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise LakehouseError(
            ErrorKind.FORBIDDEN,
            "the secret file may be read by others",
            path=path,
            mode=f"{mode:03o}",
            hint=f"chmod 600 {path}",
        )
