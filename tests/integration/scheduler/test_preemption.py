"""Preemption, affinity and spreading as a user sees them through the API."""

from __future__ import annotations

import asyncio
from collections import Counter

from api.models import apps_v1, core_v1, meta_v1, policy_v1, scheduling_v1
from client.client import Client
from tests.integration.scheduler.cluster import Cluster, bound, refused, running_scheduler, until
from tests.unit.scheduler.objects import node, pod

ZONE = "topology.kubernetes.io/zone"
HOSTNAME = "kubernetes.io/hostname"


async def add_class(client: Client, name: str, value: int, policy: str | None = None) -> None:
    await client.create(
        scheduling_v1.PriorityClass(metadata=meta_v1.ObjectMeta(name=name), value=value, preemptionPolicy=policy)
    )


async def finish(cluster: Cluster, name: str) -> None:
    """What a kubelet does when the grace period is over."""
    await cluster.client.delete(core_v1.Pod, name, "default", grace_period_seconds=0)


async def test_a_victim_is_told_leaves_in_its_own_time_and_makes_room(cluster: Cluster) -> None:
    await add_class(cluster.client, "high", 1000)
    await cluster.add_node(node("worker-1", cpu="2"))
    async with running_scheduler(cluster.server) as scheduler:
        await cluster.add_pod(pod("low", {"cpu": "2"}, terminationGracePeriodSeconds=25))
        await bound(cluster, "low")
        await cluster.add_pod(pod("high", {"cpu": "2"}, priorityClassName="high"))

        async def leaving() -> bool:
            metadata = (await cluster.pod("low")).metadata
            return metadata is not None and metadata.deletionTimestamp is not None

        await until(leaving)
        victim = await cluster.pod("low")
        assert victim.metadata is not None and victim.metadata.deletionGracePeriodSeconds == 25
        told = {each.type: each for each in (victim.status.conditions if victim.status else None) or ()}
        target = told["DisruptionTarget"]
        assert (target.status, target.reason) == ("True", "PreemptionByScheduler")
        assert target.message == "default-scheduler: preempting to accommodate a higher priority pod"

        await refused(cluster, "high", "0/1 nodes are available: 1 Insufficient cpu.")
        preemptor = await cluster.pod("high")
        assert preemptor.status is not None and preemptor.status.nominatedNodeName == "worker-1"
        assert preemptor.metadata is not None

        async def evented() -> bool:
            return bool(await cluster.messages("low", "Preempted"))

        await until(evented)
        text = f"Preempted by pod {preemptor.metadata.uid} on node worker-1"
        assert await cluster.messages("low", "Preempted") == [text]

        # While the victim leaves, the room is the preemptor's: a pod that would fit afterwards waits.
        await cluster.add_pod(pod("opportunist", {"cpu": "1"}))
        await refused(cluster, "opportunist")
        await finish(cluster, "low")
        assert await bound(cluster, "high") == "worker-1"
        assert await cluster.node_of("opportunist") == ""
        assert scheduler.evictor.evicted == 1
        assert len(scheduler.nominations) == 0 and not scheduler.nominations.evicting


async def test_budgets_choose_the_victim_and_never_means_never(cluster: Cluster) -> None:
    await add_class(cluster.client, "high", 1000)
    await add_class(cluster.client, "polite", 2000, "Never")
    for index in (1, 2):
        await cluster.add_node(node(f"worker-{index}", cpu="2", labels={"disk": str(index)}))
    budget = policy_v1.PodDisruptionBudget(
        metadata=meta_v1.ObjectMeta(name="kept", namespace="default"),
        spec=policy_v1.PodDisruptionBudgetSpec(
            minAvailable=1, selector=meta_v1.LabelSelector(matchLabels={"app": "db"})
        ),
    )
    await cluster.client.create(budget)
    async with running_scheduler(cluster.server):
        await cluster.add_pod(pod("db", {"cpu": "2"}, labels={"app": "db"}, nodeSelector={"disk": "1"}))
        await cluster.add_pod(pod("web", {"cpu": "2"}, labels={"app": "web"}, nodeSelector={"disk": "2"}))
        await bound(cluster, "db")
        await bound(cluster, "web")
        await cluster.add_pod(pod("polite", {"cpu": "2"}, priorityClassName="polite"))
        assert (await refused(cluster, "polite")).endswith("preemption: not eligible due to preemptionPolicy=Never.")
        await cluster.client.delete(core_v1.Pod, "polite", "default", grace_period_seconds=0)
        await cluster.add_pod(pod("high", {"cpu": "2"}, priorityClassName="high"))

        async def web_leaves() -> bool:
            metadata = (await cluster.pod("web")).metadata
            return metadata is not None and metadata.deletionTimestamp is not None

        await until(web_leaves)
        await finish(cluster, "web")
        assert await bound(cluster, "high") == "worker-2"
        assert await cluster.node_of("db") == "worker-1"


