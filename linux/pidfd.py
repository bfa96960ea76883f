"""Processes named so that a recycled pid is never mistaken for the one that was meant.

Owns pidfds and the start time in /proc. `wait` costs nothing while waiting and fires within a millisecond of the exit.
Called by the runtime and by supervisors that adopt processes they did not start.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from dataclasses import dataclass
from pathlib import Path


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which the process started; None when there is no such process (or only a zombie)."""
    try:
        raw = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = raw[raw.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@dataclass(frozen=True)
class ProcessRef:
    """A process as it can be written to disk: its pid and when it started."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessRef | None:
        """The running process with this pid."""
        started = start_time(pid)
        return None if started is None else cls(pid, started)

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return start_time(self.pid) == self.started

    def open(self) -> int | None:
        """A pidfd of this very process, or None when it is gone. The caller closes it."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError as error:
            if error.errno in (errno.ESRCH, errno.EINVAL):
                return None
            raise
        if self.alive():  # checked after opening: now the pid cannot be another process's
            return fd
        os.close(fd)
        return None

    def send(self, number: int) -> bool:
        """Signal this very process; False when it is gone."""
        fd = self.open()
        if fd is None:
            return False
        try:
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True


async def wait(fd: int) -> None:
    """Return when the pidfd's process has exited (it need not be a child). Does not close the descriptor."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(fd, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(fd)
