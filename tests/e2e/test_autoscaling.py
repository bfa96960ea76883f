"""Pods that work are joined by others, and leave when the work is over: real usage, metrics-server, HPA, Deployment."""

from __future__ import annotations

import json
from pathlib import Path

from tests.harness.nanokube import Cluster, eventually

WORK = "while :; do [ -e /work/busy ] || sleep 0.05; done"


def deployment(folder: Path) -> str:
    """Pods that burn CPU while a file is there."""
    container = {
        "name": "main",
        "image": "busybox",
        "command": ["sh", "-c", WORK],
        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}},
        "volumeMounts": [{"name": "work", "mountPath": "/work"}],
    }
    labels = {"app": "work"}
    spec = {
        "containers": [container],
        "volumes": [{"name": "work", "hostPath": {"path": str(folder)}}],
        "terminationGracePeriodSeconds": 0,
    }
    return json.dumps(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "work"},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }
    )


def autoscaler() -> str:
    target = {"type": "Utilization", "averageUtilization": 50}
    return json.dumps(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "work"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "work"},
                "minReplicas": 1,
                "maxReplicas": 3,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 30}},
            },
        }
    )


def test_load_raises_replicas_and_its_end_lowers_them(fast: Cluster, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    fast.kubectl("create", "-f", "-", stdin=deployment(tmp_path))
    fast.kubectl("create", "-f", "-", stdin=autoscaler())

    def replicas() -> int:
        return int(fast.get("deployment", "work")["status"].get("readyReplicas", 0))

    eventually(
        lambda: "%/50%" in fast.kubectl("get", "hpa", "work", "--no-headers"), "the first look", timeout=60, pause=0.5
    )
    assert replicas() == 1
    busy = tmp_path / "busy"
    busy.touch()
    eventually(lambda: replicas() == 3, "three replicas", timeout=60, pause=0.3)
    told = fast.nanokube("explain", "hpa", "work")
    assert "HPA default/work" in told
    assert "cpu resource utilization (percentage of request)" in told
    busy.unlink()
    eventually(lambda: replicas() == 1, "one replica", timeout=60, pause=0.3)

    def has_event(text: str) -> bool:
        return text in fast.kubectl("events", "--for", "hpa/work")

    risen = "New size: 3; reason: cpu resource utilization (percentage of request) above target"
    eventually(lambda: has_event(risen), risen)
    eventually(lambda: has_event("New size: 1; reason: All metrics below target"), "the event of falling")
    described = fast.kubectl("describe", "hpa", "work")
    assert "ValidMetricFound" in described
