"""What every CRI runtime promises the kubelet: one suite, passed by the fake and by the real runtime.

The real one runs as a process in a network namespace of its own and needs root, conmon, crun and busybox-static.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
import pytest_asyncio

from proto.cri.v1 import cri_pb2 as cri
from runtime.fake import FakeRuntime
from tests.harness.cri_node import DEADLINE, FOREVER, REAL, Node, connected, poll, real_runtime


@pytest_asyncio.fixture(params=["fake", pytest.param("real", marks=REAL)], loop_scope="module", scope="module")
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    folder = Path("/var/lib" if request.param == "real" else "/tmp") / f"nanokube-contract-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    cgroup = f"nanokube-contract-{os.getpid()}"
    serving = (
        real_runtime(folder, cgroup) if request.param == "real" else FakeRuntime().serve(f"unix:{folder}/cri.sock")
    )
    try:
        async with serving as address, connected(address, folder, cgroup) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


pytestmark = pytest.mark.asyncio(loop_scope="module")


def code_of(error: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> str:
    return str(error.value.code().name)


async def test_version_and_readiness(node: Node) -> None:
    version = await node.runtime.Version(cri.VersionRequest())
    assert version.runtime_name
    assert version.runtime_api_version == "v1"
    conditions = {each.type: each.status for each in (await node.runtime.Status(cri.StatusRequest())).status.conditions}
    assert conditions == {"RuntimeReady": True, "NetworkReady": True}


async def test_bad_pod_cidr_is_refused(node: Node) -> None:
    config = cri.RuntimeConfig(network_config=cri.NetworkConfig(pod_cidr="nonsense"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.runtime.UpdateRuntimeConfig(cri.UpdateRuntimeConfigRequest(runtime_config=config))
    assert code_of(caught) == "INVALID_ARGUMENT"


async def test_life_of_a_pod(node: Node) -> None:
    pod = node.pod()
    sandbox = await node.run(pod)
    status = (await node.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox))).status
    assert status.state == cri.SANDBOX_READY
    assert status.network.ip.startswith("10.99.7.")
    assert status.metadata == pod.metadata
    assert dict(status.annotations) == {"note": "kept"}
    container = await node.create(sandbox, node.container(FOREVER), pod)
    assert (await node.status(container)).state == cri.CONTAINER_CREATED
    await node.start(container)
    await node.start(container)  # idempotent
    running = await node.status(container)
    assert (running.state, running.finished_at) == (cri.CONTAINER_RUNNING, 0)
    assert running.started_at >= running.created_at > 0
    assert running.image_id.startswith("sha256:")
    assert Path(running.log_path) == Path(pod.log_directory) / "main/0.log"
    await node.stop(container, 10)
    ended = await node.status(container)
    assert (ended.state, ended.exit_code, ended.reason) == (cri.CONTAINER_EXITED, 7, "Error")
    assert ended.finished_at >= ended.started_at
    await node.stop(container, 10)  # idempotent
    await node.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
    await node.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
    status = (await node.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox))).status
    assert status.state == cri.SANDBOX_NOTREADY
    await node.remove_pod(sandbox)
    await node.remove_pod(sandbox)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.status(container)
    assert code_of(caught) == "NOT_FOUND"


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        pytest.param("exit 0", 0, "Completed", id="success"),
        pytest.param("exit 3", 3, "Error", id="failure"),
    ],
)
async def test_exit_codes(node: Node, script: str, code: int, reason: str) -> None:
    sandbox, container = await node.launch(["sh", "-c", script])
    ended = await node.until(container, cri.CONTAINER_EXITED)
    assert (ended.exit_code, ended.reason) == (code, reason)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.start(container)
    assert code_of(caught) == "FAILED_PRECONDITION"
    await node.remove_pod(sandbox)


async def test_command_that_cannot_start(node: Node) -> None:
    pod = node.pod()
    sandbox = await node.run(pod)
    container = await node.create(sandbox, node.container(["nosuch"]), pod)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.start(container)
    assert 'exec: "nosuch": executable file not found in $PATH' in str(caught.value.details())
    ended = await node.status(container)
    assert (ended.state, ended.exit_code, ended.reason) == (cri.CONTAINER_EXITED, 128, "StartError")
    assert "executable file not found" in ended.message
    await node.remove_pod(sandbox)


async def test_kill_without_grace(node: Node) -> None:
    sandbox, container = await node.launch(FOREVER)
    await node.stop(container, 0)
    assert (await node.status(container)).exit_code == 137
    await node.remove_pod(sandbox)


async def test_container_that_never_started_can_be_stopped(node: Node) -> None:
    pod = node.pod()
    sandbox = await node.run(pod)
    container = await node.create(sandbox, node.container(FOREVER), pod)
    await node.stop(container, 1)
    assert (await node.status(container)).state == cri.CONTAINER_EXITED
    await node.remove_pod(sandbox)


async def test_events_tell_the_life_of_a_container(node: Node) -> None:
    stream = node.runtime.GetContainerEvents(cri.GetEventsRequest())
    seen: list[tuple[str, cri.ContainerEventType.ValueType, str]] = []

    async def read() -> None:
        async for event in stream:
            seen.append((event.container_id, event.container_event_type, event.pod_sandbox_status.id))

    reader = asyncio.ensure_future(read())
    probe_pod, probe = await node.launch(["sh", "-c", "exit 0"])  # until the subscription is known to stand
    async with asyncio.timeout(DEADLINE):
        while not any(entry[0] == probe for entry in seen):
            await node.remove_pod(probe_pod)
            probe_pod, probe = await node.launch(["sh", "-c", "exit 0"])
            await asyncio.sleep(0.05)
        sandbox, container = await node.launch(["sh", "-c", "exit 4"])
        await node.until(container, cri.CONTAINER_EXITED)
        await node.remove_pod(sandbox)
        await poll(lambda: len([entry for entry in seen if entry[0] == container]) >= 4)
    stream.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    mine = [entry for entry in seen if entry[0] == container]
    assert [entry[1] for entry in mine] == [
        cri.CONTAINER_CREATED_EVENT,
        cri.CONTAINER_STARTED_EVENT,
        cri.CONTAINER_STOPPED_EVENT,
        cri.CONTAINER_DELETED_EVENT,
    ]
    assert mine[0][2] == sandbox
    await node.remove_pod(probe_pod)


async def test_same_identity_twice_is_refused(node: Node) -> None:
    pod = node.pod()
    sandbox = await node.run(pod)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.run(pod)
    assert code_of(caught) == "ALREADY_EXISTS"
    await node.create(sandbox, node.container(FOREVER), pod)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.create(sandbox, node.container(FOREVER), pod)
    assert code_of(caught) == "ALREADY_EXISTS"
    await node.create(sandbox, node.container(FOREVER, attempt=1), pod)
    await node.remove_pod(sandbox)


async def test_unknown_ids(node: Node) -> None:
    missing = "f" * 64
    await node.stop(missing, 0)
    await node.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=missing))
    await node.remove_pod(missing)
    for call in (
        node.runtime.ContainerStatus(cri.ContainerStatusRequest(container_id=missing)),
        node.runtime.StartContainer(cri.StartContainerRequest(container_id=missing)),
        node.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=missing)),
        node.runtime.ExecSync(cri.ExecSyncRequest(container_id=missing, cmd=["true"])),
        node.runtime.CreateContainer(
            cri.CreateContainerRequest(pod_sandbox_id=missing, config=node.container(FOREVER))
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert code_of(caught) == "NOT_FOUND"


async def test_bad_configurations(node: Node) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.run(cri.PodSandboxConfig())
    assert code_of(caught) == "INVALID_ARGUMENT"
    pod = node.pod()
    sandbox = await node.run(pod)
    config = node.container(FOREVER)
    config.image.image = "no/such:image"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.create(sandbox, config, pod)
    assert code_of(caught) == "NOT_FOUND"
    config.image.image = "Bad Name"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.create(sandbox, config, pod)
    assert code_of(caught) == "INVALID_ARGUMENT"
    await node.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.create(sandbox, node.container(FOREVER), pod)
    assert code_of(caught) == "FAILED_PRECONDITION"
    await node.remove_pod(sandbox)


async def test_lists_filter(node: Node) -> None:
    pod = node.pod()
    sandbox = await node.run(pod)
    one = await node.create(sandbox, node.container(FOREVER, name="one"), pod)
    two = await node.create(sandbox, node.container(FOREVER, name="two"), pod)
    await node.start(one)

    async def containers(**fields: object) -> set[str]:
        wanted = cri.ContainerFilter(pod_sandbox_id=sandbox, **fields)  # type: ignore[arg-type]
        answer = await node.runtime.ListContainers(cri.ListContainersRequest(filter=wanted))
        return {each.id for each in answer.containers}

    assert await containers() == {one, two}
    assert await containers(label_selector={"name": "two"}) == {two}
    assert await containers(state=cri.ContainerStateValue(state=cri.CONTAINER_RUNNING)) == {one}
    assert await containers(id=two) == {two}
    wanted = cri.PodSandboxFilter(label_selector=pod.labels)
    found = await node.runtime.ListPodSandbox(cri.ListPodSandboxRequest(filter=wanted))
    assert [each.id for each in found.items] == [sandbox]
    await node.remove_pod(sandbox)


async def test_host_network_has_no_address(node: Node) -> None:
    sandbox = await node.run(node.pod(network=cri.NODE))
    status = (await node.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox))).status
    assert status.network.ip == ""
    await node.remove_pod(sandbox)


async def test_exec(node: Node) -> None:
    sandbox, container = await node.launch(FOREVER)
    result = await node.runtime.ExecSync(cri.ExecSyncRequest(container_id=container, cmd=["true"]))
    assert result.exit_code == 0
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.runtime.ExecSync(cri.ExecSyncRequest(container_id=container, cmd=["nosuch"]))
    assert 'exec: "nosuch": executable file not found in $PATH' in str(caught.value.details())
    await node.stop(container, 0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.runtime.ExecSync(cri.ExecSyncRequest(container_id=container, cmd=["true"]))
    assert code_of(caught) == "FAILED_PRECONDITION"
    await node.remove_pod(sandbox)


async def test_statistics(node: Node) -> None:
    sandbox, container = await node.launch(FOREVER)
    stats = (await node.runtime.ListContainerStats(cri.ListContainerStatsRequest())).stats
    mine = next(each for each in stats if each.attributes.id == container)
    assert mine.memory.working_set_bytes.value > 0
    assert mine.cpu.timestamp > 0
    pods = (await node.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest())).stats
    pod = next(each for each in pods if each.attributes.id == sandbox)
    assert [each.attributes.id for each in pod.linux.containers] == [container]
    await node.remove_pod(sandbox)


async def test_resources_can_change(node: Node) -> None:
    sandbox, container = await node.launch(FOREVER)
    wanted = cri.LinuxContainerResources(memory_limit_in_bytes=64 << 20, cpu_quota=20000, cpu_period=100000)
    await node.runtime.UpdateContainerResources(
        cri.UpdateContainerResourcesRequest(container_id=container, linux=wanted)
    )
    assert (await node.status(container)).resources.linux.memory_limit_in_bytes == 64 << 20
    await node.remove_pod(sandbox)


async def test_log_can_be_rotated(node: Node) -> None:
    sandbox, container = await node.launch(FOREVER)
    path = Path((await node.status(container)).log_path)
    await poll(path.exists)
    path.rename(path.with_suffix(".old"))
    await node.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=container))
    await poll(path.exists)
    await node.remove_pod(sandbox)


async def test_images(node: Node) -> None:
    spec = cri.ImageSpec(image="busybox")
    image = (await node.images.ImageStatus(cri.ImageStatusRequest(image=spec))).image
    assert "docker.io/library/busybox:latest" in image.repo_tags
    assert image.size > 0
    for name in (image.id, image.repo_digests[0], "docker.io/library/busybox:latest"):
        found = (await node.images.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=name)))).image
        assert found.id == image.id
    missing = cri.ImageSpec(image="no/such:image")
    assert not (await node.images.ImageStatus(cri.ImageStatusRequest(image=missing))).HasField("image")
    listed = (await node.images.ListImages(cri.ListImagesRequest())).images
    assert image.id in {each.id for each in listed}
    await node.images.RemoveImage(cri.RemoveImageRequest(image=missing))
    info = (await node.images.ImageFsInfo(cri.ImageFsInfoRequest())).image_filesystems
    assert info[0].fs_id.mountpoint
