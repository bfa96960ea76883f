"""Pods as endpoints: which count, on which ports, and which Services a pod concerns.

Pure functions and the mapping from pods to Services. Called by slices.py and legacy.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from api.models import core_v1
from client.client import key_of
from client.controller import Controller
from client.informer import EventHandler, Informer
from controller_manager.objects import is_finished, is_ready, is_terminating
from machinery.meta import ObjectKey

SERVICE_NAME: Final = "kubernetes.io/service-name"
HEADLESS: Final = "service.kubernetes.io/headless"
ZONE: Final = "topology.kubernetes.io/zone"


def has_endpoints(service: core_v1.Service) -> bool:
    """Whether the Service's endpoints are ours to keep: it selects pods, and is more than an alias."""
    return bool(service.spec.selector) and service.spec.type != "ExternalName"


def is_headless(service: core_v1.Service) -> bool:
    return service.spec.clusterIP == "None"


def selects(service: core_v1.Service, labels: Mapping[str, str] | None) -> bool:
    selector: Mapping[str, str] = service.spec.selector or {}
    return bool(selector) and selector.items() <= (labels or {}).items()


def selected(service: core_v1.Service, pods: Iterable[core_v1.Pod]) -> list[core_v1.Pod]:
    return [pod for pod in pods if selects(service, pod.metadata.labels)]


def addresses(pod: core_v1.Pod, family: str) -> str | None:
    """The pod's address of a family (IPv4, IPv6)."""
    status = pod.status
    if status is None:
        return None
    candidates = [each.ip for each in status.podIPs or () if each.ip] or ([status.podIP] if status.podIP else [])
    return next((ip for ip in candidates if (":" in ip) == (family == "IPv6")), None)


def counts(pod: core_v1.Pod, family: str, *, with_terminating: bool) -> bool:
    """Whether the pod is an endpoint at all (ready or not)."""
    if is_finished(pod) or addresses(pod, family) is None:
        return False
    return with_terminating or not is_terminating(pod)


def ports_of(service: core_v1.Service, pod: core_v1.Pod) -> list[dict[str, Any]]:
    """The Service's ports as this pod serves them; a name that the pod does not have is left out."""
    found: list[dict[str, Any]] = []
    for port in service.spec.ports or ():
        number = _number(port, pod)
        if number is None:
            continue
        entry: dict[str, Any] = {"name": port.name or "", "protocol": port.protocol or "TCP", "port": number}
        if port.appProtocol:
            entry["appProtocol"] = port.appProtocol
        found.append(entry)
    return found


def _number(port: core_v1.ServicePort, pod: core_v1.Pod) -> int | None:
    target = port.targetPort
    if target is None or target == 0 or target == "":
        return int(port.port)
    if isinstance(target, int):
        return target
    sidecars = [each for each in pod.spec.initContainers or () if each.restartPolicy == "Always"]
    for container in [*pod.spec.containers, *sidecars]:
        for each in container.ports or ():
            if each.name == target and (each.protocol or "TCP") == (port.protocol or "TCP"):
                return int(each.containerPort)
    return None


def target_of(pod: core_v1.Pod) -> dict[str, Any]:
    """The reference by which an endpoint names its pod."""
    return {
        "kind": "Pod",
        "namespace": pod.metadata.namespace,
        "name": pod.metadata.name,
        "uid": pod.metadata.uid,
    }


def hostname_of(pod: core_v1.Pod, service: core_v1.Service) -> str | None:
    """The host name under which DNS knows the pod within its headless Service."""
    if pod.spec.hostname and pod.spec.subdomain == service.metadata.name:
        return str(pod.spec.hostname)
    return None


def _concerns(pod: core_v1.Pod) -> tuple[object, ...]:
    """All of a pod that endpoints depend on; other changes (there are many) need no pass."""
    status = pod.status
    return (
        pod.metadata.labels,
        pod.metadata.uid,
        pod.metadata.deletionTimestamp,
        pod.spec.nodeName,
        is_finished(pod),
        is_ready(pod),
        [each.ip for each in status.podIPs or ()] if status is not None else None,
        status.podIP if status is not None else None,
    )


def follow_pods(
    controller: Controller, pods: Informer[core_v1.Pod], services: Informer[core_v1.Service], *, delay: float = 0.0
) -> None:
    """Queue the Services that a change to a pod concerns."""

    def enqueue(pod: core_v1.Pod) -> None:
        for service in services.lister.list(pod.metadata.namespace):
            if selects(service, pod.metadata.labels):
                controller.enqueue_after(key_of(service), delay)

    def changed(old: core_v1.Pod, new: core_v1.Pod) -> None:
        if _concerns(old) == _concerns(new):
            return
        if old.metadata.labels != new.metadata.labels:
            enqueue(old)
        enqueue(new)

    pods.add_handler(EventHandler(on_add=enqueue, on_update=changed, on_delete=enqueue))


def service_key(obj: Mapping[str, Any]) -> ObjectKey | None:
    """The Service that a slice belongs to."""
    metadata = obj["metadata"]
    name = (metadata.get("labels") or {}).get(SERVICE_NAME)
    return ObjectKey(metadata.get("namespace") or "", name) if name else None
