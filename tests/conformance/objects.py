"""Manifests and probes of the conformance tests. Containers run the built-in busybox image and end on SIGTERM."""

from __future__ import annotations

import copy
from typing import Any

from tests.harness.api import Api, Collection, Obj
from tests.harness.nanokube import eventually, is_ready

IMAGE = "busybox"
NO_IMAGE = "localhost:1/webserver:404"  # nothing listens there
STAY = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"]
# Says its own name on port 8080 while /tmp/www/index.html is there.
SERVE = [
    "sh",
    "-c",
    "mkdir -p /tmp/www; hostname > /tmp/www/index.html; httpd -p 8080 -h /tmp/www; "
    "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done",
]


def container(command: list[str] | None = None, **fields: Any) -> Obj:
    return {"name": "main", "image": IMAGE, "command": command or STAY, **fields}


def template(labels: dict[str, str], main: Obj | None = None, **spec: Any) -> Obj:
    return {
        "metadata": {"labels": labels},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [main or container()], **spec},
    }


def pod(name: str, labels: dict[str, str] | None = None, main: Obj | None = None, **spec: Any) -> Obj:
    made = template(labels or {}, main, **spec)
    made["metadata"]["name"] = name
    return {"apiVersion": "v1", "kind": "Pod", **made}


def workload(kind: str, name: str, labels: dict[str, str] | None = None, main: Obj | None = None, **spec: Any) -> Obj:
    """A Deployment, ReplicaSet, StatefulSet or DaemonSet whose selector is its pods' labels (default: app=name)."""
    labels = labels or {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template(labels, main), **spec},
    }


def controller(name: str, labels: dict[str, str] | None = None, main: Obj | None = None, **spec: Any) -> Obj:
    """A ReplicationController."""
    labels = labels or {"app": name}
    return {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": name, "labels": labels},
        "spec": {"selector": labels, "template": template(labels, main), **spec},
    }


def job(name: str, *script: str, restart: str = "Never", **spec: Any) -> Obj:
    """A Job of one container that runs a shell script."""
    main = container(["sh", "-c", "; ".join(script)])
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"e2e": name}},
        "spec": {"template": template({"app": name}, main, restartPolicy=restart), **spec},
    }


def headless(name: str, labels: dict[str, str]) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"clusterIP": "None", "selector": labels, "ports": [{"port": 80, "name": "http"}]},
    }


def changed(obj: Obj, *path: str, to: Any) -> Obj:
    """A copy with one field replaced."""
    made = copy.deepcopy(obj)
    place = made
    for step in path[:-1]:
        place = place.setdefault(step, {})
    place[path[-1]] = to
    return made


def set_image(image: str) -> Obj:
    """A strategic patch for the template's container."""
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}


def set_env(**values: str) -> Obj:
    """A strategic patch that makes a new template which still runs."""
    env = [{"name": key, "value": value} for key, value in values.items()]
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", "env": env}]}}}}


def env_of(obj: Obj) -> dict[str, str]:
    """Environment of a pod's (or a template's) first container."""
    return {each["name"]: each.get("value", "") for each in obj["spec"]["containers"][0].get("env", ())}


def condition(obj: Obj, kind: str) -> Obj:
    """A condition by type; {} when it is not there."""
    found: list[Obj] = [each for each in obj.get("status", {}).get("conditions") or () if each["type"] == kind]
    return found[0] if found else {}


def wait_condition(collection: Collection, name: str, kind: str, timeout: float = 60.0) -> Obj:
    """Until a condition is True; returns it."""
    return (
        eventually(
            lambda: (found := condition(collection.get(name), kind)).get("status") == "True" and found,
            f"{collection.path}/{name} {kind}",
            timeout,
        )
        or {}
    )


def selector(labels: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def ready_pods(api: Api, namespace: str, labels: dict[str, str]) -> list[Obj]:
    """Ready pods that stay, by name."""
    pods = api.of("v1", "pods", namespace).list(labelSelector=selector(labels))
    return sorted((each for each in pods if is_ready(each)), key=lambda each: str(each["metadata"]["name"]))


def wait_ready(api: Api, namespace: str, labels: dict[str, str], count: int, timeout: float = 60.0) -> list[Obj]:
    """Until exactly `count` pods exist and all are Ready."""

    def found() -> list[Obj]:
        pods = ready_pods(api, namespace, labels)
        everything = api.of("v1", "pods", namespace).list(labelSelector=selector(labels))
        return pods if len(pods) == len(everything) == count else []

    if count == 0:
        pods = api.of("v1", "pods", namespace)
        eventually(lambda: not pods.list(labelSelector=selector(labels)), f"no pods {labels}", timeout)
        return []
    return eventually(found, f"{count} ready pods {labels}", timeout)


def rolled_out(deployments: Collection, name: str, timeout: float = 60.0) -> Obj:
    """Until a Deployment has finished its rollout, by the rules of `kubectl rollout status`; returns it."""

    def done() -> Obj:
        obj = deployments.get(name)
        status, wanted = obj.get("status", {}), obj["spec"]["replicas"]
        finished = status.get("observedGeneration", 0) >= obj["metadata"]["generation"] and all(
            status.get(field, 0) == wanted for field in ("replicas", "updatedReplicas", "availableReplicas")
        )
        return obj if finished else {}

    return eventually(done, f"rollout of {name}", timeout)
