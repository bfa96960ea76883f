"""A Prometheus that discovers pods, and autoscalers that act on what it has scraped: Pods, Object and External metrics.

The exporter is a pod: busybox httpd serving a text file that a loop writes anew each second from a file of loads, which
the test changes through exec.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.nanokube import Cluster, brought_up, eventually

NAMESPACE = "shop"
PATIENCE = 90.0
EXPORTER = """
mkdir -p /www; echo 'queue=0 requests=0 orders=0' > /www/load
total=0
while :; do
  . /www/load
  total=$((total + requests))
  {
    echo "# TYPE queue_depth gauge"
    echo "queue_depth $queue"
    echo "# TYPE backlog gauge"
    echo "backlog{queue=\\"orders\\"} $orders"
    echo "backlog{queue=\\"mails\\"} 1000"
    echo "# TYPE nginx_ingress_controller_requests counter"
    echo "nginx_ingress_controller_requests{namespace=\\"$NAMESPACE\\",ingress=\\"main-route\\"} $total"
  } > /www/.new && mv /www/.new /www/metrics.txt
  sleep 1
done &
exec httpd -f -p 8080 -h /www
"""


@pytest.fixture(scope="module")
def cluster(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One worker; timers fifteen times as fast: scrapes and looks of autoscalers are a second apart."""
    made = Cluster("e2e-metrics", tmp_path_factory.mktemp("home"))
    yield from brought_up(made, "--workers", "1", "--time-scale", "15", "--prometheus")


def deployment(name: str, script: str, **annotations: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "busybox",
        "command": ["sh", "-c", script],
        "env": [{"name": "NAMESPACE", "value": NAMESPACE}],
        "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}},
    }
    labels = {"app": name}
    template = {
        "metadata": {
            "labels": labels,
            "annotations": {f"prometheus.io/{key}": text for key, text in annotations.items()},
        },
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def autoscaler(name: str, metric: dict[str, Any]) -> dict[str, Any]:
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": 1,
        "maxReplicas": 8,
        "metrics": [metric],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    }
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": spec}


def average(value: str) -> dict[str, str]:
    return {"type": "AverageValue", "averageValue": value}


MAIN_ROUTE = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main-route"}
PODS = {"type": "Pods", "pods": {"metric": {"name": "queue_depth"}, "target": average("10")}}
OBJECT = {
    "type": "Object",
    "object": {"describedObject": MAIN_ROUTE, "metric": {"name": "requests-per-second"}, "target": average("5")},
}
ORDERS = {"name": "backlog", "selector": {"matchLabels": {"queue": "orders"}}}
EXTERNAL = {"type": "External", "external": {"metric": ORDERS, "target": average("10")}}
SLEEP = "exec sleep 1000000"


def ingress() -> dict[str, Any]:
    backend = {"service": {"name": "front", "port": {"number": 80}}}
    meta = {"name": "main-route", "namespace": NAMESPACE}
    return {**{k: MAIN_ROUTE[k] for k in ("apiVersion", "kind")}, "metadata": meta, "spec": {"defaultBackend": backend}}


def until_replicas(cluster: Cluster, name: str, count: int) -> None:
    def reached() -> bool:
        return bool(cluster.get("deployment", name, "-n", NAMESPACE)["spec"]["replicas"] == count)

    eventually(reached, f"{count} replicas of {name}", timeout=PATIENCE)


def reasons(cluster: Cluster, name: str) -> str:
    events = cluster.items("events", "-n", NAMESPACE, f"--field-selector=involvedObject.name={name}")
    return "\n".join(each["message"] for each in events if each["reason"] == "SuccessfulRescale")


def raw(cluster: Cluster, path: str) -> Any:
    """The answer, or {} for now."""
    told = cluster.kubectl("get", "--raw", path, check=False)
    try:
        return json.loads(told)
    except json.JSONDecodeError:
        return {}


