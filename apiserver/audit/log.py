"""The file of the audit log: lines in, rotated by size, old files dropped by age and number.

Owns: the file and its backups (`audit-2026-11-21T12-00-00.000.log` beside `audit.log`, as upstream names them).
Lines are gathered for a moment and written together; a line is in one file whole. A full disk costs lines, which are
counted, and never a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from machinery.log import kv

FLUSH_SECONDS = 0.1
FLUSH_BYTES = 256 * 1024
MEBIBYTE = 1 << 20
_STAMP = "%Y-%m-%dT%H-%M-%S"

log = logging.getLogger("apiserver.audit")


class AuditLog:
    """`max_size` in MiB, `max_age` in days, `max_backup` a number; 0: no such limit. Path "-": standard output."""

    def __init__(self, path: str, *, max_size: int = 100, max_age: int = 0, max_backup: int = 0) -> None:
        self._path = Path(path)
        self._stdout = path == "-"
        self._limit = max_size * MEBIBYTE
        self._age, self._backups = max_age, max_backup
        self._file: IO[bytes] | None = None
        self._size = 0
        self._lines: list[bytes] = []
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self.lost = 0  # lines that could not be written

    def open(self) -> None:
        """Raises OSError: a server that should keep an audit log does not run without."""
        if self._stdout:
            self._file = os.fdopen(os.dup(1), "wb", buffering=0)
            return
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._size = os.fstat(descriptor).st_size

    def write(self, line: bytes) -> None:
        """Take a line without its end. Called inside the event loop."""
        self._lines.append(line)
        self._waiting += len(line) + 1
        if self._waiting >= FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Everything taken so far is in the file."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines, self._waiting = self._lines, [], 0
        while lines:
            count = len(lines)
            try:
                if self._limit and not self._stdout:
                    count = self._fitting(lines)
                self._put(b"\n".join((*lines[:count], b"")))
            except OSError as error:
                if not self.lost:
                    log.warning("Could not write the audit log", extra=kv(path=self._path, error=error))
                self.lost += len(lines)
                return
            del lines[:count]

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _fitting(self, lines: list[bytes]) -> int:
        """How many lines the file still takes; at least one, after a rotation if need be."""
        room = self._limit - self._size
        count = 0
        for line in lines:
            room -= len(line) + 1
            if room < 0:
                break
            count += 1
        if count == 0:
            if self._size:
                self._rotate()
            return 1
        return count

    def _put(self, data: bytes) -> None:
        if self._file is None:
            self.open()
        assert self._file is not None
        view = memoryview(data)
        while view:
            written = self._file.write(view) or 0
            self._size += written
            view = view[written:]

    def _rotate(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        now = time.time()
        while True:
            stamp = datetime.fromtimestamp(now, UTC)
            name = f"{self._path.stem}-{stamp.strftime(_STAMP)}.{stamp.microsecond // 1000:03d}{self._path.suffix}"
            if not self._path.with_name(name).exists():
                break
            now += 0.001
        with contextlib.suppress(OSError):  # then the file grows on: no line is lost
            self._path.rename(self._path.with_name(name))
        self.open()
        self._tidy()

    def backups(self) -> list[Path]:
        """Older files, the newest first."""
        found = self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}")
        return sorted((each for each in found if self._when(each) is not None), reverse=True)

    def _when(self, backup: Path) -> datetime | None:
        text = backup.name.removeprefix(f"{self._path.stem}-").removesuffix(self._path.suffix)
        try:
            return datetime.strptime(f"{text}000", f"{_STAMP}.%f").replace(tzinfo=UTC)
        except ValueError:
            return None

    def _tidy(self) -> None:
        oldest = datetime.now(UTC) - timedelta(days=self._age) if self._age else None
        for number, backup in enumerate(self.backups()):
            when = self._when(backup)
            too_old = oldest is not None and when is not None and when < oldest
            if too_old or (self._backups and number >= self._backups):
                backup.unlink(missing_ok=True)
