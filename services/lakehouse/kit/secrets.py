"""Secrets: a type that does not print itself, where a reference leads, and what logs strike out.

A reference is ``scheme:place``; each scheme has a provider. What is resolved is concealed: no line
of the log shows it (``kit.telemetry``), however often it rotates.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Mapping
from typing import Final, Protocol
from urllib.parse import quote

from lakehouse.errors import ErrorKind, LakehouseError

SECRET_FORMS: Final = {"env": "env:NAME", "file": "file:/path", "aws-sm": "aws-sm:name"}
"""The schemes of references, and how each is written."""

_SIZE_MAX: Final = 65_536
_SHOWN: Final = "***"
# Shorter texts are nobody's secret, and striking them out would leave no line readable.
_CONCEALED_SIZE_MIN: Final = 4
_CONCEALED_MAX: Final = 4096
_CONCEALED: Final[dict[str, None]] = {}
_CONCEALED_FORMS: Final[list[tuple[str, ...]]] = [()]
_CONCEALED_LOCK: Final = threading.Lock()


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


def conceal(*texts: str) -> None:
    """Never show these texts in a log of this process, now that they are known.

    The newest 4,096 are remembered: one that rotated away may still be in a line to come.
    """
    with _CONCEALED_LOCK:
        for text in texts:
            if len(text) >= _CONCEALED_SIZE_MIN:
                _CONCEALED.pop(text, None)
                _CONCEALED[text] = None
        while len(_CONCEALED) > _CONCEALED_MAX:
            del _CONCEALED[next(iter(_CONCEALED))]
        forms = {form for text in _CONCEALED for form in _forms_of(text)}
        # Longest first, so that no rest of one stays.
        _CONCEALED_FORMS[0] = tuple(sorted(forms, key=len, reverse=True))


def concealed() -> tuple[str, ...]:
    """What ``conceal`` was told, and how a line of text, JSON or a URL would write it; the order is
    that in which to strike out."""
    return _CONCEALED_FORMS[0]


def _forms_of(text: str) -> set[str]:
    escaped = {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    return {text, repr(text)[1:-1], quote(text, safe=""), quote(text), *escaped}


class SecretsProvider(Protocol):
    """Port: where secrets are kept. Answers may change: a secret rotates."""

    def resolve(self, secret_ref: str) -> Secret:
        """The secret behind the reference, now. It may block: call it off the loop.

        Raises ``invalid`` for a reference of another form, ``not_found`` if there is nothing behind
        it, ``forbidden`` where it may not be read, ``unavailable`` where nobody answers. No error
        repeats the secret, nor the reference.
        """
        ...


class EnvironmentSecrets:
    """``env:NAME``: a variable of this process, as it was at the start."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def resolve(self, secret_ref: str) -> Secret:
        name = _place("env", secret_ref)
        text = self._environ.get(name)
        if not text:
            raise LakehouseError(
                ErrorKind.NOT_FOUND, "the secret's environment variable is not set", variable=name
            )
        return Secret(text)


class FileSecrets:
    """``file:/path``: a regular file of at most 64 KiB that neither group nor others may read or
    write; one trailing line break is dropped. Replace it whole (``mv``) to rotate."""

    def resolve(self, secret_ref: str) -> Secret:
        return Secret(_read(_place("file", secret_ref)))


class SchemeSecrets:
    """A provider for each scheme; conceals what it resolves."""

    def __init__(self, providers: Mapping[str, SecretsProvider]) -> None:
        self._providers = dict(providers)

    def resolve(self, secret_ref: str) -> Secret:
        scheme, _, place = secret_ref.partition(":")
        provider = self._providers.get(scheme)
        if provider is None or not place:
            # Whatever stands here may be a secret someone pasted: only its form is named.
            raise LakehouseError(
                ErrorKind.INVALID,
                f"a secret reference must be {_forms(self._providers)}",
                hint="put the secret into a file of mode 600 or a variable, and name that",
            )
        secret = provider.resolve(secret_ref)
        conceal(secret.reveal())
        return secret


def _forms(schemes: Mapping[str, object]) -> str:
    *first, last = [SECRET_FORMS.get(scheme, f"{scheme}:..") for scheme in schemes]
    return f"{', '.join(first)} or {last}" if first else last


def _place(scheme: str, secret_ref: str) -> str:
    return secret_ref.removeprefix(f"{scheme}:")


def local_secrets(environ: Mapping[str, str]) -> SchemeSecrets:
    """``env:`` and ``file:``, which need no server."""
    return SchemeSecrets({"env": EnvironmentSecrets(environ), "file": FileSecrets()})


def resolve(secret_ref: str, environ: Mapping[str, str]) -> Secret:
    """The secret behind ``env:NAME`` or ``file:/path``; see ``SecretsProvider``."""
    return local_secrets(environ).resolve(secret_ref)


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
