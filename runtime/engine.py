"""Sandboxes and containers together: the verbs of the CRI that concern both, events, start and adoption.

Owns the wiring of one node's runtime. Called by the gRPC doors and by tests; knows nothing of gRPC.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from linux import probe
from linux.cgroup import Cgroups
from machinery.log import get, kv
from proto.cri.v1 import cri_pb2 as cri
from runtime import statuses
from runtime.conmon import Crun
from runtime.container_plans import device_node
from runtime.containers import Container, Containers
from runtime.events import Events
from runtime.faults import UnknownId, WrongState
from runtime.host_ports import HostPorts, plan_host_ports
from runtime.images import busybox
from runtime.images.store import ContentStore
from runtime.images.table import ImageTable
from runtime.network import PodNetwork
from runtime.orphans import adopt_orphans
from runtime.records import RUNNING, boot_id, write_atomically
from runtime.sandboxes import Sandbox, Sandboxes
from runtime.spec import Ability, DeviceNode, SandboxView

log = get("runtime")
INFRA = "POD"  # name of the internal container that holds a shared pid namespace


@dataclass(frozen=True)
class Settings:
    """Where a node's runtime keeps what, and what it may use."""

    root: Path
    state: Path
    image_store: Path
    node: str
    cgroup_parent: str
    node_ip: str = ""
    host_netns: str = ""
    insecure_registries: tuple[str, ...] = ()
    parallel: int = 0  # container starts at a time; 0: by number of CPUs


def find_ability(cgroups: Cgroups) -> Ability:
    """Ask the machine what containers may have."""
    machine = probe.probe()
    if cgroups.layout.unified:
        swap = any(Path(str(cgroups.layout.v2)).glob("*/memory.swap.max"))
    else:
        swap = Path(cgroups.layout.v1.get("memory", "/nonexistent"), "memory.memsw.limit_in_bytes").exists()
    own = 0
    with suppress(OSError, ValueError):
        own = int(Path("/proc/self/oom_score_adj").read_text())
    return Ability(machine.capabilities, cgroups.layout.unified, swap, own, _devices())


def _devices() -> tuple[DeviceNode, ...]:
    """Device nodes of the machine, for privileged containers; terminals and what every container has left out."""
    skip = {"pts", "shm", "mqueue", "console", "ptmx", "null", "zero", "full", "random", "urandom"}
    paths = [path for path in Path("/dev").iterdir() if path.name not in skip and not path.name.startswith("tty")]
    return tuple(each for path in sorted(paths) if (each := device_node(path, str(path))) is not None)


