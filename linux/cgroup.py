"""Control groups: one driver for v1, v2 and hybrid machines.

Owns the layout (which controller is mounted where), limits, membership, freezing, killing, removal and sampling.
Names are relative to the mount (`nanokube/demo/worker-1/…`), which inside a container is that container's own part of
the tree. On v2 processes may only live in leaves: controllers are handed down the path as it is created, and processes
found in an inner group are moved to its `init` child. Blocking, but microseconds except `kill` and `remove`.
Called by the machine builder, the kubelet's pod groups and the runtime.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from linux.mount import parse_mountinfo

V1_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "freezer", "cpuset", "blkio", "devices")
V2_CONTROLLERS = ("cpu", "memory", "pids", "cpuset", "io")
INIT = "init"  # leaf for processes of a group that has children
UNLIMITED = -1


@dataclass(frozen=True)
class Limits:
    """What a group may use. None leaves a value as it is, UNLIMITED lifts it."""

    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    cpu_shares: int | None = None
    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None  # memory and swap together, as v1 and the CRI count it
    pids: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None


@dataclass(frozen=True)
class Layout:
    """Where the controllers are mounted: `v1` by controller, `v2` the unified tree if any."""

    v1: Mapping[str, str] = field(default_factory=dict)
    v2: str | None = None
    v2_controllers: frozenset[str] = frozenset()
    others: tuple[
        str, ...
    ] = ()  # hierarchies without a controller of ours (name=systemd), where OCI runtimes make groups

    @property
    def unified(self) -> bool:
        """Whether resources are controlled by v2 (a hybrid machine controls them by v1)."""
        return self.v2 is not None and "memory" not in self.v1 and "memory" in self.v2_controllers

    @property
    def hybrid(self) -> bool:
        """Whether v1 controllers and a v2 tree are both mounted."""
        return bool(self.v1) and self.v2 is not None

    @property
    def mode(self) -> str:
        """`v2`, `hybrid`, `v1` or `none`."""
        if self.unified:
            return "v2"
        return "hybrid" if self.hybrid else ("v1" if self.v1 else "none")


def parse_layout(mountinfo: Iterable[str], v2_controllers: str | None = None) -> Layout:
    """Read a layout from the lines of mountinfo; `v2_controllers` overrides what the v2 root offers (for tests)."""
    v1: dict[str, str] = {}
    v2: str | None = None
    others: list[str] = []
    for point, _, kind, options in parse_mountinfo(mountinfo):
        if kind == "cgroup2":
            v2 = v2 or point
        elif kind == "cgroup":
            known = [option for option in options.split(",") if option in V1_CONTROLLERS]
            for option in known:
                v1.setdefault(option, point)
            if not known:
                others.append(point)
    if v2 is not None and v2_controllers is None:
        try:
            v2_controllers = Path(v2, "cgroup.controllers").read_text()
        except OSError:
            v2_controllers = ""
    layout = Layout(v1, v2, frozenset((v2_controllers or "").split()))
    if v2 is not None and not layout.unified:
        others.append(v2)
    return replace(layout, others=tuple(others))


def shares_to_weight(shares: int) -> int:
    """v1 cpu.shares (2…262144) as v2 cpu.weight (1…10000), by the kubelet's formula."""
    return max(1, min(10000, 1 + ((shares - 2) * 9999) // 262142))


def plan_writes(limits: Limits, unified: bool) -> list[tuple[str, str, str]]:
    """The (controller, file, value) writes that apply `limits`, in order. Pure."""
    writes: list[tuple[str, str, str]] = []
    quota, period = limits.cpu_quota_us, limits.cpu_period_us
    memory, both, pids = limits.memory_bytes, limits.memory_swap_bytes, limits.pids
    if unified:
        if quota is not None:  # a period alone cannot be written without repeating the quota
            ceiling = "max" if quota < 0 else str(quota)
            writes.append(("cpu", "cpu.max", f"{ceiling} {period or 100000}"))
        if limits.cpu_shares:
            writes.append(("cpu", "cpu.weight", str(shares_to_weight(limits.cpu_shares))))
        if memory is not None:
            writes.append(("memory", "memory.max", "max" if memory < 0 else str(memory)))
        if both is not None:
            swap = "max" if both < 0 else str(max(0, both - max(memory or 0, 0)))
            writes.append(("memory", "memory.swap.max", swap))
        if pids is not None:
            writes.append(("pids", "pids.max", "max" if pids < 0 else str(pids)))
    else:
        if period is not None or quota is not None:
            writes.append(("cpu", "cpu.cfs_period_us", str(period or 100000)))
        if quota is not None:
            writes.append(("cpu", "cpu.cfs_quota_us", str(quota)))
        if limits.cpu_shares:
            writes.append(("cpu", "cpu.shares", str(limits.cpu_shares)))
        if memory is not None:
            writes.append(("memory", "memory.limit_in_bytes", str(memory)))
        if both is not None:
            writes.append(("memory", "memory.memsw.limit_in_bytes", str(both)))
        if pids is not None:
            writes.append(("pids", "pids.max", "max" if pids < 0 else str(pids)))
    if limits.cpuset_cpus:
        writes.append(("cpuset", "cpuset.cpus", limits.cpuset_cpus))
    if limits.cpuset_mems:
        writes.append(("cpuset", "cpuset.mems", limits.cpuset_mems))
    return writes


class Cgroups:
    """The driver. One per process is enough; it keeps no state but the layout."""

    def __init__(self, layout: Layout | None = None) -> None:
        if layout is None:
            with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as lines:
                layout = parse_layout(lines)
        self.layout = layout

    def folders(self, name: str) -> dict[str, str]:
        """Folder of the group by controller ("" is the only key on v2)."""
        name = name.strip("/")
        if self.layout.unified:
            return {"": f"{self.layout.v2}/{name}"}
        return {controller: f"{mount}/{name}" for controller, mount in self.layout.v1.items()}

    def _unique_folders(self, name: str) -> list[str]:
        return list(dict.fromkeys(self.folders(name).values()))

    def exists(self, name: str) -> bool:
        """Whether the group exists (in any controller)."""
        return any(os.path.isdir(folder) for folder in self._unique_folders(name))

    def create(self, name: str, limits: Limits | None = None) -> None:
        """Make the group and its parents (existing ones are fine) and apply limits. OSError names the failing file."""
        if self.layout.unified:
            self._create_unified(name.strip("/"))
        else:
            for folder in self._unique_folders(name):
                os.makedirs(folder, exist_ok=True)
            if "cpuset" in self.layout.v1:
                self._inherit_cpuset(name.strip("/"))
        if limits is not None:
            self.update(name, limits)

    def _create_unified(self, name: str) -> None:
        folder = str(self.layout.v2)
        for part in name.split("/"):
            self._hand_down(folder)
            folder += "/" + part
            try:
                os.mkdir(folder)
            except FileExistsError:
                continue

    def _hand_down(self, folder: str) -> None:
        """Enable every available controller for the children of `folder`."""
        offered = _read(f"{folder}/cgroup.controllers").split()
        enabled = _read(f"{folder}/cgroup.subtree_control").split()
        for controller in V2_CONTROLLERS:
            if controller not in offered or controller in enabled:
                continue
            for attempt in range(3):
                try:
                    _write(f"{folder}/cgroup.subtree_control", f"+{controller}")
                    break
                except OSError as error:
                    # EBUSY: processes sit in this inner group (as in the root of a container's cgroup namespace).
                    if error.errno != errno.EBUSY or attempt == 2:
                        if controller in ("cpu", "memory", "pids"):
                            raise
                        break
                    self._evacuate(folder)

    @staticmethod
    def _evacuate(folder: str) -> None:
        leaf = f"{folder}/{INIT}"
        os.makedirs(leaf, exist_ok=True)
        for pid in _read(f"{folder}/cgroup.procs").split():
            try:
                _write(f"{leaf}/cgroup.procs", pid)
            except OSError as error:
                if error.errno not in (errno.ESRCH, errno.EINVAL):  # gone, or a kernel thread
                    raise

    def _inherit_cpuset(self, name: str) -> None:
        """A v1 cpuset starts empty and refuses processes until its parent's values are copied down."""
        folder = self.layout.v1["cpuset"]
        for part in name.split("/"):
            parent, folder = folder, f"{folder}/{part}"
            for file in ("cpuset.cpus", "cpuset.mems"):
                try:
                    if not _read(f"{folder}/{file}").strip():
                        _write(f"{folder}/{file}", _read(f"{parent}/{file}").strip())
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.EACCES):
                        raise

    def update(self, name: str, limits: Limits) -> None:
        """Apply limits to an existing group. What the machine cannot limit (swap accounting off) is skipped."""
        folders = self.folders(name)
        writes = plan_writes(limits, self.layout.unified)
        pending = []
        for controller, file, value in writes:
            folder = folders.get(controller) or folders.get("")
            if folder is None:
                continue
            try:
                _write(f"{folder}/{file}", value)
            except FileNotFoundError:
                if "swap" not in file and "memsw" not in file and not file.startswith("cpuset"):
                    raise
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EBUSY):
                    raise
                pending.append((f"{folder}/{file}", value, error))
        # v1 refuses memory above memory+swap: in the second round the other one is set.
        for path, value, _ in pending:
            _write(path, value)

    def attach(self, name: str, pid: int) -> None:
        """Move a process (all its threads) into the group; on v2 into its `init` leaf when it has children."""
        if not self.layout.unified:
            for folder in self._unique_folders(name):
                _write(f"{folder}/cgroup.procs", str(pid))
            return
        folder = self.folders(name)[""]
        try:
            _write(f"{folder}/cgroup.procs", str(pid))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            os.makedirs(f"{folder}/{INIT}", exist_ok=True)
            _write(f"{folder}/{INIT}/cgroup.procs", str(pid))

    def processes(self, name: str, *, recursive: bool = True) -> list[int]:
        """Pids in the group and, by default, in every group below it."""
        roots = self._unique_folders(name)
        pids: set[int] = set()
        for root in roots:
            for folder in _tree(root) if recursive else [root]:
                try:
                    pids.update(int(pid) for pid in _read(f"{folder}/cgroup.procs").split())
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                        raise
        return sorted(pids)

    def freeze(self, name: str) -> None:
        """Stop every process of the group and of those below it from running."""
        self._set_frozen(name, True)

    def thaw(self, name: str) -> None:
        """Let a frozen group run again."""
        self._set_frozen(name, False)

    def _set_frozen(self, name: str, frozen: bool) -> None:
        folders = self.folders(name)
        if self.layout.unified:
            _write(f"{folders['']}/cgroup.freeze", "1" if frozen else "0")
        elif "freezer" in folders:
            _write(f"{folders['freezer']}/freezer.state", "FROZEN" if frozen else "THAWED")
        else:
            raise OSError(errno.EOPNOTSUPP, "freeze: this machine has no freezer controller", name)

    def kill(self, name: str, timeout: float = 5.0) -> bool:
        """SIGKILL everything in the group and below until it is empty; False when something survived `timeout`."""
        deadline = time.monotonic() + timeout
        pause = 0.001
        while True:
            folder = self.folders(name).get("")
            if folder is None or not _try_write(f"{folder}/cgroup.kill", "1"):
                for pid in filter(None, self.processes(name)):  # 0: of an outer pid namespace, and to kill(2) ourselves
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
            if not self.layout.unified and "freezer" in self.layout.v1:
                _try_write(f"{self.folders(name)['freezer']}/freezer.state", "THAWED")  # the frozen cannot die on v1
            if not self.processes(name):
                if self.layout.unified:  # there the frozen do die, but whoever is attached next would freeze
                    _try_write(f"{folder}/cgroup.freeze", "0")
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    def remove(self, name: str, timeout: float = 2.0) -> bool:
        """Remove the group and all below it; retries while the kernel still lets go of dead processes."""
        deadline = time.monotonic() + timeout
        pause = 0.001
        while not self.try_remove(name):
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        return True

    def try_remove(self, name: str) -> bool:
        """One attempt at `remove`, without waiting."""
        clean = True
        others = [f"{point}/{name.strip('/')}" for point in self.layout.others]
        for root in [*self._unique_folders(name), *others]:
            for folder in reversed(list(_tree(root))):
                try:
                    os.rmdir(folder)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                        raise
                    clean = False
        return clean

    def remove_if_empty(self, name: str) -> None:
        """Remove the group wherever nothing is below it; what is used stays."""
        for root in [*self._unique_folders(name), *(f"{point}/{name.strip('/')}" for point in self.layout.others)]:
            with suppress(OSError):
                os.rmdir(root)

    def sampler(self, name: str) -> Sampler:
        """A sampler with its files open; OSError(ENOENT) when the group is gone."""
        return Sampler(self.folders(name), self.layout.unified)


