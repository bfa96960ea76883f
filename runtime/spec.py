"""OCI runtime configuration of a container, from what the kubelet asked, the image says and the machine allows.

Pure: no file is read or written here. Called when a container is created; the result becomes `config.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from linux.probe import CAPABILITIES
from proto.cri.v1 import cri_pb2 as cri
from runtime.faults import BadConfig
from runtime.images.store import ImageConfig
from runtime.users import User

DEFAULT_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)  # fmt: skip
MASKED = (
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2))
_PROPAGATION = {
    cri.PROPAGATION_PRIVATE: "rprivate",
    cri.PROPAGATION_HOST_TO_CONTAINER: "rslave",
    cri.PROPAGATION_BIDIRECTIONAL: "rshared",
}


@dataclass(frozen=True)
class SandboxView:
    """What of its sandbox a container needs."""

    hostname: str
    cgroup_parent: str
    netns: str = ""  # empty: the machine's own
    ipcns: str = ""
    utsns: str = ""
    pidns: str = ""  # only when shared
    shm: str = ""
    files: Mapping[str, str] = field(default_factory=dict)  # destination → source of /etc files


@dataclass(frozen=True)
class DeviceNode:
    """A device as it appears in a container."""

    path: str
    kind: str  # c or b
    major: int
    minor: int
    mode: int
    access: str = "rwm"


@dataclass(frozen=True)
class Ability:
    """What of a machine a container's configuration depends on."""

    capabilities: frozenset[str]
    unified: bool
    swap_accounting: bool
    oom_score_adj: int = 0  # our own: without SYS_RESOURCE nobody may go below it
    devices: tuple[DeviceNode, ...] = ()  # of the machine, for privileged containers


def plan_args(config: cri.ContainerConfig, image: ImageConfig) -> list[str]:
    """The process's argv by Kubernetes' rules: command replaces ENTRYPOINT and drops CMD, args replace CMD."""
    if config.command:
        args = [*config.command, *config.args]
    elif config.args:
        args = [*image.entrypoint, *config.args]
    else:
        args = [*image.entrypoint, *image.cmd]
    if not args:
        raise BadConfig("no command specified")
    return args


def plan_env(config: cri.ContainerConfig, image: ImageConfig, hostname: str) -> list[str]:
    """The environment: image first, then the request."""
    env = dict(entry.partition("=")[::2] for entry in [PATH, f"HOSTNAME={hostname}", *image.env])
    if config.tty:
        env["TERM"] = "xterm"
    for entry in config.envs:
        env[entry.key] = entry.value
    return [f"{key}={value}" for key, value in env.items()]


def plan_capabilities(
    security: cri.LinuxContainerSecurityContext, allowed: frozenset[str]
) -> tuple[list[str], list[str]]:
    """(granted, ambient) capabilities with their CAP_ prefix. What this machine lacks is left out."""
    if security.privileged:
        return _caps(set(CAPABILITIES) & allowed), []
    wanted = set(DEFAULT_CAPABILITIES)
    add = [_bare(name) for name in security.capabilities.add_capabilities]
    ambient = [_bare(name) for name in security.capabilities.add_ambient_capabilities]
    drop = [_bare(name) for name in security.capabilities.drop_capabilities]
    unknown = [name for name in (*add, *drop, *ambient) if name != "ALL" and name not in CAPABILITIES]
    if unknown:
        raise BadConfig(f"unknown capability: CAP_{unknown[0]}")
    if "ALL" in add:
        wanted = set(CAPABILITIES)
    if "ALL" in drop:
        wanted = set()
    wanted |= {name for name in (*add, *ambient) if name != "ALL"}
    wanted -= set(drop)
    return _caps(wanted & allowed), _caps(set(ambient) & wanted & allowed)


