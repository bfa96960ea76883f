"""Log files of bounded size.

Owns: how a file is put aside (`NAME.log` → `NAME.log.1` → …) and how a process goes on in a new one: its standard
output and error are redirected after the old file has got its new name, so whatever is written meanwhile, by whom
ever, is in one of the two. Called by `machinery.log` for a component's own file and by the supervisor for others'.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

KEPT = 3  # files besides the current one
LOOK_EVERY = 64  # records between two looks at the size
MEBIBYTE = 1 << 20


def make_room(path: Path, kept: int = KEPT) -> None:
    """Let `NAME.1` be free: each older file grows a number older, the oldest goes. Raises OSError."""
    for number in range(kept, 1, -1):
        newer = older(path, number - 1)
        if newer.exists():
            newer.rename(older(path, number))


def put_aside(path: Path, kept: int = KEPT) -> None:
    """Give the file the name of an older one. Raises OSError."""
    make_room(path, kept)
    path.rename(older(path, 1))


def older(path: Path, number: int) -> Path:
    """`x.log.2` for 2."""
    return path.with_name(f"{path.name}.{number}")


def redirect(path: Path) -> None:
    """Put the file of standard error aside and go on in a new one. Raises OSError; then all stays as it is."""
    old = os.fstat(2)
    put_aside(path)
    fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        out = os.fstat(1)
        if (out.st_dev, out.st_ino) == (old.st_dev, old.st_ino):
            os.dup2(fresh, 1)
        os.dup2(fresh, 2)
    finally:
        os.close(fresh)


def own_file() -> Path | None:
    """The regular file that standard error goes to."""
    try:
        path = Path(os.readlink("/proc/self/fd/2"))
        same = path.stat().st_ino == os.fstat(2).st_ino
    except OSError:
        return None
    return path if same and path.is_file() else None


class BoundedHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Standard error, put aside when it is a file that has grown past `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(sys.stderr)
        self._limit = limit
        self._records = 0

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        self._records += 1
        if self._records % LOOK_EVERY == 0:
            self.look()

    def look(self) -> None:
        """Put the file aside if it is too large; when that fails it grows on."""
        try:
            if os.fstat(2).st_size > self._limit and (path := own_file()) is not None:
                self.flush()
                redirect(path)
        except OSError:
            self.handleError(logging.makeLogRecord({"msg": "could not rotate the log"}))