@dataclass(frozen=True)
class Sample:
    """One reading of a group, taken at `at_ns` (wall clock)."""

    at_ns: int
    cpu_ns: int
    memory: int
    working_set: int
    rss: int
    pids: int
    page_faults: int
    major_page_faults: int
    oom_kills: int
    throttled: int
    throttled_ns: int


_V1_FILES = (
    ("cpuacct", "cpuacct.usage"),
    ("memory", "memory.usage_in_bytes"),
    ("memory", "memory.stat"),
    ("pids", "pids.current"),
    ("memory", "memory.oom_control"),
    ("cpu", "cpu.stat"),
)
_V2_FILES = (
    ("", "cpu.stat"),
    ("", "memory.current"),
    ("", "memory.stat"),
    ("", "pids.current"),
    ("", "memory.events"),
)


class Sampler:
    """Reads a group's counters through descriptors kept open: about 25 µs a reading. `close()` it."""

    def __init__(self, folders: Mapping[str, str], unified: bool) -> None:
        self._unified = unified
        self._fds: list[int] = []
        try:
            for controller, file in _V2_FILES if unified else _V1_FILES:
                folder = folders.get(controller)
                if folder is None:
                    raise FileNotFoundError(errno.ENOENT, "sample: controller is not mounted", controller)
                self._fds.append(os.open(f"{folder}/{file}", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the files."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def sample(self) -> Sample:
        """Read now; OSError(ENODEV) when the group has been removed."""
        raw = [os.pread(fd, 16384, 0) for fd in self._fds]
        now = time.time_ns()
        if self._unified:
            cpu, stat = parse_flat(raw[0]), parse_flat(raw[2])
            usage = int(raw[1])
            return Sample(
                at_ns=now,
                cpu_ns=cpu.get(b"usage_usec", 0) * 1000,
                memory=usage,
                working_set=max(0, usage - stat.get(b"inactive_file", 0)),
                rss=stat.get(b"anon", 0),
                pids=int(raw[3]),
                page_faults=stat.get(b"pgfault", 0),
                major_page_faults=stat.get(b"pgmajfault", 0),
                oom_kills=parse_flat(raw[4]).get(b"oom_kill", 0),
                throttled=cpu.get(b"nr_throttled", 0),
                throttled_ns=cpu.get(b"throttled_usec", 0) * 1000,
            )
        stat, cpu = parse_flat(raw[2]), parse_flat(raw[5])
        usage = int(raw[1])
        return Sample(
            at_ns=now,
            cpu_ns=int(raw[0]),
            memory=usage,
            working_set=max(0, usage - stat.get(b"total_inactive_file", 0)),
            rss=stat.get(b"total_rss", 0),
            pids=int(raw[3]),
            page_faults=stat.get(b"total_pgfault", 0),
            major_page_faults=stat.get(b"total_pgmajfault", 0),
            oom_kills=parse_flat(raw[4]).get(b"oom_kill", 0),
            throttled=cpu.get(b"nr_throttled", 0),
            throttled_ns=cpu.get(b"throttled_time", 0),
        )


def parse_flat(raw: bytes) -> dict[bytes, int]:
    """A flat-keyed file (`name value` a line)."""
    words = raw.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=False))


def _read(path: str) -> str:
    with Path(path).open(encoding="ascii", errors="replace") as file:
        return file.read()


def _write(path: str, value: str) -> None:
    # One write(2): the kernel takes each as a command, and its errno belongs to this file.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {value!r}: {os.strerror(error.errno or 0)}", path) from error
    finally:
        os.close(fd)


def _try_write(path: str, value: str) -> bool:
    try:
        _write(path, value)
    except OSError:
        return False
    return True


def _tree(root: str) -> Iterator[str]:
    """`root` and every folder below it, parents first."""
    if os.path.isdir(root):
        for folder, _, _ in os.walk(root):
            yield folder
