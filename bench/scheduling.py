"""Pods from the client's create to bound, end to end: clients, API server, etcd, scheduler; nodes are hollow.

The hollow nodes are kept alive by one process and run no pods, so that only the control plane is measured.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from functools import partial

import uvloop

from bench.clients import Counter, Creator, opened
from bench.harness import Figure, cluster, median, say
from bench.load import Target, cpu
from tests.harness.nanokube import Cluster

PODS, CLIENTS, ROUNDS = 2000, 16, 3
REPLICAS = 500
LIMIT = 120.0
PATH = "/api/v1/namespaces/default/pods"
PLANE = ("--only", "apiserver,scheduler,controller-manager")
BOUND = f"{PATH}?watch=1&fieldSelector=spec.nodeName!=&timeoutSeconds=300"
META = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
BODY = (
    '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%s","labels":{"app":"bench"}},"spec":{"containers":'
    '[{"name":"c","image":"registry.k8s.io/pause:3.9","resources":{"requests":{"cpu":"1m","memory":"1Mi"}}}]}}'
)


async def _created_and_bound(target: Target) -> float:
    """Pods per second from the first create to the last binding seen by a watcher."""
    seen = Counter(target, BOUND, b'"type":"ADDED"', META)
    transports = [await opened(target, seen)]
    await _created(target, transports, started := time.monotonic())
    rate = PODS / (await seen.reached(PODS, LIMIT) - started)
    for transport in transports:
        transport.close()
    return rate


async def _created(target: Target, transports: list[asyncio.BaseTransport], stamp: float) -> None:
    made = 0

    def wanted() -> tuple[str, str] | None:
        nonlocal made
        if made >= PODS:
            return None
        made += 1
        name = f"p-{int(stamp * 1000)}-{made}"
        return name, BODY % name

    creators = [Creator(target, PATH, wanted) for _ in range(CLIENTS)]
    transports += [await opened(target, creator) for creator in creators]
    await asyncio.gather(*(creator.done for creator in creators))


async def _bound(target: Target, start: Callable[[], object], count: int) -> float:
    """Seconds from `start` to the last of `count` bindings."""
    seen = Counter(target, BOUND, b'"type":"ADDED"', META)
    transport = await opened(target, seen)
    await asyncio.sleep(0.2)  # a watch without events yet says nothing by which to see that it is there
    started = time.monotonic()
    await asyncio.get_running_loop().run_in_executor(None, start)
    took = await seen.reached(count, LIMIT) - started
    transport.close()
    return took


def _emptied(made: Cluster) -> None:
    made.kubectl("delete", f"--raw={PATH}?gracePeriodSeconds=0", timeout=120)


def _burst(made: Cluster, nodes: int) -> Figure:
    target = Target(made)
    pids = {entry["component"]: int(entry["pid"]) for entry in made.processes()}
    rates = []
    for number in range(ROUNDS):
        before = {name: cpu(pid) for name, pid in pids.items()}
        rates.append(uvloop.run(_created_and_bound(target)))
        spent = ", ".join(f"{name} {(cpu(pid) - before[name]) / PODS * 1e6:.0f}" for name, pid in pids.items())
        say(f"scheduling: {nodes} nodes, round {number + 1}: {rates[-1]:.0f} pods/s; CPU a pod in µs: {spent}")
        _emptied(made)
    target_rate, real = {100: ("800", "383"), 1000: ("800", "286"), 5000: ("700", "267")}[nodes]
    what = f"{PODS:,} pods created by {CLIENTS} clients and bound, {nodes:,} hollow nodes"
    return Figure(what, f"{median(rates):,.0f} pods/s", f"{target_rate}/s", f"{real}/s")


def _rollout(made: Cluster) -> Figure:
    target = Target(made)
    times = []
    for number in range(ROUNDS):
        made.kubectl("create", "deployment", "many", "--image=registry.k8s.io/pause:3.9", "--replicas=0")
        start = lambda: made.kubectl("scale", "deployment/many", f"--replicas={REPLICAS}")  # noqa: E731
        times.append(uvloop.run(_bound(target, start, REPLICAS)))
        say(f"scheduling: Deployment 0 → {REPLICAS}, round {number + 1}: {times[-1]:.2f} s")
        made.kubectl("delete", "deployment", "many", "--cascade=foreground", "--wait=false")
        _emptied(made)
        made.kubectl("wait", "--for=delete", "deployment/many", "--timeout=60s", check=False)
    what = f"Deployment 0 → {REPLICAS} pods created and bound, 100 hollow nodes"
    return Figure(what, f"{median(times):.2f} s", "1.0 s", "1.35 s")


def _backlog(made: Cluster, nodes: int) -> Figure:
    """The scheduler is held, pods are created, and it is killed: the time includes the start of the next one."""
    target = Target(made)
    rates = []
    for number in range(ROUNDS):
        pid = made.pid("scheduler")
        os.kill(pid, signal.SIGSTOP)
        uvloop.run(_filled(target))
        took = uvloop.run(_bound(target, partial(os.kill, pid, signal.SIGKILL), PODS))
        rates.append(PODS / took)
        say(f"scheduling: backlog, {nodes} nodes, round {number + 1}: {rates[-1]:.0f} pods/s")
        _emptied(made)
    what = f"a backlog of {PODS:,} pods, scheduler started last, {nodes:,} hollow nodes"
    return Figure(what, f"{median(rates):,.0f} pods/s", "1,000/s", "366-401/s")


async def _filled(target: Target) -> None:
    transports: list[asyncio.BaseTransport] = []
    await _created(target, transports, time.monotonic())
    for transport in transports:
        transport.close()


def run() -> list[Figure]:
    """A cluster each: numbers of nodes must not be seen by the next."""
    figures: list[Figure] = []
    for nodes in (100, 1000, 5000):
        with cluster("bench-sched", *PLANE) as made:
            made.nanokube("hollow", str(nodes), "--no-pods", "--max-pods", "10000", "--cpu", "64")
            figures.append(_burst(made, nodes))
            if nodes == 1000:
                figures.append(_backlog(made, nodes))
            if nodes == 100:
                figures.append(_rollout(made))
    return figures
