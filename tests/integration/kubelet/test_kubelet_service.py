"""Logs and statistics over KubeletService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from machinery.errors import NotFound, StatusError
from machinery.grpc import status_of
from proto.kubelet.v1 import kubelet_pb2 as pb
from tests.integration.kubelet.conftest import FOREVER, Site


async def read(stub: Any, **wish: Any) -> str:
    try:
        return b"".join(
            [chunk.data async for chunk in stub.GetLogs(pb.LogsRequest(namespace="default", **wish))]
        ).decode()
    except grpc.aio.AioRpcError as error:
        raise status_of(error) from error


async def test_logs_of_a_running_container(site: Site) -> None:
    await site.create("web", {"command": FOREVER})
    await site.phase("web", "Running")
    site.runtime.write_log(site.containers("web")[0].status.id, "one\ntwo\nthree")
    stub = site.stub()
    assert await read(stub, pod="web") == "one\ntwo\nthree\n"
    assert await read(stub, pod="web", tail_lines=1) == "three\n"
    assert await read(stub, pod="web", limit_bytes=5) == "one\nt"
    with pytest.raises(StatusError, match="container other is not valid for pod web"):
        await read(stub, pod="web", container="other")
    with pytest.raises(StatusError, match='previous terminated container "main" in pod "web" not found'):
        await read(stub, pod="web", previous=True)
    with pytest.raises(StatusError, match='pods "none" not found'):
        await read(stub, pod="none")
    await site.channel.close()


async def test_following_ends_with_the_container(site: Site) -> None:
    await site.create("web", {"command": FOREVER}, restartPolicy="Never")
    await site.phase("web", "Running")
    identity = site.containers("web")[0].status.id
    site.runtime.write_log(identity, "early")
    stub = site.stub()
    got: list[str] = []

    async def follow() -> None:
        async for chunk in stub.GetLogs(pb.LogsRequest(namespace="default", pod="web", follow=True)):
            got.append(chunk.data.decode())
            if got == ["early\n"]:
                site.runtime.write_log(identity, "late")
            elif "".join(got) == "early\nlate\n":
                site.runtime.finish(identity, 0)

    async with asyncio.timeout(10):
        await follow()
    assert "".join(got) == "early\nlate\n"
    await site.channel.close()


async def test_statistics_name_pods_and_containers(site: Site) -> None:
    site.runtime.usage["main"] = (250_000_000, 5 << 20)
    await site.create("web", {"command": FOREVER})
    await site.phase("web", "Running")
    summary = await site.stub().GetStats(pb.StatsRequest())
    assert summary.node == "node-1"
    assert [(pod.name, [c.name for c in pod.containers]) for pod in summary.pods] == [("web", ["main"])]
    assert summary.pods[0].usage.cpu_usage_nanocores == 250_000_000
    assert summary.pods[0].usage.memory_working_set_bytes == 5 << 20
    await site.channel.close()


async def stream(call: Any, wish: pb.StreamOpen) -> list[pb.StreamOutput]:
    async def inputs() -> AsyncIterator[pb.StreamInput]:
        yield pb.StreamInput(open=wish)

    try:
        return [output async for output in call(inputs())]
    except grpc.aio.AioRpcError as error:
        raise status_of(error) from error


async def test_streams_to_a_container_that_has_ended(site: Site) -> None:
    await site.create("web", {"command": FOREVER}, restartPolicy="Never")
    await site.phase("web", "Running")
    site.runtime.finish(site.containers("web")[0].status.id, 0)
    await site.phase("web", "Succeeded")
    stub = site.stub()
    wish = pb.StreamOpen(namespace="default", pod="web", container="main", command=["ls"], stdout=True)
    with pytest.raises(NotFound) as attached:
        await stream(stub.Attach, wish)
    assert attached.value.message == "container main not found in pod web_default"
    with pytest.raises(NotFound) as executed:
        await stream(stub.Exec, wish)
    assert executed.value.message == 'container not found ("main")'
    await site.channel.close()