def _bare(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def _caps(names: set[str]) -> list[str]:
    return [f"CAP_{name}" for name in CAPABILITIES if name in names]


def plan_mounts(
    mounts: Sequence[cri.Mount], sandbox: SandboxView, *, privileged: bool
) -> tuple[list[dict[str, Any]], str]:
    """(OCI mounts, root propagation): the standard ones, the pod's files, then the request's, parents first."""
    writable = "rw" if privileged else "ro"
    sys_options = ["nosuid", "noexec", "nodev", writable]
    found: list[dict[str, Any]] = [
        _mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        _mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
        _mount("/sys", "sysfs", "sysfs", sys_options),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", writable]),
    ]
    asked = {mount.container_path.rstrip("/") or "/": mount for mount in mounts}
    if "/" in asked:
        raise BadConfig("a mount must not cover the root of the container")
    if sandbox.shm and "/dev/shm" not in asked:
        found.append(_mount("/dev/shm", "bind", sandbox.shm, ["rbind", "nosuid", "noexec", "nodev"]))
    for destination, source in sandbox.files.items():
        if destination not in asked:
            found.append(_mount(destination, "bind", source, ["rbind", "rprivate", "rw"]))
    modes = {mount.propagation for mount in mounts}
    for destination in sorted(asked, key=lambda path: (path.count("/"), path)):
        mount = asked[destination]
        access = "rro" if mount.recursive_read_only else "ro" if mount.readonly else "rw"
        options = ["rbind", _PROPAGATION.get(mount.propagation, "rprivate"), access]
        found = [entry for entry in found if entry["destination"] != destination]
        found.append(_mount(destination, "bind", mount.host_path, options))
    if cri.PROPAGATION_BIDIRECTIONAL in modes:
        return found, "rshared"
    return found, "rslave" if cri.PROPAGATION_HOST_TO_CONTAINER in modes else "rprivate"


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def plan_resources(
    resources: cri.LinuxContainerResources, ability: Ability, devices: Sequence[DeviceNode], *, privileged: bool
) -> dict[str, Any]:
    """OCI resources."""
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    if privileged:
        rules = [{"allow": True, "access": "rwm"}]
    else:
        rules += [
            {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"} for major, minor in _DEVICES
        ]
        rules.append({"allow": True, "type": "c", "major": 136, "access": "rwm"})
        rules += [
            {"allow": True, "type": each.kind, "major": each.major, "minor": each.minor, "access": each.access}
            for each in devices
        ]
    planned: dict[str, Any] = {"devices": rules}
    cpu: dict[str, Any] = {}
    if resources.cpu_quota:
        cpu |= {"quota": resources.cpu_quota, "period": resources.cpu_period or 100000}
    if resources.cpu_shares:
        cpu["shares"] = resources.cpu_shares
    if resources.cpuset_cpus:
        cpu["cpus"] = resources.cpuset_cpus
    if resources.cpuset_mems:
        cpu["mems"] = resources.cpuset_mems
    if cpu:
        planned["cpu"] = cpu
    if resources.memory_limit_in_bytes > 0:
        memory = {"limit": resources.memory_limit_in_bytes}
        if ability.swap_accounting:
            memory["swap"] = resources.memory_swap_limit_in_bytes or resources.memory_limit_in_bytes
        planned["memory"] = memory
    if ability.unified:
        # As the kubelet asks for on v2: an out-of-memory kill takes the whole container, not one process of it.
        planned["unified"] = {"memory.oom.group": "1", **resources.unified}
    if resources.hugepage_limits:
        planned["hugepageLimits"] = [
            {"pageSize": limit.page_size, "limit": limit.limit} for limit in resources.hugepage_limits if limit.limit
        ]
    return planned


def build(
    config: cri.ContainerConfig,
    *,
    identity: str,
    image: ImageConfig,
    sandbox: SandboxView,
    user: User,
    ability: Ability,
    devices: Sequence[DeviceNode] = (),
) -> dict[str, Any]:
    """The whole `config.json`. Raises BadConfig."""
    security = config.linux.security_context
    privileged = security.privileged
    options = security.namespace_options
    granted, ambient = plan_capabilities(security, ability.capabilities)
    mounts, propagation = plan_mounts(config.mounts, sandbox, privileged=privileged)
    # Docker's rule, which images rely on: an unprivileged user holds no capability until it gains one.
    held = granted if user.uid == 0 else ambient
    process: dict[str, Any] = {
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": plan_args(config, image),
        "env": plan_env(config, image, sandbox.hostname),
        "cwd": config.working_dir or image.working_dir or "/",
        "capabilities": {
            "bounding": granted,
            "effective": held,
            "permitted": held,
            "inheritable": ambient,
            "ambient": ambient,
        },
        "noNewPrivileges": security.no_new_privs,
    }
    adjust = config.linux.resources.oom_score_adj
    if adjust and (adjust >= ability.oom_score_adj or "SYS_RESOURCE" in ability.capabilities):
        process["oomScoreAdj"] = max(-1000, min(1000, adjust))
    namespaces: list[dict[str, str]] = [{"type": "mount"}]
    if sandbox.pidns:
        namespaces.append({"type": "pid", "path": sandbox.pidns})
    elif options.pid != cri.NODE:
        namespaces.append({"type": "pid"})
    for kind, path in (("network", sandbox.netns), ("ipc", sandbox.ipcns), ("uts", sandbox.utsns)):
        if path:
            namespaces.append({"type": kind, "path": path})
    if ability.unified:
        namespaces.append({"type": "cgroup"})
    resources = plan_resources(config.linux.resources, ability, devices, privileged=privileged)
    linux: dict[str, Any] = {
        "namespaces": namespaces,
        "resources": resources,
        "cgroupsPath": f"/{sandbox.cgroup_parent.strip('/')}/{identity}",
        "rootfsPropagation": propagation,
    }
    given = {each.path: each for each in (*(ability.devices if privileged else ()), *devices)}
    if given:
        linux["devices"] = [
            {"path": each.path, "type": each.kind, "major": each.major, "minor": each.minor, "fileMode": each.mode}
            for each in given.values()
        ]
    if not privileged:
        linux["maskedPaths"] = list(security.masked_paths or MASKED)
        linux["readonlyPaths"] = list(security.readonly_paths or READONLY)
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs", "readonly": security.readonly_rootfs},
        "mounts": mounts,
        "linux": linux,
    }


def encode(spec: dict[str, Any]) -> bytes:
    """As `config.json`."""
    return json.dumps(spec, separators=(",", ":")).encode()
