"""Explanations through the scheduler's own door, and profiles from a file, with the whole process' wiring."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from api.models import core_v1
from cli.explain import render
from machinery import grpc as transport
from machinery import log
from machinery.clock import RealClock
from machinery.component import ComponentContext
from machinery.errors import NotFound
from machinery.health import HealthServer
from proto.explain.v1 import explain_pb2 as pb
from proto.explain.v1 import explain_pb2_grpc
from scheduler import app
from tests.integration.controller_manager import volumes as v
from tests.integration.scheduler.cluster import DEADLINE, IDENTITY, SCALE, Cluster, bound, refused, until
from tests.unit.scheduler.objects import node, pod


@contextlib.asynccontextmanager
async def process(cluster: Cluster, *flags: str) -> AsyncIterator[None]:
    """All of the scheduler process but the process."""
    pair = cluster.server.pki.client(IDENTITY)
    files = ["--ca", str(pair.ca), "--cert", str(pair.cert), "--key", str(pair.key)]
    args = app.parser().parse_args(["--api-server", cluster.server.grpc_target, *files, *flags])
    stop = asyncio.Event()
    context = ComponentContext(app.NAME, RealClock(SCALE), stop, HealthServer(), log.get("test"))
    running = asyncio.ensure_future(app.serve(context, args))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(DEADLINE):
            await running


async def ask(socket: Path, name: str) -> pb.PodExplanation:
    async with transport.channel(f"unix:{socket}") as channel:
        stub: Any = explain_pb2_grpc.ExplainServiceStub(channel)
        try:
            answer: pb.PodExplanation = await stub.ExplainPod(
                pb.ExplainPodRequest(namespace="default", name=name), wait_for_ready=True, timeout=DEADLINE
            )
        except grpc.aio.AioRpcError as error:
            raise transport.status_of(error) from error
        return answer


async def test_the_door_tells_verdicts_and_scores(cluster: Cluster, tmp_path: Path) -> None:
    socket = tmp_path / "explain"
    await cluster.add_node(node("worker-1", cpu="1"))
    await cluster.add_node(node("worker-2", labels={"disk": "ssd"}, cpu="4"))
    async with process(cluster, "--explain", f"unix:{socket}"):
        await cluster.add_pod(pod("web", {"cpu": "2"}))
        assert await bound(cluster, "web") == "worker-2"
        found = await ask(socket, "web")
        assert (found.last.node, found.last.number, found.last.node_count) == ("worker-2", 1, 2)
        assert not found.recomputed
        verdicts = {verdict.node: verdict for verdict in found.nodes}
        assert list(verdicts["worker-1"].reasons) == ["Insufficient cpu"]
        assert verdicts["worker-1"].refused_by == "NodeResourcesFit"
        scores = {score.plugin: score.score for score in verdicts["worker-2"].scores}
        assert scores["NodeResourcesFit"] == 73 and sum(scores.values()) == found.last.score

        await cluster.add_pod(pod("huge", {"cpu": "9"}))
        message = await refused(cluster, "huge")
        found = await ask(socket, "huge")
        assert found.last.message == message
        assert found.queue == "unschedulable"

        await cluster.add_pod(pod("gated", schedulingGates=[core_v1.PodSchedulingGate(name="example.com/wait")]))

        async def gated() -> bool:
            with contextlib.suppress(NotFound):
                return (await ask(socket, "gated")).gate == "waiting for scheduling gates: [example.com/wait]"
            return False

        await until(gated)
        with pytest.raises(NotFound):
            await ask(socket, "nobody")


async def test_profiles_of_a_file_are_served_side_by_side(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.yaml"
    file.write_text(
        """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
- schedulerName: packer
  pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated}}
"""
    )
    for index in (1, 2):
        await cluster.add_node(node(f"worker-{index}"))
    async with process(cluster, "--config", str(file)):
        await cluster.add_pod(pod("first", {"cpu": "1", "memory": "2Gi"}))
        home = await bound(cluster, "first")
        await cluster.add_pod(pod("packed", {"cpu": "1", "memory": "2Gi"}, schedulerName="packer"))
        assert await bound(cluster, "packed") == home
        await cluster.add_pod(pod("spread", {"cpu": "1", "memory": "2Gi"}))
        assert await bound(cluster, "spread") != home


async def test_the_door_tells_how_it_stands_with_claims(cluster: Cluster, tmp_path: Path) -> None:
    socket = tmp_path / "explain"
    await cluster.add_node(node("worker-1"))
    await cluster.client.create(v.storage_class("late", "example.com/disk", delayed=True))
    await cluster.client.create(v.claim("a", class_="late", accessModes=["ReadWriteOnce"]))
    await cluster.client.create(v.claim("b", class_=""))
    claims = [core_v1.PersistentVolumeClaimVolumeSource(claimName=name) for name in "abc"]
    volumes = [core_v1.Volume(name=f"v{at}", persistentVolumeClaim=each) for at, each in enumerate(claims)]
    await cluster.add_pod(pod("web", volumes=volumes))
    async with process(cluster, "--explain", f"unix:{socket}"):
        await refused(cluster, "web")
        found = await ask(socket, "web")
        assert {claim.name: claim.state for claim in found.claims} == {
            "a": "will be bound where its pod goes (class late)",
            "b": "is not bound yet, and does not wait for its pod (no class)",
            "c": "does not exist",
        }
        assert "Claim c does not exist." in render("default/web", found)
