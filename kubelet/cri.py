"""The runtime, seen through CRI v1: one method per call, bounded in real time, one error type.

Owns the channel. Never: decides, retries (except the event stream, which reconnects) or interprets. Called by pod
workers, the node status, statistics and streams. Generated messages pass through here to `pod.config` and `records`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from kubelet.records import POD_UID
from machinery import grpc as transport
from proto.cri.v1 import cri_pb2 as cri

if TYPE_CHECKING:
    import grpc.aio

T = TypeVar("T")
CALL_SECONDS = 10.0  # what answers from memory
WORK_SECONDS = 120.0  # what makes or removes something
PULL_SECONDS = 900.0
PULL_NOTE = "nanokube.pull"  # in ImageStatus.info: why a pull was satisfied without its registry


class CriError(Exception):
    """A failed call. `code` is the gRPC status name."""

    def __init__(self, message: str, code: str = "UNKNOWN") -> None:
        super().__init__(message)
        self.message = message
        self.code = code

    @property
    def not_found(self) -> bool:
        return self.code == "NOT_FOUND"

    @property
    def away(self) -> bool:
        """The runtime did not answer at all."""
        return self.code in ("UNAVAILABLE", "CANCELLED")


class Cri:
    """RuntimeService and ImageService of one runtime socket (`unix:PATH`)."""

    def __init__(self, target: str) -> None:
        from proto.cri.v1 import cri_pb2_grpc as stubs

        self._channel: grpc.aio.Channel = transport.channel(target)
        self._runtime: Any = stubs.RuntimeServiceStub(self._channel)
        self._images: Any = stubs.ImageServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def _ask(self, call: Awaitable[T]) -> T:
        import grpc

        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise CriError(error.details() or error.code().name, error.code().name) from error

    # ---- the runtime itself ----

    async def version(self) -> cri.VersionResponse:
        answer: cri.VersionResponse = await self._ask(
            self._runtime.Version(cri.VersionRequest(version="v1"), timeout=CALL_SECONDS, wait_for_ready=True)
        )
        return answer

    async def status(self) -> cri.RuntimeStatus:
        answer: cri.StatusResponse = await self._ask(self._runtime.Status(cri.StatusRequest(), timeout=CALL_SECONDS))
        return answer.status

    async def set_pod_cidr(self, cidr: str) -> None:
        config = cri.RuntimeConfig(network_config=cri.NetworkConfig(pod_cidr=cidr))
        request = cri.UpdateRuntimeConfigRequest(runtime_config=config)
        await self._ask(self._runtime.UpdateRuntimeConfig(request, timeout=CALL_SECONDS))

    async def events(self) -> AsyncIterator[cri.ContainerEventResponse]:
        """Container events until the stream breaks (CriError)."""
        import grpc

        stream = self._runtime.GetContainerEvents(cri.GetEventsRequest(), wait_for_ready=True)
        try:
            async for event in stream:
                yield event
        except grpc.aio.AioRpcError as error:
            raise CriError(error.details() or error.code().name, error.code().name) from error
        finally:
            stream.cancel()

    # ---- sandboxes ----

    async def run_sandbox(self, config: cri.PodSandboxConfig) -> str:
        request = cri.RunPodSandboxRequest(config=config)
        answer: cri.RunPodSandboxResponse = await self._ask(self._runtime.RunPodSandbox(request, timeout=WORK_SECONDS))
        return answer.pod_sandbox_id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        request = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
        await self._ask(self._runtime.StopPodSandbox(request, timeout=WORK_SECONDS))

    async def remove_sandbox(self, sandbox_id: str) -> None:
        request = cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
        await self._ask(self._runtime.RemovePodSandbox(request, timeout=WORK_SECONDS))

    async def sandbox_status(self, sandbox_id: str) -> cri.PodSandboxStatus:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id)
        answer: cri.PodSandboxStatusResponse = await self._ask(
            self._runtime.PodSandboxStatus(request, timeout=CALL_SECONDS)
        )
        return answer.status

    async def list_sandboxes(self, uid: str = "") -> list[cri.PodSandbox]:
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=_labels(uid)))
        answer: cri.ListPodSandboxResponse = await self._ask(
            self._runtime.ListPodSandbox(request, timeout=CALL_SECONDS)
        )
        return list(answer.items)

    # ---- containers ----

    async def create_container(
        self, sandbox_id: str, config: cri.ContainerConfig, sandbox: cri.PodSandboxConfig
    ) -> str:
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=config, sandbox_config=sandbox)
        answer: cri.CreateContainerResponse = await self._ask(
            self._runtime.CreateContainer(request, timeout=WORK_SECONDS)
        )
        return answer.container_id

    async def start_container(self, container_id: str) -> None:
        request = cri.StartContainerRequest(container_id=container_id)
        await self._ask(self._runtime.StartContainer(request, timeout=WORK_SECONDS))

    async def stop_container(self, container_id: str, grace: int) -> None:
        request = cri.StopContainerRequest(container_id=container_id, timeout=grace)
        await self._ask(self._runtime.StopContainer(request, timeout=grace + WORK_SECONDS))

    async def remove_container(self, container_id: str) -> None:
        request = cri.RemoveContainerRequest(container_id=container_id)
        await self._ask(self._runtime.RemoveContainer(request, timeout=WORK_SECONDS))

    async def container_status(self, container_id: str) -> cri.ContainerStatus:
        request = cri.ContainerStatusRequest(container_id=container_id)
        answer: cri.ContainerStatusResponse = await self._ask(
            self._runtime.ContainerStatus(request, timeout=CALL_SECONDS)
        )
        return answer.status

    async def list_containers(self, uid: str = "") -> list[cri.Container]:
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(label_selector=_labels(uid)))
        answer: cri.ListContainersResponse = await self._ask(
            self._runtime.ListContainers(request, timeout=CALL_SECONDS)
        )
        return list(answer.containers)

    async def update_container(self, container_id: str, resources: cri.LinuxContainerResources) -> None:
        request = cri.UpdateContainerResourcesRequest(container_id=container_id, linux=resources)
        await self._ask(self._runtime.UpdateContainerResources(request, timeout=WORK_SECONDS))

    async def memory_usage(self, container_id: str) -> int:
        """Bytes a running container uses now, caches that can be dropped left out."""
        request = cri.ContainerStatsRequest(container_id=container_id)
        answer: cri.ContainerStatsResponse = await self._ask(
            self._runtime.ContainerStats(request, timeout=CALL_SECONDS)
        )
        return int(answer.stats.memory.working_set_bytes.value)

    async def reopen_log(self, container_id: str) -> None:
        request = cri.ReopenContainerLogRequest(container_id=container_id)
        await self._ask(self._runtime.ReopenContainerLog(request, timeout=CALL_SECONDS))

    # ---- streams ----

    async def exec_sync(self, container_id: str, command: list[str], timeout: int) -> cri.ExecSyncResponse:
        """`timeout` in real seconds, 0 = none; a command that runs into it raises CriError DEADLINE_EXCEEDED."""
        request = cri.ExecSyncRequest(container_id=container_id, cmd=command, timeout=timeout)
        limit = timeout + CALL_SECONDS if timeout else None
        answer: cri.ExecSyncResponse = await self._ask(self._runtime.ExecSync(request, timeout=limit))
        return answer

    async def exec_url(self, request: cri.ExecRequest) -> str:
        answer: cri.ExecResponse = await self._ask(self._runtime.Exec(request, timeout=CALL_SECONDS))
        return answer.url

    async def attach_url(self, request: cri.AttachRequest) -> str:
        answer: cri.AttachResponse = await self._ask(self._runtime.Attach(request, timeout=CALL_SECONDS))
        return answer.url

    async def port_forward_url(self, sandbox_id: str, port: int) -> str:
        request = cri.PortForwardRequest(pod_sandbox_id=sandbox_id, port=[port])
        answer: cri.PortForwardResponse = await self._ask(self._runtime.PortForward(request, timeout=CALL_SECONDS))
        return answer.url

    # ---- images ----

    async def image_status(self, image: str) -> cri.Image | None:
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=image))
        answer: cri.ImageStatusResponse = await self._ask(self._images.ImageStatus(request, timeout=CALL_SECONDS))
        return answer.image if answer.HasField("image") else None

    async def pull_image(self, image: str, auth: cri.AuthConfig | None = None) -> str:
        """The image's reference."""
        request = cri.PullImageRequest(image=cri.ImageSpec(image=image), auth=auth)
        answer: cri.PullImageResponse = await self._ask(self._images.PullImage(request, timeout=PULL_SECONDS))
        return answer.image_ref

    async def pulled_image(self, image: str) -> tuple[cri.Image | None, str]:
        """The image just pulled, and a sentence if the runtime had to answer from what was loaded here."""
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=image), verbose=True)
        answer: cri.ImageStatusResponse = await self._ask(self._images.ImageStatus(request, timeout=CALL_SECONDS))
        return (answer.image if answer.HasField("image") else None), answer.info.get(PULL_NOTE, "")

    async def list_images(self) -> list[cri.Image]:
        answer: cri.ListImagesResponse = await self._ask(
            self._images.ListImages(cri.ListImagesRequest(), timeout=CALL_SECONDS)
        )
        return list(answer.images)

    async def remove_image(self, image: str) -> None:
        request = cri.RemoveImageRequest(image=cri.ImageSpec(image=image))
        await self._ask(self._images.RemoveImage(request, timeout=WORK_SECONDS))

    # ---- statistics ----

    async def container_stats(self) -> list[cri.ContainerStats]:
        answer: cri.ListContainerStatsResponse = await self._ask(
            self._runtime.ListContainerStats(cri.ListContainerStatsRequest(), timeout=CALL_SECONDS)
        )
        return list(answer.stats)


def _labels(uid: str) -> dict[str, str]:
    return {POD_UID: uid} if uid else {}
