"""The scheduler against a real API server in this process: what a user sees of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from api.models import core_v1
from machinery import log
from machinery.clock import RealClock
from machinery.component import ComponentContext
from machinery.errors import ServiceUnavailable
from machinery.health import HealthServer
from machinery.meta import ObjectKey
from scheduler import app
from scheduler.framework.pod_info import PodInfo
from scheduler.plugins.default_binder import CreateBinding
from scheduler.queue import Place
from tests.integration.scheduler.cluster import (
    DEADLINE,
    IDENTITY,
    SCALE,
    Cluster,
    bound,
    refused,
    running_scheduler,
    until,
)
from tests.unit.scheduler.objects import affinity, container, expression, node, pod, term


async def test_a_pod_is_bound_and_its_event_says_where(cluster: Cluster) -> None:
    await cluster.add_node(node("worker-1"))
    await cluster.add_pod(pod("early", {"cpu": "1"}))
    async with running_scheduler(cluster.server):
        assert await bound(cluster, "early") == "worker-1"
        await cluster.add_pod(pod("late", {"cpu": "1"}))
        assert await bound(cluster, "late") == "worker-1"
        condition = await cluster.condition("late")
        assert condition is not None and condition.status == "True"

        async def told() -> bool:
            return await cluster.messages("late", "Scheduled") == ["Successfully assigned default/late to worker-1"]

        await until(told)


async def test_an_unschedulable_pod_waits_for_a_node(cluster: Cluster) -> None:
    async with running_scheduler(cluster.server):
        await cluster.add_pod(pod("web", {"cpu": "2"}))
        await refused(cluster, "web", "no nodes available to schedule pods")
        await cluster.add_node(node("small", cpu="1"))
        # The small node cannot help: the pod is not even tried again.
        await cluster.add_node(node("large", cpu="4"))
        assert await bound(cluster, "web") == "large"
        await cluster.add_pod(pod("next", {"cpu": "3"}))
        assert (await refused(cluster, "next")).startswith("0/2 nodes are available: 2 Insufficient cpu. preemption:")
        await cluster.client.delete(core_v1.Pod, "web", "default", grace_period_seconds=0)
        assert await bound(cluster, "next") == "large"
        condition = await cluster.condition("next")
        assert condition is not None and condition.status == "True"


async def test_uncordoning_labelling_and_untainting_release_pods(cluster: Cluster) -> None:
    async with running_scheduler(cluster.server):
        await cluster.add_node(node("worker-1"))
        await cluster.client.patch(
            core_v1.Node,
            "worker-1",
            {"spec": {"unschedulable": True, "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}},
        )
        await cluster.add_pod(pod("web", nodeSelector={"disk": "ssd"}))
        await refused(cluster, "web", "1 node(s) were unschedulable")
        await cluster.client.patch(core_v1.Node, "worker-1", {"spec": {"unschedulable": None}})

        def says(text: str) -> Callable[[], Awaitable[bool]]:
            async def told() -> bool:
                return text in await refused(cluster, "web")

            return told

        await until(says("1 node(s) had untolerated taint(s)"))
        await cluster.client.patch(core_v1.Node, "worker-1", {"spec": {"taints": None}})
        await until(says("1 node(s) didn't match Pod's node affinity/selector"))
        await cluster.client.patch(core_v1.Node, "worker-1", {"metadata": {"labels": {"disk": "ssd"}}})
        assert await bound(cluster, "web") == "worker-1"


async def test_many_pods_spread_and_never_exceed_a_node(cluster: Cluster) -> None:
    for index in range(5):
        await cluster.add_node(node(f"worker-{index}", cpu="2", pods="20"))
    async with running_scheduler(cluster.server) as scheduler:
        async with asyncio.TaskGroup() as group:
            for index in range(120):
                group.create_task(cluster.add_pod(pod(f"p{index}", {"cpu": "100m", "memory": "10Mi"})))

        async def settled() -> bool:
            return scheduler.scheduled == 100 and scheduler.queue.count(Place.WAITING) == 20

        await until(settled)
        pods = (await cluster.client.list(core_v1.Pod, "default")).items
        counts = Counter(each.spec.nodeName or "" for each in pods if each.spec is not None)
        assert counts == {"": 20, **{f"worker-{index}": 20 for index in range(5)}}


async def test_pods_of_other_schedulers_and_gated_pods_are_left_alone(cluster: Cluster) -> None:
    await cluster.add_node(node("worker-1"))
    async with running_scheduler(cluster.server):
        await cluster.add_pod(pod("foreign", schedulerName="other-scheduler"))
        await cluster.add_pod(pod("gated", schedulingGates=[core_v1.PodSchedulingGate(name="example.com/wait")]))
        await cluster.add_pod(pod("plain"))
        assert await bound(cluster, "plain") == "worker-1"
        assert await cluster.node_of("foreign") == ""
        assert await cluster.node_of("gated") == ""
        await cluster.client.patch(core_v1.Pod, "gated", {"spec": {"schedulingGates": None}}, "default")
        assert await bound(cluster, "gated") == "worker-1"
        assert await cluster.node_of("foreign") == ""


async def test_host_ports_and_affinity_to_a_name(cluster: Cluster) -> None:
    for index in range(2):
        await cluster.add_node(node(f"worker-{index}"))
    async with running_scheduler(cluster.server):
        for name in ("a", "b"):
            await cluster.add_pod(pod(name, containers=[container(ports=[("TCP", "", 8080)])]))
        assert {await bound(cluster, "a"), await bound(cluster, "b")} == {"worker-0", "worker-1"}
        await cluster.add_pod(pod("c", containers=[container(ports=[("TCP", "", 8080)])]))
        await refused(cluster, "c", "2 node(s) didn't have free ports for the requested pod ports")
        pinned = affinity(required=[term(fields=[expression("metadata.name", "In", "worker-1")])])
        await cluster.add_pod(pod("daemon", affinity=pinned))
        assert await bound(cluster, "daemon") == "worker-1"


async def test_two_schedulers_racing_bind_every_pod_once(cluster: Cluster) -> None:
    for index in range(3):
        await cluster.add_node(node(f"worker-{index}", pods="40"))
    async with running_scheduler(cluster.server) as one, running_scheduler(cluster.server) as other:
        for index in range(60):
            await cluster.add_pod(pod(f"p{index}"))

        async def all_bound() -> bool:
            pods = (await cluster.client.list(core_v1.Pod, "default")).items
            return all(each.spec is not None and each.spec.nodeName for each in pods)

        await until(all_bound)

        async def agreed() -> bool:
            return all(len(each.queue) == 0 and each.snapshot.pod_count == 60 for each in (one, other))

        await until(agreed)
        pods = (await cluster.client.list(core_v1.Pod, "default")).items
        for each in pods:
            assert each.metadata is not None and each.spec is not None
            uid = each.metadata.uid or ""
            assert one.snapshot.home_of(uid) == other.snapshot.home_of(uid) == each.spec.nodeName


async def test_a_restarted_scheduler_continues(cluster: Cluster) -> None:
    await cluster.add_node(node("worker-1", cpu="2"))
    async with running_scheduler(cluster.server):
        await cluster.add_pod(pod("first", {"cpu": "1500m"}))
        await bound(cluster, "first")
    await cluster.add_pod(pod("second", {"cpu": "1"}))
    async with running_scheduler(cluster.server) as scheduler:
        await refused(cluster, "second", "Insufficient cpu")
        assert scheduler.snapshot.pod_count == 1
        assert scheduler.decisions.get("default/second") is not None


async def test_a_failed_binding_is_taken_back_and_tried_again(cluster: Cluster) -> None:
    await cluster.add_node(node("worker-1", cpu="2"))
    failures = 0

    def failing(create: CreateBinding) -> CreateBinding:
        async def bind(target: PodInfo, binding: dict[str, Any]) -> object:
            nonlocal failures
            if failures < 3:
                failures += 1
                raise ServiceUnavailable("connection refused")
            return await create(target, binding)

        return bind

    async with running_scheduler(cluster.server, failing) as scheduler:
        await cluster.add_pod(pod("web", {"cpu": "2"}))
        assert await bound(cluster, "web") == "worker-1"
        assert failures == 3
        assert scheduler.errors == 3
        condition = await cluster.condition("web")
        assert condition is not None and condition.status == "True"
        assert scheduler.snapshot.pod_count == 1


async def test_a_binding_whose_answer_was_lost_counts_once(cluster: Cluster) -> None:
    await cluster.add_node(node("worker-1", cpu="4"))

    def deaf(create: CreateBinding) -> CreateBinding:
        async def bind(target: PodInfo, binding: dict[str, Any]) -> object:
            await create(target, binding)
            raise ServiceUnavailable("the answer got lost")

        return bind

    async with running_scheduler(cluster.server, deaf) as scheduler:
        for name in ("a", "b"):
            await cluster.add_pod(pod(name, {"cpu": "2"}))
            assert await bound(cluster, name) == "worker-1"

        async def settled() -> bool:
            return len(scheduler.queue) == 0 and scheduler.snapshot.pod_count == 2

        await until(settled)
        record = scheduler.snapshot.record("worker-1")
        assert record is not None and len(record.pods) == 2


async def test_a_pod_deleted_while_it_is_bound_frees_its_place(cluster: Cluster) -> None:
    await cluster.add_node(node("worker-1", cpu="2"))
    reached = asyncio.Event()
    gone = asyncio.Event()

    def slow(create: CreateBinding) -> CreateBinding:
        async def bind(target: PodInfo, binding: dict[str, Any]) -> object:
            if target.name == "first":
                reached.set()
                await gone.wait()
            return await create(target, binding)

        return bind

    async with running_scheduler(cluster.server, slow) as scheduler:
        await cluster.add_pod(pod("first", {"cpu": "2"}))
        async with asyncio.timeout(DEADLINE):
            await reached.wait()
        await cluster.add_pod(pod("second", {"cpu": "2"}))
        await refused(cluster, "second", "Insufficient cpu")
        await cluster.client.delete(core_v1.Pod, "first", "default", grace_period_seconds=0)
        gone.set()
        assert await bound(cluster, "second") == "worker-1"
        assert scheduler.snapshot.pod_count == 1


async def test_every_node_is_explained(cluster: Cluster) -> None:
    await cluster.add_node(node("worker-1", cpu="1"))
    await cluster.add_node(node("worker-2", labels={"disk": "ssd"}, cpu="1"))
    async with running_scheduler(cluster.server) as scheduler:
        await cluster.add_pod(pod("web", {"cpu": "2"}, nodeSelector={"disk": "ssd"}))
        await refused(cluster, "web")
        explanation = scheduler.explain(ObjectKey("default", "web"))
        assert explanation is not None and explanation.last is not None
        assert {verdict.node: verdict.reasons for verdict in explanation.nodes} == {
            "worker-1": ("node(s) didn't match Pod's node affinity/selector",),
            "worker-2": ("Insufficient cpu",),
        }
        assert explanation.last.reasons == {
            "Insufficient cpu": 1,
            "node(s) didn't match Pod's node affinity/selector": 1,
        }
        assert scheduler.explain(ObjectKey("default", "nobody")) is None


async def test_the_process_schedules_as_leader_and_stops_when_asked(cluster: Cluster) -> None:
    server = cluster.server
    pair = server.pki.client(IDENTITY)
    files = ["--ca", str(pair.ca), "--cert", str(pair.cert), "--key", str(pair.key)]
    args = app.parser().parse_args(["--api-server", server.grpc_target, *files, "--leader-elect"])
    stop = asyncio.Event()
    context = ComponentContext(app.NAME, RealClock(SCALE), stop, HealthServer(), log.get("test"))
    running = asyncio.ensure_future(app.serve(context, args))
    await cluster.add_node(node("worker-1"))
    await cluster.add_pod(pod("web"))
    assert await bound(cluster, "web") == "worker-1"
    assert context.health.is_ready
    stop.set()
    async with asyncio.timeout(DEADLINE):
        await running
