"""A kopf operator, run by `test_kopf.py` as a process: it keeps a ConfigMap for every Widget and tells what it does."""

from __future__ import annotations

import asyncio
from typing import Any

import kopf
from kubernetes import client, config

GROUP, VERSION, PLURAL = "example.com", "v1", "widgets"


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    config.load_kube_config()
    settings.persistence.finalizer = "example.com/kopf"
    settings.posting.level = 20
    settings.watching.server_timeout = 30


def body_of(name: str, spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": f"{name}-made"}, "data": {"size": str(spec["size"])}}


@kopf.on.create(GROUP, VERSION, PLURAL)
def created(name: str, namespace: str | None, spec: Any, body: Any, patch: Any, **_: Any) -> dict[str, str]:
    made = body_of(name, spec)
    kopf.adopt(made, owner=body)
    client.CoreV1Api().create_namespaced_config_map(namespace, made)
    kopf.info(body, reason="Made", message="the ConfigMap is there")
    patch.status["phase"] = "Made"
    return {"config_map": made["metadata"]["name"]}


@kopf.on.update(GROUP, VERSION, PLURAL, field="spec.size")
def resized(name: str, namespace: str | None, old: Any, new: Any, spec: Any, patch: Any, **_: Any) -> None:
    client.CoreV1Api().patch_namespaced_config_map(f"{name}-made", namespace, body_of(name, spec))
    patch.status["resized"] = f"{old} to {new}"


@kopf.on.delete(GROUP, VERSION, PLURAL)
def deleted(name: str, namespace: str | None, **_: Any) -> None:
    mark = {"metadata": {"name": f"{name}-obituary"}}
    client.CoreV1Api().create_namespaced_config_map(namespace, mark)


@kopf.on.create(GROUP, VERSION, PLURAL, labels={"flaky": "yes"})
def retried(retry: int, patch: Any, **_: Any) -> None:
    if retry < 2:
        raise kopf.TemporaryError("not yet", delay=0.2)
    patch.status["retries"] = retry


@kopf.timer(GROUP, VERSION, PLURAL, interval=0.3)
def tick(status: Any, patch: Any, **_: Any) -> None:
    patch.status["ticks"] = min(status.get("ticks", 0) + 1, 3)


@kopf.daemon(GROUP, VERSION, PLURAL, cancellation_timeout=1.0)
async def watcher(stopped: kopf.DaemonStopped, name: str, namespace: str | None, **_: Any) -> None:
    mark = {"metadata": {"name": f"{name}-watched"}}
    await asyncio.to_thread(client.CoreV1Api().create_namespaced_config_map, namespace, mark)
    await stopped.wait()
