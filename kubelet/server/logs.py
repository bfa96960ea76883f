"""Container logs in the CRI's format: parse, cut, tail, follow across rotations.

Owns nothing; reads files. A follower looks for growth a few times a second and ends with its container. Called by
`server.service`.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from machinery.meta import parse_time

CHUNK = 64 * 1024
LOOK_FIRST, LOOK_LAST = 0.02, 0.25  # real seconds between looks for new lines
MAX_LINE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What part of a log is wanted. `since` is the earliest time as RFC 3339 text in UTC, "" for all."""

    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    limit: int | None = None
    since: str = ""


class LineFormatter:
    """Turns CRI log lines into what a user sees; remembers whether a partial line is open. Pure."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._since = _comparable(options.since.encode())
        self._left = options.limit
        self._open = False

    @property
    def exhausted(self) -> bool:
        """The byte limit is reached."""
        return self._left is not None and self._left <= 0

    def format(self, line: bytes) -> bytes:
        """One raw line without its newline; b"" when it is not wanted or not a log line."""
        parts = line.split(b" ", 3)
        if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
            return b""
        if self._since and _comparable(parts[0]) < self._since:
            return b""
        text = parts[3] if len(parts) == 4 else b""
        partial = parts[2].partition(b":")[0] == b"P"
        if self._options.timestamps and not self._open:
            text = _utc(parts[0]) + b" " + text
        self._open = partial
        if not partial:
            text += b"\n"
        if self._left is not None:
            text = text[: max(self._left, 0)]
            self._left -= len(text)
        return text


def _utc(stamp: bytes) -> bytes:
    """A log line's time in UTC with its nanoseconds; the runtime writes local time."""
    if stamp.endswith(b"Z"):
        return stamp
    if stamp.endswith(b"+00:00"):
        return stamp[:-6] + b"Z"
    try:
        moment = parse_time(stamp.decode("ascii"))
    except ValueError:
        return stamp
    fraction = re.search(rb"\.\d+", stamp)
    return moment.strftime("%Y-%m-%dT%H:%M:%S").encode() + (fraction[0] if fraction else b"") + b"Z"


def _comparable(stamp: bytes) -> bytes:
    """RFC 3339 texts in UTC compare as texts once their fractions have one length."""
    if not stamp:
        return b""
    base, _, fraction = _utc(stamp).rstrip(b"Z").partition(b".")
    return base + b"." + fraction.ljust(9, b"0")


def log_files(path: Path) -> list[Path]:
    """The rotated files of a log, oldest first, then the log itself."""
    rotated = sorted(each for each in path.parent.glob(f"{path.name}.*") if not each.name.endswith((".tmp", ".gz")))
    return [*rotated, path]


def tail_start(files: list[Path], lines: int) -> tuple[int, int]:
    """(index of file, offset) from which the last `lines` lines begin."""
    if lines <= 0:
        return len(files) - 1, _size(files[-1])
    wanted = lines
    for index in range(len(files) - 1, -1, -1):
        try:
            with files[index].open("rb") as file:
                offset, missing = _tail_offset(file.fileno(), wanted)
        except FileNotFoundError:
            continue
        if missing == 0:
            return index, offset
        wanted = missing
    return 0, 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _tail_offset(fd: int, lines: int) -> tuple[int, int]:
    """(offset of the last `lines` lines, how many lines are missing if the file has fewer)."""
    end = position = os.fstat(fd).st_size
    found = 0
    while position > 0:
        start = max(position - CHUNK, 0)
        block = os.pread(fd, position - start, start)
        if position == end and block.endswith(b"\n"):
            block = block[:-1]
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            found += 1
            if found == lines:
                return start + at + 1, 0
        position = start
    return 0, max(lines - found - (1 if end else 0), 0)


async def read_log(path: Path, options: LogOptions, alive: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The wanted part of a log in chunks; while following, until the container has ended and all is read."""
    formatter = LineFormatter(options)
    files = log_files(path)
    index, offset = (0, 0) if options.tail is None else tail_start(files, options.tail)
    for older in files[index:-1]:
        try:
            file = older.open("rb")
        except FileNotFoundError:
            continue
        with file:
            file.seek(offset)
            async for chunk in _drain(file.fileno(), formatter, [b""]):
                yield chunk
        offset = 0
        if formatter.exhausted:
            return
    async for chunk in _read_current(path, offset if index == len(files) - 1 else 0, options, formatter, alive):
        yield chunk


async def _read_current(
    path: Path, offset: int, options: LogOptions, formatter: LineFormatter, alive: Callable[[], bool]
) -> AsyncIterator[bytes]:
    pause = LOOK_FIRST
    while not path.exists():  # the runtime makes the file when the container starts
        if not options.follow or not alive():
            return
        await asyncio.sleep(pause)
        pause = min(pause * 2, LOOK_LAST)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.lseek(fd, offset, os.SEEK_SET)
        rest = [b""]
        pause, ending = LOOK_FIRST, False
        while True:
            grew = False
            async for chunk in _drain(fd, formatter, rest):
                grew = True
                yield chunk
            if formatter.exhausted or not options.follow:
                return
            if _rotated(fd, path):
                fresh = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                os.close(fd)
                fd, rest = fresh, [b""]
                continue
            if ending:
                return
            ending = not alive()  # one more look: the last lines may have come between reading and asking
            pause = LOOK_FIRST if grew else min(pause * 1.5, LOOK_LAST)
            if not ending:
                await asyncio.sleep(pause)
    finally:
        os.close(fd)


def _rotated(fd: int, path: Path) -> bool:
    try:
        return path.stat().st_ino != os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


async def _drain(fd: int, formatter: LineFormatter, rest: list[bytes]) -> AsyncIterator[bytes]:
    """Read to the end of the file; `rest` keeps an unfinished line for the next time."""
    while not formatter.exhausted:
        block = os.read(fd, CHUNK)
        if not block:
            return
        text = b"".join(_texts(rest[0] + block, formatter, rest))
        if text:
            yield text
        await asyncio.sleep(0)


def _texts(block: bytes, formatter: LineFormatter, rest: list[bytes]) -> Iterator[bytes]:
    lines = block.split(b"\n")
    rest[0] = lines.pop()[-MAX_LINE:]
    for line in lines:
        if formatter.exhausted:
            return
        yield formatter.format(line)
