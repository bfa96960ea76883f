"""`up --nodepools` on real machines: pods that wait get the cheapest machine, and what is no longer needed goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.nanokube import Cluster, brought_up, eventually

READY = {"karpenter.sh/registered": "true", "karpenter.sh/initialized": "true"}


@pytest.fixture(scope="module")
def pools(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One worker of two CPUs, and timers that run fast."""
    made = Cluster("e2e-pools", tmp_path_factory.mktemp("home"))
    for cluster in brought_up(made, "--workers", "1", "--time-scale", "10", "--nodepools"):
        pool = {
            "apiVersion": "karpenter.sh/v1",
            "kind": "NodePool",
            "metadata": {"name": "default"},
            "spec": {
                "template": {
                    "metadata": {"labels": {"team": "a"}},
                    "spec": {
                        "nodeClassRef": {"group": "cloud.nanokube.io", "kind": "NanokubeNodeClass", "name": "default"},
                        "requirements": [
                            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                            {"key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": ["local-a"]},
                        ],
                    },
                },
                "limits": {"cpu": "4"},
                "disruption": {"consolidateAfter": "60s", "budgets": [{"nodes": "100%"}]},
            },
        }
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pool))
        yield cluster


def deploy(cluster: Cluster, name: str, replicas: int, **spec: Any) -> None:
    container = {
        "name": "main",
        "image": "busybox",
        "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"],
        "resources": {"requests": {"cpu": "900m", "memory": "64Mi"}},
    }
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "nodeSelector": {"team": "a"}, **spec},
    }
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))


def claims(cluster: Cluster) -> list[dict[str, Any]]:
    return cluster.items("nodeclaims")


def types(cluster: Cluster) -> list[str]:
    return sorted(each["metadata"]["labels"].get("node.kubernetes.io/instance-type", "") for each in claims(cluster))


def running(cluster: Cluster, name: str, count: int) -> list[dict[str, Any]]:
    found = cluster.running(f"app={name}")
    return found if len(found) == count else []


def test_a_pod_that_waits_gets_a_machine_and_it_goes_with_the_pod(pools: Cluster) -> None:
    deploy(pools, "web", 1)
    (pod,) = eventually(lambda: running(pools, "web", 1), "the pod on a new machine")
    (claim,) = claims(pools)
    name = claim["metadata"]["name"]
    assert claim["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "standard-1x1"
    assert claim["metadata"]["labels"]["topology.kubernetes.io/zone"] == "local-b"
    assert pod["spec"]["nodeName"] == claim["status"]["nodeName"]
    node = pools.get("node", claim["status"]["nodeName"])
    eventually(
        lambda: READY.items() <= pools.get("node", claim["status"]["nodeName"])["metadata"]["labels"].items(), "it"
    )
    assert node["spec"]["providerID"] == claim["status"]["providerID"]
    row = pools.kubectl("get", "nodeclaims").splitlines()[1].split()
    assert row[:6] == [name, "standard-1x1", "on-demand", "local-b", claim["status"]["nodeName"], "True"]
    assert f"nodeclaim/{name}" in pools.kubectl("get", "events", "--field-selector", "reason=Nominated")
    told = pools.nanokube("explain", "nodeclaim", name)
    assert told.startswith(f"NodeClaim {name} was made for 1 pods") and "refused by the pool's requirements" in told
    assert "machines" in pools.nanokube("cloud", "cost")
    assert name in pools.nanokube("cloud", "machines")

    deploy(pools, "web", 2)  # another machine, or a larger one instead; never above four CPUs
    eventually(lambda: running(pools, "web", 2), "two pods")
    assert sum(int(each["status"]["capacity"]["cpu"].removesuffix("000m")) for each in claims(pools)) <= 4

    pools.kubectl("delete", "node", claim["status"]["nodeName"], "--wait=false")  # the user's own: drained, replaced
    eventually(lambda: all(each["metadata"]["name"] != name for each in claims(pools)), "the end of the claim", 90)
    eventually(lambda: running(pools, "web", 2), "two pods again", 90)

    deploy(pools, "web", 1)  # now two machines, or a large one, are too much
    eventually(lambda: types(pools) == ["standard-1x1"] and running(pools, "web", 1), "the cheapest machine", 120)

    pools.kubectl("delete", "deployment", "web")
    eventually(lambda: not claims(pools), "no machine without pods", timeout=120)
    eventually(lambda: pools.ready_nodes() == {"worker-1"}, "only the worker")
    assert "Empty" in pools.nanokube("explain", "nodepool", "default")


def test_what_the_pool_cannot_launch_is_told(pools: Cluster) -> None:
    deploy(pools, "web", 1, nodeSelector={"team": "b"})

    def told() -> bool:
        events = pools.kubectl("get", "events", "--field-selector", "reason=FailedScheduling")
        return 'incompatible with nodepool "default"' in events

    eventually(told, "why no machine comes")
    assert not claims(pools)
