"""Memory of an idle cluster, after it has settled."""

from __future__ import annotations

import time

from bench.harness import Figure, cluster, memory, say

SETTLE = 20.0  # real seconds


def run() -> list[Figure]:
    """Proportional set size counts pages that forked processes share once; the resident sums stand beside it."""
    with cluster("bench-memory", "--workers", "3") as made:
        time.sleep(SETTLE)  # what is measured is an idle cluster
        plane = [0.0, 0.0]
        worker = [0.0, 0.0]
        for entry in made.processes():
            pss, rss = memory(entry["pid"])
            say(f"memory: {entry['component']} {entry['node']}: PSS {pss:.0f}, RSS {rss:.0f} MiB")
            group = None
            if entry["node"] == "worker-1":
                group = worker
            elif not entry["node"] and entry["component"] != "etcd":
                group = plane
            if group is not None:
                group[0] += pss
                group[1] += rss
        supervisor = int((made.root / "run" / "supervisor.pid").read_text().split()[0])
        pss, rss = memory(supervisor)
        plane[0] += pss
        plane[1] += rss
    return [
        Figure("control plane idle (etcd excluded), PSS (sum of RSS)", _told(plane), "200 MiB", "460 MiB"),
        Figure("one worker idle (kubelet, runtime, kube-proxy), PSS (sum of RSS)", _told(worker), "120 MiB"),
    ]


def _told(group: list[float]) -> str:
    return f"{group[0]:.0f} MiB ({group[1]:.0f})"
