"""How long pods take: from bound to Running, and a Deployment of 30 to Ready."""

from __future__ import annotations

import json
import ssl
import time
import urllib.request
from typing import Any

from bench.harness import Figure, cluster, median, percentile, say
from cli import layout
from tests.harness.nanokube import Cluster, eventually

SINGLE, ROUNDS, REPLICAS = 20, 3, 30


class Watcher:
    """Watches pods over REST from this process, noting when each was first seen bound and first seen Running."""

    def __init__(self, made: Cluster) -> None:
        paths = layout.ClusterPaths.of(made.name)
        config = layout.load(paths)
        assert config is not None
        self._context = ssl.create_default_context(cafile=str(paths.pki / "ca.crt"))
        self._context.load_cert_chain(paths.pki / "admin.crt", paths.pki / "admin.key")
        self._url = f"https://127.0.0.1:{config.rest_port}/api/v1/namespaces/default/pods?watch=1&timeoutSeconds=30"

    def until_running(self, start: Any, count: int) -> dict[str, tuple[float, float]]:
        """Call `start`, watch until `count` pods run; name → (bound, running) in seconds of the monotonic clock."""
        bound: dict[str, float] = {}
        running: dict[str, float] = {}
        with urllib.request.urlopen(self._url, context=self._context, timeout=60) as stream:
            start()
            for line in stream:
                pod = json.loads(line)["object"]
                name, now = pod["metadata"]["name"], time.monotonic()
                if pod["spec"].get("nodeName"):
                    bound.setdefault(name, now)
                if pod["status"].get("phase") == "Running":
                    running.setdefault(name, now)
                if len(running) >= count:
                    break
        return {name: (bound[name], running[name]) for name in running}


def run() -> list[Figure]:
    """Singles one after the other, then Deployments."""
    delays: list[float] = []
    rollouts: list[float] = []
    with cluster("bench-pods", "--workers", "3") as made:
        for number in range(SINGLE + 1):
            watcher = Watcher(made)
            name = f"one-{number}"
            seen = watcher.until_running(
                lambda name=name: made.kubectl("run", name, "--image=busybox", "--", "sleep", "3600"), 1
            )
            ((start, end),) = seen.values()
            if number:  # the first pull asks a registry that may not answer
                delays.append((end - start) * 1000)
            made.kubectl("delete", "pod", name, "--grace-period=0", "--force")
        say(f"pods: {SINGLE} single pods, p50 {median(delays):.0f} ms")
        for number in range(ROUNDS):
            started = time.monotonic()
            made.kubectl(
                "create", "deployment", "many", f"--replicas={REPLICAS}", "--image=busybox", "--", "sleep", "3600"
            )
            made.kubectl("rollout", "status", "deployment/many", "--timeout=60s")
            rollouts.append(time.monotonic() - started)
            say(f"pods: {REPLICAS} replicas, round {number + 1} of {ROUNDS}: {rollouts[-1]:.2f} s")
            made.kubectl("delete", "deployment", "many")
            made.kubectl("delete", "pods", "--all", "--grace-period=0", "--force")
            eventually(lambda: not made.items("pods"), "no pods", 60)
    return [
        Figure(
            "pod bound → Running, image present, p50 / p90",
            f"{median(delays):.0f} / {percentile(delays, 0.9):.0f} ms",
            "150 ms",
        ),
        Figure(f"Deployment of {REPLICAS} pods on 3 nodes, Ready", f"{median(rollouts):.1f} s", "3 s"),
    ]
