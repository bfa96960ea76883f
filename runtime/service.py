"""The CRI's RuntimeService over the engine.

Owns nothing but the translation between messages and verbs. Called by the kubelet.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

from machinery.log import get, kv
from proto.cri.v1 import cri_pb2 as cri
from proto.cri.v1 import cri_pb2_grpc
from runtime import statuses
from runtime.door import Context, cancellable_verb, verb
from runtime.engine import Engine
from runtime.exec import exec_sync
from runtime.faults import BadConfig, WrongState
from runtime.records import RUNNING
from runtime.stats import Statistics
from runtime.streams import StreamServer

log = get("runtime.service")
NAME, VERSION, API_VERSION = "nanokube", "0.1.0", "v1"


class RuntimeService(cri_pb2_grpc.RuntimeServiceServicer):
    """CRI v1 RuntimeService."""

    def __init__(self, engine: Engine, streams: StreamServer) -> None:
        self._engine = engine
        self._streams = streams
        self._statistics = Statistics(engine.cgroups, engine.containers, engine.network)

    # the runtime itself

    @verb
    async def Version(self, request: cri.VersionRequest, context: Context) -> cri.VersionResponse:
        return cri.VersionResponse(
            version="0.1.0", runtime_name=NAME, runtime_version=VERSION, runtime_api_version=API_VERSION
        )

    @verb
    async def Status(self, request: cri.StatusRequest, context: Context) -> cri.StatusResponse:
        cidr = self._engine.network.pod_cidr
        network = cri.RuntimeCondition(type="NetworkReady", status=bool(cidr))
        if not cidr:
            network.reason, network.message = "NetworkPluginNotReady", "the node has no pod CIDR yet"
        response = cri.StatusResponse(
            status=cri.RuntimeStatus(conditions=[cri.RuntimeCondition(type="RuntimeReady", status=True), network]),
            runtime_handlers=[cri.RuntimeHandler(name="", features=cri.RuntimeHandlerFeatures())],
            features=cri.RuntimeFeatures(supplemental_groups_policy=True),
        )
        if request.verbose:
            response.info["config"] = json.dumps(
                {"cgroups": self._engine.cgroups.layout.mode, "podCIDR": cidr, "node": self._engine.settings.node}
            )
        return response

    @verb
    async def RuntimeConfig(self, request: cri.RuntimeConfigRequest, context: Context) -> cri.RuntimeConfigResponse:
        return cri.RuntimeConfigResponse(linux=cri.LinuxRuntimeConfiguration(cgroup_driver=cri.CGROUPFS))

    @verb
    async def UpdateRuntimeConfig(
        self, request: cri.UpdateRuntimeConfigRequest, context: Context
    ) -> cri.UpdateRuntimeConfigResponse:
        cidr = request.runtime_config.network_config.pod_cidr
        await asyncio.to_thread(self._engine.network.configure, cidr)
        log.info("Updated runtime config", extra=kv(pod_cidr=cidr))
        return cri.UpdateRuntimeConfigResponse()

    async def GetContainerEvents(
        self, request: cri.GetEventsRequest, context: Context
    ) -> AsyncIterator[cri.ContainerEventResponse]:
        async for event in self._engine.events.subscribe():
            yield event

    # sandboxes

    @verb
    async def RunPodSandbox(self, request: cri.RunPodSandboxRequest, context: Context) -> cri.RunPodSandboxResponse:
        if request.runtime_handler:
            raise BadConfig(f'no runtime for "{request.runtime_handler}" is configured')
        sandbox = await self._engine.run_sandbox(request.config, request.runtime_handler)
        return cri.RunPodSandboxResponse(pod_sandbox_id=sandbox.record.id)

    @verb
    async def StopPodSandbox(self, request: cri.StopPodSandboxRequest, context: Context) -> cri.StopPodSandboxResponse:
        await self._engine.stop_sandbox(request.pod_sandbox_id)
        return cri.StopPodSandboxResponse()

    @verb
    async def RemovePodSandbox(
        self, request: cri.RemovePodSandboxRequest, context: Context
    ) -> cri.RemovePodSandboxResponse:
        await self._engine.remove_sandbox(request.pod_sandbox_id)
        return cri.RemovePodSandboxResponse()

    @verb
    async def PodSandboxStatus(
        self, request: cri.PodSandboxStatusRequest, context: Context
    ) -> cri.PodSandboxStatusResponse:
        sandbox = self._engine.sandboxes.get(request.pod_sandbox_id)
        return cri.PodSandboxStatusResponse(
            status=statuses.sandbox_status(sandbox),
            info=self._engine.sandbox_info(sandbox) if request.verbose else {},
            containers_statuses=self._engine.container_statuses(sandbox.record.id),
            timestamp=time.time_ns(),
        )

    @verb
    async def ListPodSandbox(self, request: cri.ListPodSandboxRequest, context: Context) -> cri.ListPodSandboxResponse:
        wanted = request.filter
        return cri.ListPodSandboxResponse(
            items=[
                statuses.sandbox_item(each)
                for each in self._engine.sandboxes.listed()
                if each.record.id.startswith(wanted.id)
                and (not wanted.HasField("state") or wanted.state.state == statuses.sandbox_state(each))
                and statuses.matches(each.config.labels, wanted.label_selector)
            ]
        )

    @verb
    async def UpdatePodSandboxResources(
        self, request: cri.UpdatePodSandboxResourcesRequest, context: Context
    ) -> cri.UpdatePodSandboxResourcesResponse:
        sandbox = self._engine.sandboxes.get(request.pod_sandbox_id)
        sandbox.config.linux.resources.CopyFrom(request.resources)
        return cri.UpdatePodSandboxResourcesResponse()

    # containers

    @verb
    async def CreateContainer(
        self, request: cri.CreateContainerRequest, context: Context
    ) -> cri.CreateContainerResponse:
        container = await self._engine.create_container(request.pod_sandbox_id, request.config)
        return cri.CreateContainerResponse(container_id=container.record.id)

    @verb
    async def StartContainer(self, request: cri.StartContainerRequest, context: Context) -> cri.StartContainerResponse:
        await self._engine.containers.start(self._engine.containers.get(request.container_id))
        return cri.StartContainerResponse()

    @verb
    async def StopContainer(self, request: cri.StopContainerRequest, context: Context) -> cri.StopContainerResponse:
        container = self._engine.containers.find(request.container_id)
        if container is not None:
            await self._engine.containers.stop(container, float(request.timeout))
        return cri.StopContainerResponse()

    @verb
    async def RemoveContainer(
        self, request: cri.RemoveContainerRequest, context: Context
    ) -> cri.RemoveContainerResponse:
        container = self._engine.containers.find(request.container_id)
        if container is not None:
            await self._engine.containers.remove(container)
            self._statistics.forget(container.record.cgroup)
        return cri.RemoveContainerResponse()

    @verb
    async def ListContainers(self, request: cri.ListContainersRequest, context: Context) -> cri.ListContainersResponse:
        wanted = request.filter
        return cri.ListContainersResponse(
            containers=[
                statuses.container_item(each)
                for each in self._engine.containers.listed()
                if each.record.id.startswith(wanted.id)
                and each.record.sandbox_id.startswith(wanted.pod_sandbox_id)
                and (not wanted.HasField("state") or wanted.state.state == statuses.container_state(each))
                and statuses.matches(each.config.labels, wanted.label_selector)
            ]
        )

    @verb
    async def ContainerStatus(
        self, request: cri.ContainerStatusRequest, context: Context
    ) -> cri.ContainerStatusResponse:
        container = self._engine.containers.get(request.container_id)
        return cri.ContainerStatusResponse(
            status=statuses.container_status(container),
            info=self._engine.container_info(container) if request.verbose else {},
        )

    @verb
    async def UpdateContainerResources(
        self, request: cri.UpdateContainerResourcesRequest, context: Context
    ) -> cri.UpdateContainerResourcesResponse:
        await self._engine.containers.update(self._engine.containers.get(request.container_id), request.linux)
        return cri.UpdateContainerResourcesResponse()

    @verb
    async def ReopenContainerLog(
        self, request: cri.ReopenContainerLogRequest, context: Context
    ) -> cri.ReopenContainerLogResponse:
        self._engine.containers.reopen_log(self._engine.containers.get(request.container_id))
        return cri.ReopenContainerLogResponse()

    # streams

    @cancellable_verb
    async def ExecSync(self, request: cri.ExecSyncRequest, context: Context) -> cri.ExecSyncResponse:
        container = self._engine.containers.get(request.container_id)
        result = await exec_sync(self._engine.crun, container, list(request.cmd), float(request.timeout) or None)
        return cri.ExecSyncResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)

    @verb
    async def Exec(self, request: cri.ExecRequest, context: Context) -> cri.ExecResponse:
        container = self._engine.containers.get(request.container_id)
        if container.record.state != RUNNING:
            raise WrongState(f"container is in {container.record.state} state")
        if not request.cmd:
            raise BadConfig("exec needs a command")
        return cri.ExecResponse(url=await self._streams.offer(request))

    @verb
    async def Attach(self, request: cri.AttachRequest, context: Context) -> cri.AttachResponse:
        container = self._engine.containers.get(request.container_id)
        if container.record.state != RUNNING:
            raise WrongState(f"container is in {container.record.state} state")
        return cri.AttachResponse(url=await self._streams.offer(request))

    @verb
    async def PortForward(self, request: cri.PortForwardRequest, context: Context) -> cri.PortForwardResponse:
        sandbox = self._engine.sandboxes.get(request.pod_sandbox_id)
        if not sandbox.record.ready:
            raise WrongState(f'sandbox "{request.pod_sandbox_id}" is not running')
        return cri.PortForwardResponse(url=await self._streams.offer(request))

    # statistics

    @verb
    async def ContainerStats(self, request: cri.ContainerStatsRequest, context: Context) -> cri.ContainerStatsResponse:
        container = self._engine.containers.get(request.container_id)
        await asyncio.to_thread(self._statistics.measure_layers)
        return cri.ContainerStatsResponse(stats=self._statistics.container(container))

    @verb
    async def ListContainerStats(
        self, request: cri.ListContainerStatsRequest, context: Context
    ) -> cri.ListContainerStatsResponse:
        await asyncio.to_thread(self._statistics.measure_layers)
        wanted = request.filter
        found = [
            self._statistics.container(each)
            for each in self._engine.containers.listed()
            if each.record.id.startswith(wanted.id)
            and each.record.sandbox_id.startswith(wanted.pod_sandbox_id)
            and statuses.matches(each.config.labels, wanted.label_selector)
        ]
        self._prune()
        return cri.ListContainerStatsResponse(stats=[each for each in found if each is not None])

    @verb
    async def PodSandboxStats(
        self, request: cri.PodSandboxStatsRequest, context: Context
    ) -> cri.PodSandboxStatsResponse:
        sandbox = self._engine.sandboxes.get(request.pod_sandbox_id)
        await asyncio.to_thread(self._statistics.measure_layers)
        return cri.PodSandboxStatsResponse(stats=self._statistics.sandbox(sandbox))

    @verb
    async def ListPodSandboxStats(
        self, request: cri.ListPodSandboxStatsRequest, context: Context
    ) -> cri.ListPodSandboxStatsResponse:
        await asyncio.to_thread(self._statistics.measure_layers)
        wanted = request.filter
        found = [
            self._statistics.sandbox(each)
            for each in self._engine.sandboxes.listed()
            if each.record.ready
            and each.record.id.startswith(wanted.id)
            and statuses.matches(each.config.labels, wanted.label_selector)
        ]
        self._prune()
        return cri.ListPodSandboxStatsResponse(stats=[each for each in found if each is not None])

    def _prune(self) -> None:
        """Close the samplers of what is gone."""
        groups = [each.record.cgroup for each in self._engine.containers.listed()]
        self._statistics.prune([*groups, *(each.record.cgroup_parent for each in self._engine.sandboxes.listed())])
