"""Random processes are killed at random moments while a Deployment is scaled: it converges, `down` leaves nothing."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.harness.nanokube import Cluster, eventually, traces

KILLS = 14
COMMAND = ("--image=busybox", "--", "sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait")


@pytest.fixture
def cluster(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster("chaos", tmp_path_factory.mktemp("home"))
    made.nanokube("down")
    made.nanokube("up", "--workers", "2", "--time-scale", "10")
    yield made
    made.nanokube("down")


def kill_one(cluster: Cluster, chance: random.Random) -> str:
    """SIGKILL a process of the cluster: a component, or what holds a container (conmon, its first process)."""
    entries = [entry for entry in cluster.processes() if entry["pid"]]
    victim = chance.choice([*entries, "container", "container"])
    if isinstance(victim, dict):
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim["pid"], signal.SIGKILL)
        if victim["component"] == "kubelet":
            cluster.nanokube("node", "start", victim["node"])
        return f"{victim['component']} {victim['node']}"
    inside = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_of_a_container(pid, cluster)]
    if inside:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(inside), signal.SIGKILL)
    return "container"


def _is_of_a_container(pid: int, cluster: Cluster) -> bool:
    try:
        groups, name = (Path(f"/proc/{pid}/{file}").read_text() for file in ("cgroup", "comm"))
    except OSError:
        return False
    return f"/nanokube/{cluster.name}/worker-" in groups and name.strip() in ("conmon", "sh")


def scaled(cluster: Cluster, replicas: int) -> bool:
    """Try once; the API server may be the one that was killed."""
    return "scaled" in cluster.kubectl("scale", "deployment/web", f"--replicas={replicas}", check=False)


def test_chaos(cluster: Cluster) -> None:
    seed = int(os.environ.get("ROBUSTNESS_SEED") or "7")
    chance = random.Random(seed)
    cluster.kubectl("create", "deployment", "web", "--replicas=4", *COMMAND)
    done = []
    for _ in range(KILLS):
        done.append(kill_one(cluster, chance))
        replicas = chance.randrange(2, 9)
        told = f"seed {seed}, killed so far: {done}"
        eventually(partial(scaled, cluster, replicas), f"scaling ({told})", 60)
    cluster.kubectl("scale", "deployment/web", "--replicas=5")

    def settled() -> bool:
        pods = cluster.pods("app=web")
        return len(pods) == 5 and len(cluster.running("app=web")) == 5

    eventually(settled, f"five Ready pods and no others (seed {seed}: {done})", 90)
    eventually(lambda: len(cluster.ready_nodes()) == 2, "two Ready nodes", 60)
    cluster.nanokube("down")
    assert traces(cluster) == [], f"seed {seed}: {done}"