def test_autoscaling_on_what_prometheus_scraped(cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", NAMESPACE)
    asked = {"scrape": "true", "port": "8080", "path": "/metrics.txt"}
    objects = [
        deployment("exporter", EXPORTER, **asked),
        *(deployment(name, SLEEP) for name in ("front", "worker")),
        ingress(),
        autoscaler("exporter", PODS),
        autoscaler("front", OBJECT),
        autoscaler("worker", EXTERNAL),
    ]
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    custom = f"/apis/custom.metrics.k8s.io/v1beta2/namespaces/{NAMESPACE}"
    eventually(
        lambda: raw(cluster, f"{custom}/pods/*/queue_depth?labelSelector=app%3Dexporter").get("items"),
        "the pod's metric",
        timeout=PATIENCE,
    )
    listed = {each["name"] for each in raw(cluster, "/apis/custom.metrics.k8s.io/v1beta2")["resources"]}
    assert "pods/queue_depth" in listed
    pod = cluster.running("app=exporter", NAMESPACE)[0]["metadata"]["name"]
    load = "echo queue=40 requests=20 orders=30 > /www/load"
    cluster.kubectl("exec", "-n", NAMESPACE, pod, "--", "sh", "-c", load)
    wanted = {"exporter": 4, "front": 4, "worker": 3}
    for name, count in wanted.items():
        until_replicas(cluster, name, count)
    assert "reason: pods metric queue_depth above target" in reasons(cluster, "exporter")
    assert "reason: external metric backlog(&LabelSelector{MatchLabels:map[string]string{queue: orders,}" in reasons(
        cluster, "worker"
    )
    assert "reason: Ingress metric requests-per-second above target" in reasons(cluster, "front")
    assert raw(cluster, f"{custom}/ingresses.networking.k8s.io/main-route/requests-per-second")["items"][0]["value"]
    cluster.kubectl("exec", "-n", NAMESPACE, pod, "--", "sh", "-c", "echo queue=0 requests=0 orders=0 > /www/load")
    for name in wanted:
        until_replicas(cluster, name, 1)
    assert "reason: All metrics below target" in reasons(cluster, "exporter")


def test_prometheus_finds_pods_services_and_the_api_server(cluster: Cluster) -> None:
    address = next(each["address"] for each in cluster.processes() if each["component"] == "prometheus")
    cluster.kubectl("run", "quiet", "--image=busybox", "--restart=Never", "--", "sleep", "1000000")
    serve = "mkdir /www; echo stock 3 > /www/metrics; exec httpd -f -p 8080 -h /www"
    cluster.kubectl("run", "store", "--image=busybox", "--restart=Never", "--", "sh", "-c", serve)
    cluster.kubectl("expose", "pod", "store", "--port=80", "--target-port=8080")
    cluster.kubectl("annotate", "service", "store", "prometheus.io/scrape=true")

    def targets() -> dict[str, list[str]]:
        with urllib.request.urlopen(f"{address}/api/v1/targets", timeout=10) as answer:
            told = json.load(answer)["data"]
        found: dict[str, list[str]] = {}
        for each in told["activeTargets"]:
            found.setdefault(each["labels"]["job"], []).append(each["health"])
        for each in told["droppedTargets"]:  # seen, and not annotated
            name = each["discoveredLabels"].get("__meta_kubernetes_pod_name") or ""
            found.setdefault(f"dropped {name}", []).append("")
        return found

    eventually(lambda: targets().get("kubernetes-apiservers") == ["up"], "the API server's own metrics", timeout=30)
    eventually(lambda: "dropped quiet" in targets(), "the pod that does not ask to be scraped", timeout=30)
    eventually(lambda: targets().get("kubernetes-service-endpoints") == ["up"], "the annotated Service", timeout=30)
    path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/store/stock"
    items = eventually(lambda: raw(cluster, path).get("items"), "the Service's metric", timeout=30)
    assert [(each["describedObject"]["kind"], each["value"]) for each in items] == [("Service", "3")]
