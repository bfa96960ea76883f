"""A container runtime as tests talk to it: the real one as a process, or the fake, behind the same client."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from linux import mount, netns
from linux.cgroup import Cgroups
from linux.netlink import Netlink
from machinery.grpc import channel
from proto.cri.v1 import cri_pb2 as cri
from proto.cri.v1 import cri_pb2_grpc

REAL = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("conmon", "crun", "busybox"))),
    reason="needs root, conmon, crun and busybox",
)
CIDR = "10.99.7.0/24"
DEADLINE = 60.0
FOREVER = ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"]


async def poll(condition: Callable[[], bool]) -> None:
    """Wait for a condition, boundedly."""
    async with asyncio.timeout(DEADLINE):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


@dataclass
class Node:
    """A runtime under test."""

    runtime: cri_pb2_grpc.RuntimeServiceAsyncStub
    images: cri_pb2_grpc.ImageServiceAsyncStub
    folder: Path
    cgroup: str

    def pod(self, name: str = "", **options: cri.NamespaceMode.ValueType) -> cri.PodSandboxConfig:
        name = name or f"pod-{uuid.uuid4().hex[:6]}"
        modes = cri.NamespaceOption(**{"pid": cri.CONTAINER, **options})  # type: ignore[arg-type]
        return cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="default"),
            hostname=name,
            labels={"app": name},
            annotations={"note": "kept"},
            log_directory=str(self.folder / "logs" / name),
            linux=cri.LinuxPodSandboxConfig(
                cgroup_parent=f"/{self.cgroup}/{name}",
                security_context=cri.LinuxSandboxSecurityContext(namespace_options=modes),
            ),
        )

    def container(self, command: list[str], name: str = "main", attempt: int = 0) -> cri.ContainerConfig:
        return cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name, attempt=attempt),
            image=cri.ImageSpec(image="busybox"),
            command=command,
            labels={"name": name},
            log_path=f"{name}/{attempt}.log",
            linux=cri.LinuxContainerConfig(
                security_context=cri.LinuxContainerSecurityContext(
                    namespace_options=cri.NamespaceOption(pid=cri.CONTAINER)
                )
            ),
        )

    async def run(self, config: cri.PodSandboxConfig) -> str:
        return (await self.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config))).pod_sandbox_id

    async def create(self, sandbox: str, config: cri.ContainerConfig, pod: cri.PodSandboxConfig) -> str:
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox, config=config, sandbox_config=pod)
        return (await self.runtime.CreateContainer(request)).container_id

    async def start(self, container: str) -> None:
        await self.runtime.StartContainer(cri.StartContainerRequest(container_id=container))

    async def launch(self, command: list[str]) -> tuple[str, str]:
        pod = self.pod()
        sandbox = await self.run(pod)
        container = await self.create(sandbox, self.container(command), pod)
        await self.start(container)
        return sandbox, container

    async def status(self, container: str) -> cri.ContainerStatus:
        return (await self.runtime.ContainerStatus(cri.ContainerStatusRequest(container_id=container))).status

    async def until(self, container: str, state: cri.ContainerState.ValueType) -> cri.ContainerStatus:
        async with asyncio.timeout(DEADLINE):
            while True:
                found = await self.status(container)
                if found.state == state:
                    return found
                await asyncio.sleep(0.01)

    async def stop(self, container: str, timeout: int) -> None:
        await self.runtime.StopContainer(cri.StopContainerRequest(container_id=container, timeout=timeout))

    async def remove_pod(self, sandbox: str) -> None:
        await self.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))


def _address() -> None:
    with Netlink() as nl:
        nl.add_address("lo", "10.250.99.1", 32)


class RealRuntime:
    """The real runtime as a process in its own network namespace, with its folders; can be killed and restarted."""

    def __init__(self, folder: Path, cgroup: str, *extra: str) -> None:
        self.folder = folder
        self.cgroup = cgroup
        self.address = f"unix:{folder}/cri.sock"
        self.netns = str(folder / "netns")
        self._extra = extra
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start (again)."""
        if not netns.is_pinned(self.netns):
            netns.create(self.netns)
            netns.run_in(self.netns, _address)  # a machine has one; replies to pods need a source
        program = (
            "import sys; from linux import netns; netns.enter(sys.argv[1]); "
            "from runtime.app import main; sys.exit(main(sys.argv[2:]))"
        )
        arguments = [
            "--listen", self.address, "--root", str(self.folder / "root"), "--state", str(self.folder / "state"),
            "--image-store", str(self.folder / "images"), "--node", "contract", "--cgroup-parent", self.cgroup,
            "--log-level", "warning", *self._extra,
        ]  # fmt: skip
        self.process = subprocess.Popen([sys.executable, "-c", program, self.netns, *arguments])

    def kill(self) -> None:
        """SIGKILL the runtime, and nothing else."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """SIGTERM the runtime; its exit code."""
        if self.process is None:
            return 0
        self.process.terminate()
        return self.process.wait(20)

    def purge(self) -> None:
        """Stop, and remove everything that it made."""
        self.stop()
        groups = Cgroups()
        groups.kill(self.cgroup)
        groups.remove(self.cgroup)
        mount.unmount_below(str(self.folder))
        netns.delete(self.netns)


@asynccontextmanager
async def real_runtime(folder: Path, cgroup: str) -> AsyncIterator[str]:
    """The real runtime's address; everything it made is gone afterwards."""
    runtime = RealRuntime(folder, cgroup)
    await asyncio.to_thread(runtime.start)
    try:
        yield runtime.address
    finally:
        await asyncio.to_thread(runtime.purge)


@asynccontextmanager
async def connected(address: str, folder: Path, cgroup: str) -> AsyncIterator[Node]:
    """A client of a runtime, configured and ready; its sandboxes are removed at the end."""
    connection = channel(address)
    made = Node(cri_pb2_grpc.RuntimeServiceStub(connection), cri_pb2_grpc.ImageServiceStub(connection), folder, cgroup)
    await made.runtime.Version(cri.VersionRequest(), wait_for_ready=True, timeout=DEADLINE)
    config = cri.RuntimeConfig(network_config=cri.NetworkConfig(pod_cidr=CIDR))
    await made.runtime.UpdateRuntimeConfig(cri.UpdateRuntimeConfigRequest(runtime_config=config))
    try:
        yield made
        for sandbox in (await made.runtime.ListPodSandbox(cri.ListPodSandboxRequest())).items:
            await made.remove_pod(sandbox.id)
    finally:
        await connection.close()
