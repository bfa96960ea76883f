"""Remove everything a node's runtime made, whether or not its process lives: containers, mounts, namespaces, groups.

Works from what is on disk and in the kernel only, and can be repeated. Blocking. Called by the command line when a node
or cluster goes down, after the runtime process was ended.
"""

from __future__ import annotations

import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from linux import mount
from linux.cgroup import Cgroups
from linux.pidfd import ProcessRef
from runtime import records
from runtime.records import ContainerRecord, SandboxRecord

KILL_TIMEOUT = 10.0


@dataclass
class Purged:
    """What was found and removed, and what could not be."""

    containers: int = 0
    mounts: int = 0
    problems: list[str] = field(default_factory=list)


def purge(root: Path, state: Path, *, cgroups: Cgroups | None = None) -> Purged:
    """Kill all containers of the node with these folders and remove all traces; the image store is left alone."""
    groups = cgroups or Cgroups()
    done = Purged()
    parents: set[str] = set()
    monitors: list[ProcessRef] = []
    for _, record, _ in records.load_all(root / "containers", ContainerRecord):
        if record is None:
            continue
        done.containers += 1
        parents.add(record.cgroup.rpartition("/")[0])
        ProcessRef(record.pid, record.pid_started).send(signal.SIGKILL)
        monitors.append(ProcessRef(record.conmon, record.conmon_started))
        if not groups.kill(record.cgroup, KILL_TIMEOUT):
            done.problems.append(f"processes of container {record.id[:12]} survive")
        elif not groups.remove(record.cgroup):
            done.problems.append(f"cgroup {record.cgroup} cannot be removed")
    _end(monitors)
    for _, sandbox, _ in records.load_all(root / "sandboxes", SandboxRecord):
        if sandbox is not None:
            parents.add(sandbox.cgroup_parent)
    for parent in sorted(parents - {""}, key=len, reverse=True):
        with suppress(OSError):
            groups.remove(parent, 0.5)
    for folder in (state, root):
        if folder.exists():
            done.mounts += len(mount.unmount_below(str(folder)))
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                done.problems.append(f"{folder} cannot be removed")
    return done


def _end(monitors: list[ProcessRef]) -> None:
    """Let the conmons finish by themselves, then insist."""
    deadline = time.monotonic() + 2.0
    while any(each.alive() for each in monitors) and time.monotonic() < deadline:
        time.sleep(0.01)
    for each in monitors:
        each.send(signal.SIGKILL)
