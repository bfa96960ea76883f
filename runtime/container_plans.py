"""Decisions about containers that need no container: signals, reasons, limits, devices.

Pure but for one lstat. Called by the container lifecycle.
"""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

from linux.cgroup import UNLIMITED, Limits
from proto.cri.v1 import cri_pb2 as cri
from runtime.spec import DeviceNode


def plan_stop_signal(config: cri.ContainerConfig, image_signal: str) -> int:
    """The number of the signal that asks the container to end: the request's, else the image's, else SIGTERM. Pure."""
    name = ""
    if config.stop_signal != cri.RUNTIME_DEFAULT:
        name = cri.Signal.Name(config.stop_signal)
    elif image_signal:
        name = image_signal.upper()
    if name.isdigit() and 0 < int(name) < 65:
        return int(name)
    if name and not name.startswith("SIG"):
        name = f"SIG{name}"
    if name.startswith(("SIGRTMINPLUS", "SIGRTMIN+")):
        return int(signal.SIGRTMIN) + int(name.removeprefix("SIGRTMINPLUS").removeprefix("SIGRTMIN+"))
    if name.startswith(("SIGRTMAXMINUS", "SIGRTMAX-")):
        return int(signal.SIGRTMAX) - int(name.removeprefix("SIGRTMAXMINUS").removeprefix("SIGRTMAX-"))
    try:
        return int(signal.Signals[name]) if name else int(signal.SIGTERM)
    except KeyError:
        return int(signal.SIGTERM)


def plan_exit_reason(code: int, oom: bool) -> str:
    """The reason of a normal end. Pure."""
    if oom and code != 0:
        return "OOMKilled"
    return "Completed" if code == 0 else "Error"


def plan_limits(resources: cri.LinuxContainerResources, swap_accounting: bool) -> Limits:
    """Resources of an update as group limits; zero means "as it is". Pure."""
    memory = resources.memory_limit_in_bytes or None
    both = (resources.memory_swap_limit_in_bytes or memory) if swap_accounting else None
    return Limits(
        cpu_quota_us=(UNLIMITED if resources.cpu_quota < 0 else resources.cpu_quota or None),
        cpu_period_us=resources.cpu_period or None,
        cpu_shares=resources.cpu_shares or None,
        memory_bytes=memory,
        memory_swap_bytes=both,
        cpuset_cpus=resources.cpuset_cpus or None,
        cpuset_mems=resources.cpuset_mems or None,
    )


def device_node(source: Path, path: str, access: str = "rwm") -> DeviceNode | None:
    """The device at `source` as it is to appear at `path`; None when it is no device."""
    try:
        status = source.stat()
    except OSError:
        return None
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else ""
    if not kind:
        return None
    number = status.st_rdev
    return DeviceNode(path, kind, os.major(number), os.minor(number), stat.S_IMODE(status.st_mode), access)
