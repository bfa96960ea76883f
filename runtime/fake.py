"""A container runtime in memory: the same CRI services as the real one, nothing behind them.

For tests of callers. Chosen explicitly, never a fallback; `Version` says `nanokube-fake`. The contract suite holds it
to the real one's behaviour.
Over 500 lines because the CRI has that many verbs, each of a few lines. What a container does follows from its command:

| command | behaviour |
|---|---|
| first word starts with `nosuch` | StartContainer fails, StartError 128 |
| `… exit N` as the last words | exits with N right after its start |
| contains `trap 'exit N' TERM` | runs; exits with N when stopped |
| anything else | runs; 137 when stopped |

Knobs: `finish`, `oom`, `lose`, `fail_next`, `hold`, `add_image`, `exec_results`, `usage`, `write_log`, and `stream_url`
(what Exec, Attach and PortForward answer); `calls` records the verbs.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from proto.cri.v1 import cri_pb2 as cri
from proto.cri.v1 import cri_pb2_grpc
from runtime.door import Context, verb
from runtime.events import Events
from runtime.fake_images import FakeImages
from runtime.faults import AlreadyThere, BadConfig, RuntimeFault, UnknownId, WrongState
from runtime.images.reference import shown_name

_EXITS = re.compile(r"(?:^|[\s;])exit (\d+)\s*$")
_TRAPS = re.compile(r"trap ['\"]exit (\d+)['\"] TERM")


@dataclass
class FakeSandbox:
    """A sandbox."""

    status: cri.PodSandboxStatus
    config: cri.PodSandboxConfig


@dataclass
class FakeContainer:
    """A container."""

    status: cri.ContainerStatus
    config: cri.ContainerConfig
    sandbox_id: str
    stop_code: int = 137


@dataclass
class FakeRuntime(FakeImages, cri_pb2_grpc.RuntimeServiceServicer):
    """Both CRI services."""

    sandboxes: dict[str, FakeSandbox] = field(default_factory=dict)
    containers: dict[str, FakeContainer] = field(default_factory=dict)
    exec_results: Callable[[str, list[str]], tuple[int, bytes, bytes]] = lambda container, cmd: (0, b"", b"")
    usage: dict[str, tuple[int, int]] = field(default_factory=dict)  # container name → (nano cores, bytes)
    pod_cidr: str = ""
    stream_url: str = "http://127.0.0.1:1/exec/fake"
    _events: Events = field(default_factory=Events)
    _next_ip: int = 2

    # knobs

    def finish(self, container_id: str, code: int = 0, reason: str = "") -> None:
        """End a running container."""
        container = self.containers[container_id]
        if container.status.state == cri.CONTAINER_EXITED:
            return
        container.status.state = cri.CONTAINER_EXITED
        container.status.exit_code = code
        container.status.finished_at = time.time_ns()
        container.status.reason = reason or ("Completed" if code == 0 else "Error")
        self._publish(container, cri.CONTAINER_STOPPED_EVENT)

    def oom(self, container_id: str) -> None:
        """End a running container as the out-of-memory killer does."""
        self.finish(container_id, 137, "OOMKilled")

    def lose(self, container_id: str) -> None:
        """End a running container whose monitor died."""
        self.finish(container_id, 137, "ContainerStatusUnknown")

    def write_log(self, container_id: str, text: str, stream: str = "stdout") -> None:
        """Append lines to the container's log file in the CRI's format."""
        path = Path(self.containers[container_id].status.log_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000+00:00")
        with path.open("a") as file:
            file.writelines(f"{stamp} {stream} F {line}\n" for line in text.splitlines())

    @asynccontextmanager
    async def serve(self, address: str) -> AsyncIterator[str]:
        """Serve on `unix:PATH` for the duration of the block."""
        from machinery.grpc import add_port, server

        serving = server()
        cri_pb2_grpc.add_RuntimeServiceServicer_to_server(self, serving)
        cri_pb2_grpc.add_ImageServiceServicer_to_server(self, serving)
        add_port(serving, address)
        await serving.start()
        try:
            yield address
        finally:
            self._events.close()
            await serving.stop(0.1)

    def _publish(self, container: FakeContainer, kind: cri.ContainerEventType.ValueType) -> None:
        sandbox = self.sandboxes.get(container.sandbox_id)
        self._events.publish(
            cri.ContainerEventResponse(
                container_id=container.status.id,
                container_event_type=kind,
                created_at=time.time_ns(),
                pod_sandbox_status=sandbox.status if sandbox else None,
                containers_statuses=self._statuses(container.sandbox_id),
            )
        )

    def _statuses(self, sandbox_id: str) -> list[cri.ContainerStatus]:
        return [each.status for each in self.containers.values() if each.sandbox_id == sandbox_id]

    def _sandbox(self, identity: str) -> FakeSandbox:
        if identity not in self.sandboxes:
            raise UnknownId(f'could not find sandbox "{identity}": not found')
        return self.sandboxes[identity]

    def _container(self, identity: str) -> FakeContainer:
        if identity not in self.containers:
            raise UnknownId(f'could not find container "{identity}": not found')
        return self.containers[identity]

    # the runtime itself

    @verb
    async def Version(self, request: cri.VersionRequest, context: Context) -> cri.VersionResponse:
        return cri.VersionResponse(
            version="0.1.0", runtime_name="nanokube-fake", runtime_version="0.1.0", runtime_api_version="v1"
        )

    @verb
    async def Status(self, request: cri.StatusRequest, context: Context) -> cri.StatusResponse:
        await self._called("Status", request)
        conditions = [
            cri.RuntimeCondition(type="RuntimeReady", status=True),
            cri.RuntimeCondition(type="NetworkReady", status=bool(self.pod_cidr)),
        ]
        return cri.StatusResponse(status=cri.RuntimeStatus(conditions=conditions))

    @verb
    async def RuntimeConfig(self, request: cri.RuntimeConfigRequest, context: Context) -> cri.RuntimeConfigResponse:
        return cri.RuntimeConfigResponse(linux=cri.LinuxRuntimeConfiguration(cgroup_driver=cri.CGROUPFS))

    @verb
    async def UpdateRuntimeConfig(
        self, request: cri.UpdateRuntimeConfigRequest, context: Context
    ) -> cri.UpdateRuntimeConfigResponse:
        await self._called("UpdateRuntimeConfig", request)
        cidr = request.runtime_config.network_config.pod_cidr
        try:
            self.pod_cidr = str(ipaddress.IPv4Network(cidr, strict=False)) if cidr else self.pod_cidr
        except ValueError as error:
            raise BadConfig(f"pod CIDR {cidr!r}: {error}") from error
        return cri.UpdateRuntimeConfigResponse()

    async def GetContainerEvents(
        self, request: cri.GetEventsRequest, context: Context
    ) -> AsyncIterator[cri.ContainerEventResponse]:
        async for event in self._events.subscribe():
            yield event

    # sandboxes

    @verb
    async def RunPodSandbox(self, request: cri.RunPodSandboxRequest, context: Context) -> cri.RunPodSandboxResponse:
        await self._called("RunPodSandbox", request)
        config = request.config
        if not config.metadata.name or not config.metadata.uid:
            raise BadConfig("sandbox config must include metadata with name and uid")
        meta = config.metadata
        if any(
            (each.config.metadata.uid, each.config.metadata.attempt) == (meta.uid, meta.attempt)
            for each in self.sandboxes.values()
        ):
            raise AlreadyThere(f"sandbox of pod {meta.namespace}/{meta.name} attempt {meta.attempt} exists")
        address = ""
        options = config.linux.security_context.namespace_options
        if options.network != cri.NODE:
            if not self.pod_cidr:
                raise RuntimeFault("network is not ready: the node has no pod CIDR yet", "FAILED_PRECONDITION")
            address = str(ipaddress.IPv4Network(self.pod_cidr)[self._next_ip])
            self._next_ip += 1
        identity = secrets.token_hex(32)
        self.sandboxes[identity] = FakeSandbox(
            cri.PodSandboxStatus(
                id=identity,
                metadata=meta,
                state=cri.SANDBOX_READY,
                created_at=time.time_ns(),
                network=cri.PodSandboxNetworkStatus(ip=address),
                linux=cri.LinuxPodSandboxStatus(namespaces=cri.Namespace(options=options)),
                labels=config.labels,
                annotations=config.annotations,
            ),
            config,
        )
        return cri.RunPodSandboxResponse(pod_sandbox_id=identity)

    @verb
    async def StopPodSandbox(self, request: cri.StopPodSandboxRequest, context: Context) -> cri.StopPodSandboxResponse:
        await self._called("StopPodSandbox", request)
        self._stop_sandbox(request.pod_sandbox_id)
        return cri.StopPodSandboxResponse()

    def _stop_sandbox(self, identity: str) -> None:
        for container in list(self.containers.values()):
            if container.sandbox_id == identity:
                self.finish(container.status.id, 137)
        if identity in self.sandboxes:
            self.sandboxes[identity].status.state = cri.SANDBOX_NOTREADY

    @verb
    async def RemovePodSandbox(
        self, request: cri.RemovePodSandboxRequest, context: Context
    ) -> cri.RemovePodSandboxResponse:
        await self._called("RemovePodSandbox", request)
        identity = request.pod_sandbox_id
        self._stop_sandbox(identity)
        for container in [each for each in self.containers.values() if each.sandbox_id == identity]:
            self._remove(container)
        self.sandboxes.pop(identity, None)
        return cri.RemovePodSandboxResponse()

    @verb
    async def PodSandboxStatus(
        self, request: cri.PodSandboxStatusRequest, context: Context
    ) -> cri.PodSandboxStatusResponse:
        await self._called("PodSandboxStatus", request)
        sandbox = self._sandbox(request.pod_sandbox_id)
        return cri.PodSandboxStatusResponse(
            status=sandbox.status,
            containers_statuses=self._statuses(request.pod_sandbox_id),
            timestamp=time.time_ns(),
            info={"netns": '""', "pid": "0"} if request.verbose else {},
        )

    @verb
    async def ListPodSandbox(self, request: cri.ListPodSandboxRequest, context: Context) -> cri.ListPodSandboxResponse:
        await self._called("ListPodSandbox", request)
        wanted = request.filter
        return cri.ListPodSandboxResponse(
            items=[
                cri.PodSandbox(
                    id=each.status.id,
                    metadata=each.status.metadata,
                    state=each.status.state,
                    created_at=each.status.created_at,
                    labels=each.status.labels,
                    annotations=each.status.annotations,
                )
                for each in self.sandboxes.values()
                if each.status.id.startswith(wanted.id)
                and (not wanted.HasField("state") or wanted.state.state == each.status.state)
                and all(each.status.labels.get(key) == value for key, value in wanted.label_selector.items())
            ]
        )

    @verb
    async def UpdatePodSandboxResources(
        self, request: cri.UpdatePodSandboxResourcesRequest, context: Context
    ) -> cri.UpdatePodSandboxResourcesResponse:
        self._sandbox(request.pod_sandbox_id)
        return cri.UpdatePodSandboxResourcesResponse()

    # containers

    @verb
    async def CreateContainer(
        self, request: cri.CreateContainerRequest, context: Context
    ) -> cri.CreateContainerResponse:
        await self._called("CreateContainer", request)
        sandbox, config = self._sandbox(request.pod_sandbox_id), request.config
        if sandbox.status.state != cri.SANDBOX_READY:
            raise WrongState(f'sandbox "{request.pod_sandbox_id}" is not ready')
        if not config.metadata.name:
            raise BadConfig("container config must include metadata with a name")
        name = (config.metadata.name, config.metadata.attempt)
        if any((each.metadata.name, each.metadata.attempt) == name for each in self._statuses(request.pod_sandbox_id)):
            raise AlreadyThere(f"container {name[0]} attempt {name[1]} exists in sandbox {request.pod_sandbox_id[:12]}")
        image = self._find_image(config.image.image)
        if image is None:
            raise UnknownId(f'failed to resolve image "{config.image.image}": not found')
        directory = sandbox.config.log_directory
        identity = secrets.token_hex(32)
        asked = config.image.user_specified_image or config.image.image
        config.image.image = shown_name(asked, image.repo_tags, image.id)
        container = FakeContainer(
            cri.ContainerStatus(
                id=identity,
                metadata=config.metadata,
                state=cri.CONTAINER_CREATED,
                created_at=time.time_ns(),
                image=config.image,
                image_ref=image.repo_digests[0],
                image_id=image.id,
                labels=config.labels,
                annotations=config.annotations,
                mounts=config.mounts,
                log_path=str(Path(directory) / config.log_path) if directory and config.log_path else "",
                resources=cri.ContainerResources(linux=config.linux.resources),
            ),
            config,
            request.pod_sandbox_id,
        )
        self.containers[identity] = container
        self._publish(container, cri.CONTAINER_CREATED_EVENT)
        return cri.CreateContainerResponse(container_id=identity)

    @verb
    async def StartContainer(self, request: cri.StartContainerRequest, context: Context) -> cri.StartContainerResponse:
        await self._called("StartContainer", request)
        container = self._container(request.container_id)
        status = container.status
        if status.state == cri.CONTAINER_RUNNING:
            return cri.StartContainerResponse()
        if status.state != cri.CONTAINER_CREATED:
            raise WrongState("container is in exited state")
        argv = [*container.config.command, *container.config.args]
        if argv and argv[0].startswith("nosuch"):
            text = (
                "failed to create containerd task: OCI runtime create failed: unable to start container process: "
                f'exec: "{argv[0]}": executable file not found in $PATH'
            )
            status.message = text
            self.finish(status.id, 128, "StartError")
            raise RuntimeFault(text)
        status.state, status.started_at = cri.CONTAINER_RUNNING, time.time_ns()
        if status.log_path:
            self.write_log(status.id, "")
        self._publish(container, cri.CONTAINER_STARTED_EVENT)
        script = " ".join(argv)
        trap, ends = _TRAPS.search(script), _EXITS.search(script)
        if trap:
            container.stop_code = int(trap[1])
        elif ends:
            asyncio.get_running_loop().call_soon(self.finish, status.id, int(ends[1]))
        return cri.StartContainerResponse()

    @verb
    async def StopContainer(self, request: cri.StopContainerRequest, context: Context) -> cri.StopContainerResponse:
        await self._called("StopContainer", request)
        container = self.containers.get(request.container_id)
        if container is not None:
            code = container.stop_code if container.status.started_at and request.timeout > 0 else 137
            self.finish(request.container_id, code)
        return cri.StopContainerResponse()

    @verb
    async def RemoveContainer(
        self, request: cri.RemoveContainerRequest, context: Context
    ) -> cri.RemoveContainerResponse:
        await self._called("RemoveContainer", request)
        container = self.containers.get(request.container_id)
        if container is not None:
            self.finish(request.container_id, 137)
            self._remove(container)
        return cri.RemoveContainerResponse()

    def _remove(self, container: FakeContainer) -> None:
        del self.containers[container.status.id]
        self._publish(container, cri.CONTAINER_DELETED_EVENT)

    @verb
    async def ListContainers(self, request: cri.ListContainersRequest, context: Context) -> cri.ListContainersResponse:
        await self._called("ListContainers", request)
        wanted = request.filter
        return cri.ListContainersResponse(
            containers=[
                cri.Container(
                    id=each.status.id,
                    pod_sandbox_id=each.sandbox_id,
                    metadata=each.status.metadata,
                    image=each.status.image,
                    image_ref=each.status.image_ref,
                    image_id=each.status.image_id,
                    state=each.status.state,
                    created_at=each.status.created_at,
                    labels=each.status.labels,
                    annotations=each.status.annotations,
                )
                for each in self.containers.values()
                if each.status.id.startswith(wanted.id)
                and each.sandbox_id.startswith(wanted.pod_sandbox_id)
                and (not wanted.HasField("state") or wanted.state.state == each.status.state)
                and all(each.status.labels.get(key) == value for key, value in wanted.label_selector.items())
            ]
        )

    @verb
    async def ContainerStatus(
        self, request: cri.ContainerStatusRequest, context: Context
    ) -> cri.ContainerStatusResponse:
        await self._called("ContainerStatus", request)
        return cri.ContainerStatusResponse(status=self._container(request.container_id).status)

    @verb
    async def UpdateContainerResources(
        self, request: cri.UpdateContainerResourcesRequest, context: Context
    ) -> cri.UpdateContainerResourcesResponse:
        await self._called("UpdateContainerResources", request)
        container = self._container(request.container_id)
        if container.status.state == cri.CONTAINER_EXITED:
            raise WrongState("container is not running")
        container.status.resources.linux.MergeFrom(request.linux)
        return cri.UpdateContainerResourcesResponse()

    @verb
    async def ReopenContainerLog(
        self, request: cri.ReopenContainerLogRequest, context: Context
    ) -> cri.ReopenContainerLogResponse:
        await self._called("ReopenContainerLog", request)
        container = self._container(request.container_id)
        if container.status.state != cri.CONTAINER_RUNNING:
            raise WrongState("container is not running")
        self.write_log(request.container_id, "")
        return cri.ReopenContainerLogResponse()

    @verb
    async def ExecSync(self, request: cri.ExecSyncRequest, context: Context) -> cri.ExecSyncResponse:
        await self._called("ExecSync", request)
        container = self._container(request.container_id)
        if container.status.state != cri.CONTAINER_RUNNING:
            raise WrongState("container is not running")
        if not request.cmd:
            raise BadConfig("exec needs a command")
        if request.cmd[0].startswith("nosuch"):
            raise RuntimeFault(
                f'failed to exec in container: exec: "{request.cmd[0]}": executable file not found in $PATH'
            )
        code, out, err = self.exec_results(container.status.metadata.name, list(request.cmd))
        return cri.ExecSyncResponse(stdout=out, stderr=err, exit_code=code)

    @verb
    async def Exec(self, request: cri.ExecRequest, context: Context) -> cri.ExecResponse:
        await self._called("Exec", request)
        self._container(request.container_id)
        return cri.ExecResponse(url=self.stream_url)

    @verb
    async def Attach(self, request: cri.AttachRequest, context: Context) -> cri.AttachResponse:
        await self._called("Attach", request)
        self._container(request.container_id)
        return cri.AttachResponse(url=self.stream_url)

    @verb
    async def PortForward(self, request: cri.PortForwardRequest, context: Context) -> cri.PortForwardResponse:
        await self._called("PortForward", request)
        self._sandbox(request.pod_sandbox_id)
        return cri.PortForwardResponse(url=self.stream_url)

    # statistics

    @verb
    async def ContainerStats(self, request: cri.ContainerStatsRequest, context: Context) -> cri.ContainerStatsResponse:
        return cri.ContainerStatsResponse(stats=self._stats(self._container(request.container_id)))

    @verb
    async def PodSandboxStats(
        self, request: cri.PodSandboxStatsRequest, context: Context
    ) -> cri.PodSandboxStatsResponse:
        return cri.PodSandboxStatsResponse(stats=self._pod_stats(self._sandbox(request.pod_sandbox_id)))

    def _stats(self, container: FakeContainer) -> cri.ContainerStats:
        cores, memory = self.usage.get(container.status.metadata.name, (1_000_000, 1 << 20))
        now = time.time_ns()
        return cri.ContainerStats(
            attributes=cri.ContainerAttributes(
                id=container.status.id, metadata=container.status.metadata, labels=container.status.labels
            ),
            cpu=cri.CpuUsage(
                timestamp=now,
                usage_core_nano_seconds=cri.UInt64Value(value=cores),
                usage_nano_cores=cri.UInt64Value(value=cores),
            ),
            memory=cri.MemoryUsage(
                timestamp=now,
                working_set_bytes=cri.UInt64Value(value=memory),
                usage_bytes=cri.UInt64Value(value=memory),
                rss_bytes=cri.UInt64Value(value=memory),
            ),
        )

    @verb
    async def ListContainerStats(
        self, request: cri.ListContainerStatsRequest, context: Context
    ) -> cri.ListContainerStatsResponse:
        await self._called("ListContainerStats", request)
        running = [each for each in self.containers.values() if each.status.state == cri.CONTAINER_RUNNING]
        return cri.ListContainerStatsResponse(stats=[self._stats(each) for each in running])

    @verb
    async def ListPodSandboxStats(
        self, request: cri.ListPodSandboxStatsRequest, context: Context
    ) -> cri.ListPodSandboxStatsResponse:
        await self._called("ListPodSandboxStats", request)
        ready = [each for each in self.sandboxes.values() if each.status.state == cri.SANDBOX_READY]
        return cri.ListPodSandboxStatsResponse(stats=[self._pod_stats(each) for each in ready])

    def _pod_stats(self, sandbox: FakeSandbox) -> cri.PodSandboxStats:
        identity = sandbox.status.id
        members = [
            self._stats(each)
            for each in self.containers.values()
            if each.sandbox_id == identity and each.status.state == cri.CONTAINER_RUNNING
        ]
        stats = cri.PodSandboxStats(
            attributes=cri.PodSandboxAttributes(
                id=identity, metadata=sandbox.status.metadata, labels=sandbox.status.labels
            ),
            linux=cri.LinuxPodSandboxStats(containers=members),
        )
        stats.linux.cpu.timestamp = stats.linux.memory.timestamp = time.time_ns()
        stats.linux.cpu.usage_nano_cores.value = sum(each.cpu.usage_nano_cores.value for each in members)
        stats.linux.memory.working_set_bytes.value = sum(each.memory.working_set_bytes.value for each in members)
        return stats
