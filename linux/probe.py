"""What this machine allows: asked once, so that the parts above can degrade with a clear word instead of failing late.

Reads /proc and tries nothing that leaves a trace. Called by the runtime at start and by the command line's checks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from linux.cgroup import Layout, parse_layout

CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
"""Linux capabilities by bit number, without the CAP_ prefix."""


@dataclass(frozen=True)
class Machine:
    """Answers about this machine and this process."""

    capabilities: frozenset[str]
    cgroups: Layout
    kernel: tuple[int, int]
    cpus: int
    memory_bytes: int

    def can(self, capability: str) -> bool:
        """Whether this process holds the capability ("SYS_ADMIN")."""
        return capability in self.capabilities


def parse_capabilities(status: str, field: str = "CapBnd") -> frozenset[str]:
    """Capabilities set in a mask of /proc/<pid>/status."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            mask = int(value.strip(), 16)
            return frozenset(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)
    return frozenset()


def parse_kernel(release: str) -> tuple[int, int]:
    """(major, minor) of a kernel release."""
    major, _, rest = release.partition(".")
    minor = "".join(iter_digits(rest))
    return int(major or 0), int(minor or 0)


def iter_digits(text: str) -> list[str]:
    """Leading digits of a text."""
    digits = []
    for char in text:
        if not char.isdigit():
            break
        digits.append(char)
    return digits


def probe() -> Machine:
    """Ask the kernel."""
    status = Path("/proc/self/status").read_text()
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as lines:
        layout = parse_layout(lines)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    held = parse_capabilities(status, "CapEff") & parse_capabilities(status)
    return Machine(held, layout, parse_kernel(os.uname().release), os.cpu_count() or 1, memory)