class Engine:
    """One node's runtime."""

    def __init__(self, settings: Settings) -> None:
        for folder in (settings.root, settings.state, settings.image_store):
            folder.mkdir(parents=True, exist_ok=True)
        self.settings = settings
        self.cgroups = Cgroups()
        self.events = Events()
        self.store = ContentStore(settings.image_store)
        self.images = ImageTable(self.store, settings.root / "images.json", settings.node)
        self.network = PodNetwork(settings.root / "network.json", settings.node_ip)
        self.crun = Crun(settings.state, self.cgroups.layout)
        self.ability = find_ability(self.cgroups)
        self.sandboxes = Sandboxes(
            settings.root,
            settings.state,
            self.network,
            self.cgroups,
            node=settings.node,
            cgroup_parent=settings.cgroup_parent,
        )
        self.host_ports = HostPorts()
        self.containers = Containers(
            settings.root,
            self.crun,
            self.cgroups,
            self.images,
            self.ability,
            publish=self._publish,
            parallel=settings.parallel or 2 * (os.cpu_count() or 1),
        )

    def open(self) -> None:
        """Make the built-in image, adopt what an earlier process left. Blocking, once."""
        adopt_orphans()
        busybox.ensure(self.store)
        marker = self.settings.root / "boot_id"
        rebooted = marker.exists() and marker.read_text() != boot_id()
        write_atomically(marker, boot_id().encode())
        self.network.open()
        self.sandboxes.adopt(rebooted=rebooted)
        self.containers.adopt(rebooted=rebooted)
        for sandbox in self.sandboxes.listed():
            if sandbox.record.ready:
                ports = plan_host_ports(sandbox.record.ip, sandbox.config.port_mappings)
                self.host_ports.adopt(sandbox.record.id, ports)
        log.info(
            "Opened runtime",
            extra=kv(
                node=self.settings.node,
                sandboxes=len(self.sandboxes.listed()),
                containers=len(self.containers.listed()),
                cgroups=self.cgroups.layout.mode,
            ),
        )
        if "SYS_RESOURCE" not in self.ability.capabilities:
            log.warning("This machine allows no CAP_SYS_RESOURCE: negative oom_score_adj is not applied")

    async def run(self, stop: asyncio.Event) -> None:
        """Watch containers until `stop`; they live on afterwards."""
        async with asyncio.TaskGroup() as tasks:
            self.containers.serve(tasks)
            await stop.wait()
            self.events.close()
            for task in asyncio.all_tasks():
                if task.get_name().startswith(("watch ", "clean ")):
                    task.cancel()
        self.network.close()

    def _publish(self, container: Container, kind: cri.ContainerEventType.ValueType) -> None:
        sandbox = self.sandboxes.find(container.record.sandbox_id)
        if container.record.internal:
            if kind == cri.CONTAINER_STOPPED_EVENT and sandbox is not None:
                self.sandboxes.lose(sandbox)  # its pid namespace died with this container
            return
        if not self.events.wanted:
            return
        self.events.publish(
            cri.ContainerEventResponse(
                container_id=container.record.id,
                container_event_type=kind,
                created_at=time.time_ns(),
                pod_sandbox_status=statuses.sandbox_status(sandbox) if sandbox else None,
                containers_statuses=self.container_statuses(container.record.sandbox_id),
            )
        )

    def container_statuses(self, sandbox_id: str) -> list[cri.ContainerStatus]:
        """Statuses of a sandbox's containers."""
        return [
            statuses.container_status(each)
            for each in self.containers.of_sandbox(sandbox_id)
            if not each.record.internal
        ]

    # verbs that concern both

    async def run_sandbox(self, config: cri.PodSandboxConfig, handler: str) -> Sandbox:
        """Make a sandbox ready, with a process to hold its pid namespace if that is shared."""
        sandbox = await self.sandboxes.run(config, handler)
        try:
            await self.host_ports.add(sandbox.record.id, plan_host_ports(sandbox.record.ip, config.port_mappings))
            if sandbox.config.HasField("linux") and self._shares_pids(sandbox):
                await self._start_infra(sandbox)
        except BaseException:
            await asyncio.shield(self.remove_sandbox(sandbox.record.id))
            raise
        return sandbox

    @staticmethod
    def _shares_pids(sandbox: Sandbox) -> bool:
        security = sandbox.config.linux.security_context
        return security.HasField("namespace_options") and security.namespace_options.pid == cri.POD

    async def _start_infra(self, sandbox: Sandbox) -> None:
        """BusyBox's init, idle: it holds the pid namespace and reaps what the pod's processes leave behind."""
        inittab = self.settings.root / "inittab"
        inittab.write_text("::sysinit:/bin/true\n")
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=INFRA),
            image=cri.ImageSpec(image=busybox.NAME),
            command=["/bin/busybox", "init"],
            mounts=[cri.Mount(container_path="/etc/inittab", host_path=str(inittab), readonly=True)],
        )
        view = self.sandboxes.view(sandbox)
        infra = await self.containers.create(config, sandbox.config, sandbox.record.id, view, internal=True)
        await self.containers.start(infra)
        sandbox.record.pause_id = infra.record.id
        self.sandboxes.save(sandbox)

    async def stop_sandbox(self, identity: str) -> None:
        """Kill what runs in the sandbox and give back its network. Idempotent."""
        sandbox = self.sandboxes.find(identity)
        if sandbox is None:
            return
        async with asyncio.TaskGroup() as tasks:
            for container in self.containers.of_sandbox(sandbox.record.id):
                tasks.create_task(self.containers.stop(container, 0))
        await self.host_ports.remove(sandbox.record.id)
        await self.sandboxes.stop(sandbox)

    async def remove_sandbox(self, identity: str) -> None:
        """Stop and forget the sandbox and its containers. Idempotent."""
        sandbox = self.sandboxes.find(identity)
        if sandbox is None:
            return
        await self.stop_sandbox(sandbox.record.id)
        async with asyncio.TaskGroup() as tasks:
            for container in self.containers.of_sandbox(sandbox.record.id):
                tasks.create_task(self.containers.remove(container))
        await self.sandboxes.remove(sandbox)

    async def create_container(self, sandbox_id: str, config: cri.ContainerConfig) -> Container:
        """Prepare a container in a ready sandbox."""
        sandbox = self.sandboxes.get(sandbox_id)
        if not sandbox.record.ready:
            raise WrongState(f'sandbox "{sandbox_id}" is not ready')
        view = self._with_pids(sandbox, config, self.sandboxes.view(sandbox))
        return await self.containers.create(config, sandbox.config, sandbox.record.id, view)

    def _with_pids(self, sandbox: Sandbox, config: cri.ContainerConfig, view: SandboxView) -> SandboxView:
        options = config.linux.security_context.namespace_options
        if options.pid == cri.TARGET:
            target = self.containers.get(options.target_id)
            if target.record.sandbox_id != sandbox.record.id:
                raise UnknownId(f'target container "{options.target_id}" is in another sandbox')
            return replace(view, pidns=self._pidns(target))
        if sandbox.record.pause_id and options.pid == cri.POD:
            return replace(view, pidns=self._pidns(self.containers.get(sandbox.record.pause_id)))
        return view

    @staticmethod
    def _pidns(container: Container) -> str:
        if container.record.state != RUNNING:
            raise WrongState(f'container "{container.record.id}" that holds the pid namespace is not running')
        return f"/proc/{container.record.pid}/ns/pid"

    def sandbox_info(self, sandbox: Sandbox) -> dict[str, str]:
        """Verbose information."""
        pins = self.sandboxes.pins(sandbox)
        pause = self.containers.find(sandbox.record.pause_id) if sandbox.record.pause_id else None
        return {
            "netns": json.dumps(pins.get("net", "")),
            "pid": json.dumps(pause.record.pid if pause else 0),
            "link": json.dumps(sandbox.record.link),
        }

    def container_info(self, container: Container) -> dict[str, str]:
        """Verbose information."""
        return {
            "pid": json.dumps(container.record.pid),
            "cgroup": json.dumps(container.record.cgroup),
            "rootfs": json.dumps(str(self.containers.rootfs(container))),
        }
