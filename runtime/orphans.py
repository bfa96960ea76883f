"""Dead processes that would be nobody's: conmons, and commands whose crun ended before them.

A zombie keeps its pid namespace, and with it a killed container, from going away until someone collects it; PID 1 of a
machine may be slow at that, PID 1 of a container may never do it. So the runtime is a subreaper and collects what
belongs to containers, never the children that other code of this process waits for. Called by the container lifecycle
and exec.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from linux.syscall import set_child_subreaper


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans."""
    with suppress(OSError):
        set_child_subreaper()


def collect(pid: int) -> None:
    """Collect one process if it is a dead child of ours."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def is_dead_in_container(status: str) -> bool:
    """Whether /proc/<pid>/status tells of a zombie inside a nested pid namespace. Pure."""
    fields = dict(line.partition(":")[::2] for line in status.splitlines())
    return fields.get("State", "").strip().startswith("Z") and len(fields.get("NSpid", "").split()) > 1


def collect_all() -> None:
    """Collect every dead child that lived in a container's pid namespace."""
    for task in Path("/proc/self/task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except OSError:  # a thread that just ended, or a kernel without this file
            continue
        for child in children:
            with suppress(OSError):
                if is_dead_in_container(Path(f"/proc/{child}/status").read_text()):
                    collect(int(child))
