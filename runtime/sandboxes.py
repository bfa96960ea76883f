"""The life of pod sandboxes: namespaces, address, the pod's files, and their end.

Owns sandbox records and kernel objects; containers are `runtime.containers`'. There is no pause process: namespaces are
pinned by mounts, except a shared pid namespace, which only a process can hold (the engine runs a small init for that).
Called by the gRPC door.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from linux import mount, netns
from linux.cgroup import Cgroups
from machinery.log import get, kv
from proto.cri.v1 import cri_pb2 as cri
from runtime import records
from runtime.faults import AlreadyThere, BadConfig, UnknownId
from runtime.network import PodNetwork, check_sysctls, network_link
from runtime.records import SandboxRecord
from runtime.spec import SandboxView

log = get("runtime.sandboxes")
_SHM = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC


@dataclass
class Sandbox:
    """A sandbox in memory: its record, its config, and a lock that orders its verbs."""

    record: SandboxRecord
    config: cri.PodSandboxConfig
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def namespaces(self) -> cri.NamespaceOption:
        """The namespace modes asked for."""
        return self.config.linux.security_context.namespace_options

    def describe(self) -> str:
        """The pod, as users name it."""
        return f"{self.config.metadata.namespace}/{self.config.metadata.name}"


def plan_resolv_conf(dns: cri.DNSConfig) -> str:
    """/etc/resolv.conf from the CRI's DNS config. Pure."""
    lines = []
    if dns.searches:
        lines.append("search " + " ".join(dns.searches))
    lines += [f"nameserver {server}" for server in dns.servers]
    if dns.options:
        lines.append("options " + " ".join(dns.options))
    return "".join(line + "\n" for line in lines)


