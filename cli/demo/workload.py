"""What the autoscaling story deploys: a web server whose every answer costs CPU, its Service and its autoscaler. Pure.

Sizes follow from the nodes that are there: two pods more than have room, so that one more machine is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cli.errors import CommandError
from machinery import quantity

Obj = dict[str, Any]
APP: Final = "web"
PORT: Final = 80
PATH: Final = "/cgi-bin/work"
LEAST: Final = 2
BEYOND: Final = 2  # pods that find no room
MOST: Final = 40
SHARE: Final = 0.24  # of a node that one pod requests: four fit, and two leave it underutilized
LOAD: Final = 550.0  # millicores that all pods together use, on target, when there are as many as shall be
HOLLOW: Final = "nanokube.io/hollow"
_SCRIPT: Final = (
    r"mkdir -p /tmp/www/cgi-bin; printf '%s\n' '#!/bin/sh' 'echo; i=0' "
    r"'while [ $i -lt 3000 ]; do i=$((i+1)); done; hostname' > /tmp/www/cgi-bin/work; chmod 755 /tmp/www/cgi-bin/work; "
    r"httpd -p 8080 -h /tmp/www; trap 'exit 0' TERM; sleep 1000000 & wait"
)


@dataclass(frozen=True)
class Size:
    """`request`: millicores of one pod; `most`: replicas; `percent`: of the request, the autoscaler's target;
    `free`: pods that have room now."""

    request: int
    most: int
    percent: int
    free: int

    @property
    def target(self) -> int:
        """Millicores of one pod that the autoscaler aims at."""
        return self.request * self.percent // 100


def _cpu(amounts: Mapping[str, str] | None) -> int:
    return quantity.milli((amounts or {}).get("cpu", "0"))


def _usable(node: Obj) -> bool:
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"].get("conditions", ()))
    spec = node.get("spec") or {}
    blocked = any(each["effect"] != "PreferNoSchedule" for each in spec.get("taints") or ())
    hollow = HOLLOW in (node["metadata"].get("labels") or {})
    return ready and not blocked and not hollow and not spec.get("unschedulable")


def _requested(pod: Obj) -> int:
    return sum(_cpu((each.get("resources") or {}).get("requests")) for each in pod["spec"]["containers"])


def size(nodes: Iterable[Obj], pods: Sequence[Obj]) -> Size:
    """For a cluster as it is. Raises CommandError when it has no real node, or too many."""
    usable = [node for node in nodes if _usable(node)]
    if not usable:
        raise CommandError("the cluster has no real node that is Ready")
    request = max(10, int(min(_cpu(node["status"]["allocatable"]) for node in usable) * SHARE) // 10 * 10)
    free = 0
    for node in usable:
        taken = sum(
            _requested(pod)
            for pod in pods
            if pod["spec"].get("nodeName") == node["metadata"]["name"]
            and pod["status"].get("phase") not in ("Succeeded", "Failed")
        )
        free += max(0, _cpu(node["status"]["allocatable"]) - taken) // request
    most = max(free, LEAST) + BEYOND
    if most > MOST:
        raise CommandError(f"{free} pods of {request}m have room in this cluster: too many nodes for this story")
    return Size(request, most, max(1, int(LOAD * 100 / (most * request))), free)


def namespace(name: str) -> Obj:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def deployment(wanted: Size) -> Obj:
    labels = {"app": APP}
    container = {
        "name": "main",
        "image": "busybox",
        "command": ["sh", "-c", _SCRIPT],
        "ports": [{"containerPort": 8080}],
        "resources": {"requests": {"cpu": f"{wanted.request}m"}, "limits": {"cpu": f"{wanted.request}m"}},
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 5},
    }
    real = {"matchExpressions": [{"key": HOLLOW, "operator": "DoesNotExist"}]}
    pod = {
        "containers": [container],
        "terminationGracePeriodSeconds": 5,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [real]}}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": APP},
        "spec": {
            "replicas": LEAST,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def service() -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": APP},
        "spec": {"selector": {"app": APP}, "ports": [{"port": PORT, "targetPort": 8080}]},
    }


def autoscaler(wanted: Size) -> Obj:
    """It goes up at once and down one pod at a time, after the usual five minutes."""
    target = {"type": "Utilization", "averageUtilization": wanted.percent}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": APP},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": APP},
            "minReplicas": LEAST,
            "maxReplicas": wanted.most,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            "behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}},
        },
    }
