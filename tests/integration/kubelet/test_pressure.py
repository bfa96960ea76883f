"""A node short of memory: it says so, evicts by rank and takes no BestEffort pods."""

from __future__ import annotations

from api.models import core_v1
from kubelet.eviction.monitor import EvictionMonitor
from kubelet.eviction.plan import parse_thresholds
from kubelet.pod.cgroups import PodCgroups
from tests.integration.kubelet.conftest import FOREVER, NODE, Site, condition, until

MI = 1 << 20


class Counted(PodCgroups):
    """A machine whose memory use the test sets."""

    used = 0

    def machine_usage(self) -> tuple[int, int, int, int, int] | None:
        return 0, 0, self.used, self.used, self.used


async def no_images() -> int:
    return 0


async def test_memory_pressure(site: Site) -> None:
    await site.create("small", {"command": FOREVER, "resources": {"requests": {"memory": "64Mi"}}})
    await site.create("greedy", {"name": "hungry", "command": FOREVER})
    for name in ("small", "greedy"):
        await site.phase(name, "Running")
    site.runtime.usage["hungry"] = (1, 500 * MI)
    machine = Counted("")
    machine.used = 1990 * MI
    pods = site.kubelet.pods
    assert pods is not None
    monitor = EvictionMonitor(
        site.cri,
        site.clock,
        machine,
        site.folder,
        2048 * MI,
        parse_thresholds("memory.available<100Mi"),
        pods.workers,
        site.kubelet.reporter.look,
        site.kubelet._warn,
        no_images,
    )
    site.kubelet.reporter.pressures = lambda: monitor.pressures
    pods._pressures = lambda: monitor.pressures
    await monitor.look()
    failed = await site.phase("greedy", "Failed")
    assert failed.status is not None and failed.status.reason == "Evicted"
    assert failed.status.message == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 58Mi. "
        "Container hungry was using 500Mi, request is 0, has larger consumption of memory. "
    )
    assert condition(failed, "DisruptionTarget") == ("True", "TerminationByKubelet")
    await site.phase("small", "Running")

    async def told() -> bool:
        node = await site.client.get(core_v1.Node, NODE)
        found = {each.type: each.reason for each in (node.status.conditions if node.status else None) or ()}
        return found.get("MemoryPressure") == "KubeletHasInsufficientMemory"

    await until(told, "MemoryPressure")
    await site.create("late", {"command": FOREVER})
    refused = await site.phase("late", "Failed")
    assert refused.status is not None
    assert refused.status.message == "Pod was rejected: The node had condition: [MemoryPressure]. "
    await site.create("late-small", {"command": FOREVER, "resources": {"requests": {"memory": "1Mi"}}})
    await site.phase("late-small", "Running")