def plan_hosts(hostname: str, address: str) -> str:
    """/etc/hosts for a pod whose kubelet brings none. Pure."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    if address:
        lines.append(f"{address}\t{hostname}")
    return "".join(line + "\n" for line in lines)


def check_config(config: cri.PodSandboxConfig) -> None:
    """Raise BadConfig for a sandbox that cannot be."""
    if not config.HasField("metadata") or not config.metadata.name or not config.metadata.uid:
        raise BadConfig("sandbox config must include metadata with name and uid")
    options = config.linux.security_context.namespace_options
    if options.userns_options.mode == cri.POD and options.HasField("userns_options"):
        raise BadConfig("user namespaces are not supported by this runtime")
    if ".." in config.linux.cgroup_parent.split("/"):
        raise BadConfig("cgroup parent must not point upwards")
    check_sysctls(config.linux.sysctls, host_network=options.network == cri.NODE)


class Sandboxes:
    """All sandboxes of a node."""

    def __init__(
        self, root: Path, state: Path, network: PodNetwork, cgroups: Cgroups, *, node: str, cgroup_parent: str
    ) -> None:
        self._root = root / "sandboxes"
        self._state = state / "sandboxes"
        for folder in (self._root, self._state):
            folder.mkdir(parents=True, exist_ok=True)
        self._network = network
        self._cgroups = cgroups
        self._node = node
        self._cgroup_parent = cgroup_parent
        self._all: dict[str, Sandbox] = {}

    # reading

    def get(self, identity: str) -> Sandbox:
        """The sandbox with this id (or unambiguous prefix). Raises UnknownId."""
        found = self._all.get(identity)
        if found is not None:
            return found
        matches = [each for key, each in self._all.items() if identity and key.startswith(identity)]
        if len(matches) != 1:
            raise UnknownId(f'could not find sandbox "{identity}": not found')
        return matches[0]

    def find(self, identity: str) -> Sandbox | None:
        """The sandbox, or None."""
        try:
            return self.get(identity)
        except UnknownId:
            return None

    def listed(self) -> list[Sandbox]:
        """All sandboxes."""
        return list(self._all.values())

    def pins(self, sandbox: Sandbox) -> dict[str, str]:
        """Paths of the namespaces this sandbox has of its own, by kind."""
        folder = self._state / sandbox.record.id / "ns"
        options = sandbox.namespaces
        kinds = ["uts"]
        if options.network != cri.NODE:
            kinds.append("net")
        if options.ipc != cri.NODE:
            kinds.append("ipc")
        return {kind: str(folder / kind) for kind in kinds}

    def view(self, sandbox: Sandbox) -> SandboxView:
        """What a container's configuration needs of its sandbox."""
        pins = self.pins(sandbox)
        files = self._root / sandbox.record.id
        offered = {"/etc/hostname": files / "hostname", "/etc/hosts": files / "hosts"}
        if (files / "resolv.conf").exists():
            offered["/etc/resolv.conf"] = files / "resolv.conf"
        return SandboxView(
            hostname=self.hostname(sandbox.config),
            cgroup_parent=sandbox.record.cgroup_parent,
            netns=pins.get("net", ""),
            ipcns=pins.get("ipc", ""),
            utsns=pins["uts"],
            shm=str(self._state / sandbox.record.id / "shm") if "ipc" in pins else "/dev/shm",
            files={destination: str(source) for destination, source in offered.items()},
        )

    def hostname(self, config: cri.PodSandboxConfig) -> str:
        """The pod's host name, or the node's."""
        return config.hostname or self._node

    # life

    async def run(self, config: cri.PodSandboxConfig, handler: str) -> Sandbox:
        """Make a sandbox ready. All or nothing."""
        check_config(config)
        meta = config.metadata
        for other in self._all.values():
            known = other.config.metadata
            if (known.uid, known.attempt, known.name) == (meta.uid, meta.attempt, meta.name):
                raise AlreadyThere(f"sandbox of pod {meta.namespace}/{meta.name} attempt {meta.attempt} exists")
        host_network = config.linux.security_context.namespace_options.network == cri.NODE
        identity = records.next_free(set(self._all), 32)
        sandbox = Sandbox(
            SandboxRecord(
                id=identity,
                created_at=time.time_ns(),
                host_network=host_network,
                link="" if host_network else network_link(identity),
                cgroup_parent=(config.linux.cgroup_parent or f"{self._cgroup_parent}/pod{meta.uid}").strip("/"),
                handler=handler,
            ),
            config,
        )
        self._all[sandbox.record.id] = sandbox  # reserves the identity while the thread works
        try:
            async with sandbox.lock:
                await asyncio.to_thread(self._create, sandbox)
                sandbox.record.ready = True
                self.save(sandbox)
        except BaseException:
            self._all.pop(sandbox.record.id, None)
            await asyncio.shield(asyncio.to_thread(self._destroy, sandbox))
            raise
        log.info("Ran sandbox", extra=kv(pod=sandbox.describe(), ip=sandbox.record.ip, id=sandbox.record.id[:12]))
        return sandbox

    def _create(self, sandbox: Sandbox) -> None:
        record, config = sandbox.record, sandbox.config
        folder = self._root / record.id
        folder.mkdir()
        (folder / "config.pb").write_bytes(config.SerializeToString())
        records.save(folder, record)  # before any kernel object: a crash in between must leave a trace to clean by
        if config.log_directory:
            Path(config.log_directory).mkdir(parents=True, exist_ok=True)
        self._cgroups.create(record.cgroup_parent)
        hostname = self.hostname(config)
        record.ip = self._network.create(
            record.id,
            record.link,
            self.pins(sandbox),
            hostname=hostname,
            host_network=record.host_network,
            sysctls=config.linux.sysctls,
        )
        if sandbox.namespaces.ipc != cri.NODE:
            shm = self._state / record.id / "shm"
            shm.mkdir(parents=True, exist_ok=True)
            mount.tmpfs(str(shm), size="65536k", mode=0o1777, flags=_SHM)
        (folder / "hostname").write_text(hostname + "\n")
        hosts = plan_hosts(hostname, record.ip)
        if record.host_network:
            with suppress(FileNotFoundError):  # a minimal machine need not have one
                hosts = Path("/etc/hosts").read_text()
        (folder / "hosts").write_text(hosts)
        resolv = plan_resolv_conf(config.dns_config)
        if not resolv:
            with suppress(OSError):
                resolv = Path("/etc/resolv.conf").read_text()
        (folder / "resolv.conf").write_text(resolv)

    async def stop(self, sandbox: Sandbox) -> None:
        """Give back the network and the namespaces; its containers must be dead. Idempotent."""
        async with sandbox.lock:
            if not sandbox.record.ready and not self.pinned(sandbox):
                return
            await asyncio.to_thread(self._release, sandbox)
            sandbox.record.ready = False
            if sandbox.record.id in self._all:
                self.save(sandbox)
        log.info("Stopped sandbox", extra=kv(pod=sandbox.describe(), id=sandbox.record.id[:12]))

    def pinned(self, sandbox: Sandbox) -> bool:
        """Whether its namespaces are there."""
        return all(netns.is_pinned(path) for path in self.pins(sandbox).values())

    def _release(self, sandbox: Sandbox) -> None:
        record = sandbox.record
        if not record.host_network:
            self._network.release(record.id, record.ip, record.link)
        for path in self.pins(sandbox).values():
            netns.delete(path)
        mount.unmount_below(str(self._state / record.id))

    async def remove(self, sandbox: Sandbox) -> None:
        """Forget a stopped sandbox."""
        async with sandbox.lock:
            await asyncio.to_thread(self._destroy, sandbox)
            self._all.pop(sandbox.record.id, None)

    def _destroy(self, sandbox: Sandbox) -> None:
        self._release(sandbox)
        with suppress(OSError):  # the kubelet's to remove; ours to try
            self._cgroups.try_remove(sandbox.record.cgroup_parent)
        shutil.rmtree(self._state / sandbox.record.id, ignore_errors=True)
        shutil.rmtree(self._root / sandbox.record.id, ignore_errors=True)

    def save(self, sandbox: Sandbox) -> None:
        """Write the record down."""
        records.save(self._root / sandbox.record.id, sandbox.record)

    # after a restart

    def adopt(self, *, rebooted: bool) -> None:
        """Take over what an earlier process left. Blocking, once at start."""
        for folder, record, config in records.load_all(self._root, SandboxRecord):
            if record is None:
                log.warning("Discarded half-made sandbox", extra=kv(id=folder.name[:12]))
                mount.unmount_below(str(self._state / folder.name))
                shutil.rmtree(self._state / folder.name, ignore_errors=True)
                shutil.rmtree(folder, ignore_errors=True)
                continue
            sandbox = Sandbox(record, cri.PodSandboxConfig.FromString(config))
            self._all[record.id] = sandbox
            if record.ready and (rebooted or not self.pinned(sandbox) or not self._reconnect(sandbox)):
                record.ready = False
                self.save(sandbox)
            if not record.ready:
                self._release(sandbox)

    def _reconnect(self, sandbox: Sandbox) -> bool:
        record = sandbox.record
        return record.host_network or self._network.adopt(record.id, record.ip, record.link)

    def lose(self, sandbox: Sandbox) -> None:
        """Note that the sandbox is no longer usable; its kernel objects stay until it is stopped."""
        if sandbox.record.ready:
            sandbox.record.ready = False
            self.save(sandbox)
