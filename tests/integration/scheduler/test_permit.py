"""Permit plugins that hold pods back, against a real API server."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from api.models import core_v1
from scheduler.framework.events import Registration
from scheduler.framework.interface import Permission
from scheduler.framework.pod_info import PodInfo
from scheduler.scheduler import Scheduler
from tests.integration.scheduler.cluster import Cluster, bound, is_bound, refused, running_scheduler, until
from tests.unit.scheduler.objects import node, pod

NS = "default"


class Gate:
    """A Permit plugin that holds pods of one name."""

    name = "Gate"

    def __init__(self, wait: float) -> None:
        self._wait = wait

    def registrations(self) -> Sequence[Registration]:
        return ()

    def permit(self, pod: PodInfo, node: str) -> Permission:
        if pod.name == "never":
            return Permission("not today")
        return Permission(wait=self._wait if pod.name == "held" else 0.0)


def with_gate(scheduler: Scheduler, wait: float) -> None:
    for framework in scheduler._profiles.values():
        framework.permit.append(Gate(wait))


async def test_permit_holds_lets_go_and_rejects(cluster: Cluster) -> None:
    async with running_scheduler(cluster.server) as scheduler:
        with_gate(scheduler, 900.0)
        await cluster.add_node(node("n0"))
        await cluster.add_pod(pod("held", {"cpu": "1"}))

        async def is_held() -> bool:
            return len(scheduler.waiting) == 1

        await until(is_held)
        await cluster.add_pod(pod("free", {"cpu": "1"}))
        await bound(cluster, "free")  # others pass by
        assert not await is_bound(cluster, "held")
        (waiting,) = scheduler.waiting
        assert list(waiting.pending_plugins) == ["Gate"]
        waiting.allow("Gate")
        assert await bound(cluster, "held") == waiting.node
        assert not len(scheduler.waiting)
        await cluster.add_pod(pod("never", {"cpu": "1"}))
        await refused(cluster, "never", "0/1 nodes are available: 1 not today.")


@pytest.mark.parametrize("ending", ["timeout", "rejected", "deleted"])
async def test_a_held_pod_gives_its_room_back(cluster: Cluster, ending: str) -> None:
    async with running_scheduler(cluster.server) as scheduler:
        with_gate(scheduler, 1.0 if ending == "timeout" else 900.0)
        await cluster.add_node(node("n0", cpu="2"))
        await cluster.add_pod(pod("held", {"cpu": "2"}))

        async def is_held() -> bool:
            return len(scheduler.waiting) == 1

        if ending != "timeout":
            await until(is_held)
        if ending == "rejected":
            (waiting,) = scheduler.waiting
            waiting.reject("Gate", "changed my mind")
        if ending == "deleted":
            await cluster.client.delete(core_v1.Pod, "held", NS, grace_period_seconds=0)
        else:
            wanted = (
                "changed my mind" if ending == "rejected" else "rejected due to timeout after waiting 1s at plugin Gate"
            )
            await refused(cluster, "held", f"0/1 nodes are available: 1 {wanted}.")
        await cluster.add_pod(pod("next", {"cpu": "2"}))
        assert await bound(cluster, "next") == "n0"
