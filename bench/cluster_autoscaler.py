"""One decision of the cluster autoscaler: 1,000 nodes, 3,000 waiting pods, ten groups. In process, no I/O."""

from __future__ import annotations

import time

from bench.harness import Figure, median, say
from cluster_autoscaler.planner import Plan
from tests.unit.cluster_autoscaler.scene import Scene

NODES, PODS, GROUPS, SHAPES = 1000, 3000, 10, 30
ROUNDS = 3


def decided(idle: bool) -> tuple[float, Plan]:
    """Seconds for one decision. `idle`: a third of the nodes is nearly empty and no pod waits."""
    scene = Scene()
    for number in range(GROUPS):
        scene.group(f"g{number}", 0, 2000, cpu=str(4 + 2 * (number % 4)), memory=f"{16 + 8 * (number % 4)}Gi")
    for number in range(NODES):
        name = scene.node(f"g{number % GROUPS}")
        light = idle and number % 3 == 0
        for index in range(2 if light else 10):
            full = 390 + 200 * (number % GROUPS % 4)  # a tenth of the node, nearly
            cpu = f"{100 if light else full}m"
            scene.pod(f"p{number}-{index}", cpu=cpu, memory="1Gi", node=name, owner=f"o{index}")
    for number in range(0 if idle else PODS):
        shape = number % SHAPES
        scene.pod(f"w{number}", cpu=f"{500 + 50 * shape}m", memory="1Gi", owner=f"w{shape}")
    started = time.monotonic()
    plan = scene.decide()
    return time.monotonic() - started, plan


def run() -> list[Figure]:
    """The median of some rounds."""
    took = []
    for _ in range(ROUNDS):
        seconds, plan = decided(idle=False)
        took.append(seconds)
        say(f"cluster_autoscaler: {seconds:.2f} s, {[str(each) for each in plan.scale_up.raises]}")
    down = median([decided(idle=True)[0] for _ in range(ROUNDS)])
    what = (
        f"cluster autoscaler's decision, {NODES:,} nodes, {GROUPS} groups: {PODS:,} waiting pods; a third nearly idle"
    )
    return [Figure(what, f"{median(took):.2f} s; {down:.2f} s", "5 s")]
