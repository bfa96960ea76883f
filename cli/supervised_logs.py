"""Logs of those who do not rotate theirs: the supervisor, and programs that are no components of ours (etcd)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from machinery import log_files


def tell(text: str) -> None:
    """One line into the log of this process, if there is room for it."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def bound_own(limit: int) -> None:
    """Begin another log once this process's is larger than `limit` bytes. Raises OSError."""
    own = log_files.own_file()
    if own is not None and own.stat().st_size > limit:
        log_files.redirect(own)


def cut_under(pid: int, log: Path) -> None:
    """Copy a running program's log aside and empty it; the program is stopped meanwhile, so no line falls between."""
    os.kill(pid, signal.SIGSTOP)
    try:
        _await_stop(pid)
        log_files.make_room(log)
        shutil.copyfile(log, log_files.older(log, 1))
        os.truncate(log, 0)
    finally:
        os.kill(pid, signal.SIGCONT)


def _await_stop(pid: int) -> None:
    """Until the kernel has stopped every thread; it is asked for, not waited for, by the signal."""
    deadline = time.monotonic() + 1.0
    tasks = Path(f"/proc/{pid}/task")
    while time.monotonic() < deadline:
        states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks.iterdir()]
        if all(state in "Tt" for state in states):
            return
        time.sleep(0.001)
    raise OSError(f"process {pid} did not stop")
