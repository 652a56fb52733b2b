"""Folders of a local directory as S3 tells them: a page of objects and of common beginnings."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from lakehouse.errors import LakehouseError
from lakehouse.model.refs import check_key
from lakehouse.objectstore.arguments import FAR, just_before
from lakehouse.objectstore.local_tree import (
    FOLDER_FLAGS,
    LocalTree,
    descend,
    metadata,
    names_below,
    translated,
)
from lakehouse.objectstore.port import Level, ObjectMeta


def browse(tree: LocalTree, prefix: str, after: str, limit: int, folders: bool) -> Level:
    """As ``port.Browsing``; one folder is read with ``folders``, else those that the page needs."""
    above, slash, _ = prefix.rpartition("/")
    objects: list[ObjectMeta] = []
    found: list[str] = []
    last = ""
    with translated(prefix):
        try:
            fd = tree.open_folder(above + slash)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                return Level(())
            raise
        try:
            for entry in _entries(fd, above + slash, prefix, after, folders):
                if len(objects) + len(found) == limit:
                    return Level(tuple(objects), tuple(found), last)
                if isinstance(entry, str):
                    found.append(entry)
                    last = entry + FAR
                else:
                    objects.append(entry)
                    last = entry.key
        finally:
            os.close(fd)
    return Level(tuple(objects), tuple(found))


def _entries(
    fd: int, folder: str, prefix: str, after: str, folders: bool
) -> Iterator[ObjectMeta | str]:
    """What is at or below ``folder`` and begins with ``prefix``, in byte order of keys."""
    # Not entered: folders before the prefix.
    after = max(after, just_before(prefix)) if prefix != folder else after
    for found in _level(fd, folder, after) if folders else descend(fd, folder, after):
        key = found if isinstance(found, str) else found.key
        if key.startswith(prefix):
            yield found
        elif key > prefix:
            return


def _level(fd: int, folder: str, after: str) -> Iterator[ObjectMeta | str]:
    for key, is_folder in names_below(fd, folder, after):
        name = key.removesuffix("/")[len(folder) :]
        try:
            check_key(key.removesuffix("/"))
            if not is_folder:
                yield metadata(key, os.stat(name, dir_fd=fd, follow_symlinks=False))
            elif not after.startswith(key + FAR) and _holds_something(fd, name, key, after):
                yield key
        except (FileNotFoundError, NotADirectoryError, LakehouseError):
            continue


def _holds_something(fd: int, name: str, key: str, after: str) -> bool:
    below = os.open(name, FOLDER_FLAGS, dir_fd=fd)
    try:
        return next(descend(below, key, after), None) is not None
    finally:
        os.close(below)