async def test_a_promise_survives_the_scheduler(cluster: Cluster) -> None:
    await add_class(cluster.client, "high", 1000)
    await cluster.add_node(node("worker-1", cpu="2"))
    async with running_scheduler(cluster.server):
        await cluster.add_pod(pod("low", {"cpu": "2"}))
        await bound(cluster, "low")
        await cluster.add_pod(pod("high", {"cpu": "2"}, priorityClassName="high"))

        async def promised() -> bool:
            status = (await cluster.pod("high")).status
            return status is not None and status.nominatedNodeName == "worker-1"

        await until(promised)
    async with running_scheduler(cluster.server) as scheduler:

        async def known() -> bool:
            return len(scheduler.nominations) == 1

        await until(known)
        await finish(cluster, "low")
        assert await bound(cluster, "high") == "worker-1"


async def test_pods_keep_apart_and_together(cluster: Cluster) -> None:
    for index in range(3):
        await cluster.add_node(node(f"worker-{index}", labels={ZONE: f"z{index % 2}"}))

    def term(app: str, key: str) -> core_v1.PodAffinityTerm:
        return core_v1.PodAffinityTerm(topologyKey=key, labelSelector=meta_v1.LabelSelector(matchLabels={"app": app}))

    apart = core_v1.Affinity(
        podAntiAffinity=core_v1.PodAntiAffinity(requiredDuringSchedulingIgnoredDuringExecution=[term("db", HOSTNAME)])
    )
    near = core_v1.Affinity(
        podAffinity=core_v1.PodAffinity(requiredDuringSchedulingIgnoredDuringExecution=[term("cache", ZONE)])
    )
    async with running_scheduler(cluster.server):
        for index in range(3):
            await cluster.add_pod(pod(f"db-{index}", labels={"app": "db"}, affinity=apart))
        assert {await bound(cluster, f"db-{index}") for index in range(3)} == {"worker-0", "worker-1", "worker-2"}
        await cluster.add_pod(pod("db-3", labels={"app": "db"}, affinity=apart))
        assert await refused(cluster, "db-3") == (
            "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules. "
            "preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."
        )
        await cluster.add_pod(pod("front", affinity=near))
        await refused(cluster, "front", "3 node(s) didn't match pod affinity rules")
        # The event of the pod it waits for wakes it.
        await cluster.add_pod(pod("cache", labels={"app": "cache"}, nodeSelector={ZONE: "z1"}))
        assert await bound(cluster, "cache") == "worker-1"
        assert await bound(cluster, "front") == "worker-1"
        await finish(cluster, "db-0")
        assert await bound(cluster, "db-3") != ""


async def test_the_pods_of_a_replica_set_spread_by_default(cluster: Cluster) -> None:
    for index in range(4):
        await cluster.add_node(node(f"worker-{index}"))
    template = core_v1.PodTemplateSpec(
        metadata=meta_v1.ObjectMeta(labels={"app": "web"}),
        spec=core_v1.PodSpec(containers=[core_v1.Container(name="app", image="busybox")]),
    )
    owner = await cluster.client.create(
        apps_v1.ReplicaSet(
            metadata=meta_v1.ObjectMeta(name="web", namespace="default"),
            spec=apps_v1.ReplicaSetSpec(selector=meta_v1.LabelSelector(matchLabels={"app": "web"}), template=template),
        )
    )
    assert owner.metadata is not None
    reference = meta_v1.OwnerReference(
        apiVersion="apps/v1", kind="ReplicaSet", name="web", uid=owner.metadata.uid or "", controller=True
    )
    async with running_scheduler(cluster.server):
        # Without spreading, the score of the emptiest node would send these to the same two nodes.
        for index in range(2):
            await cluster.add_pod(pod(f"big-{index}", {"cpu": "3", "memory": "6Gi"}))
            await bound(cluster, f"big-{index}")
        for index in range(8):
            made = pod(f"web-{index}", labels={"app": "web"})
            assert made.metadata is not None
            made.metadata.ownerReferences = [reference]
            await cluster.add_pod(made)
        homes = Counter([await bound(cluster, f"web-{index}") for index in range(8)])
        assert len(homes) == 4, homes


async def test_hard_spreading_waits_for_a_domain(cluster: Cluster) -> None:
    await cluster.add_node(node("worker-1", labels={ZONE: "a"}))
    await cluster.add_node(node("worker-2"))
    constraint = core_v1.TopologySpreadConstraint(
        maxSkew=1,
        topologyKey=ZONE,
        whenUnsatisfiable="DoNotSchedule",
        minDomains=2,
        labelSelector=meta_v1.LabelSelector(matchLabels={"app": "web"}),
    )
    async with running_scheduler(cluster.server):
        for name in ("one", "two"):
            await cluster.add_pod(pod(name, labels={"app": "web"}, topologySpreadConstraints=[constraint]))
            await asyncio.sleep(0)
        first = await until_one(cluster, ("one", "two"))
        waiting = "two" if first == "one" else "one"
        assert (await refused(cluster, waiting)).startswith(
            "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, "
            "1 node(s) didn't match pod topology spread constraints (missing required label). preemption: "
        )
        await cluster.add_node(node("worker-3", labels={ZONE: "b"}))
        assert await bound(cluster, waiting) == "worker-3"


async def until_one(cluster: Cluster, names: tuple[str, ...]) -> str:
    found: list[str] = []

    async def some() -> bool:
        found[:] = [name for name in names if await cluster.node_of(name)]
        return bool(found)

    await until(some)
    return found[0]
