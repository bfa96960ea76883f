"""Defaults of the small core kinds: secrets, namespaces, nodes, endpoints, events, limits.

Called by the rules of those kinds in the strategy table.
"""

import base64
from typing import Any

Obj = dict[str, Any]


def default_secret(obj: Obj) -> None:
    """Type Opaque; stringData is write-only and goes into data."""
    obj.setdefault("type", "Opaque")
    if texts := obj.pop("stringData", None):
        data = obj.setdefault("data", {})
        for key, text in texts.items():
            data[key] = base64.b64encode(text.encode()).decode()


def default_namespace(obj: Obj) -> None:
    """Every namespace carries its name as a label."""
    obj.setdefault("spec", {})
    meta = obj["metadata"]
    if name := meta.get("name"):
        meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = name


_NODE_INFO = (
    "machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion", "kubeletVersion",
    "kubeProxyVersion", "operatingSystem", "architecture",
)  # fmt: skip


def default_node(obj: Obj) -> None:
    """allocatable follows capacity; the status shows its fixed parts."""
    spec = obj.setdefault("spec", {})
    if spec.get("podCIDR") and (not spec.get("podCIDRs") or spec["podCIDRs"][0] != spec["podCIDR"]):
        spec["podCIDRs"] = [spec["podCIDR"]]
    elif spec.get("podCIDRs") and not spec.get("podCIDR"):
        spec["podCIDR"] = spec["podCIDRs"][0]
    status = obj.setdefault("status", {})
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])
    kubelet = status.setdefault("daemonEndpoints", {}).setdefault("kubeletEndpoint", {})
    kubelet.setdefault("Port", 0)
    info = status.setdefault("nodeInfo", {})
    for field in _NODE_INFO:
        info.setdefault(field, "")


def drop_node_configuration(obj: Obj) -> None:
    """Dynamic kubelet configuration is gone: upstream takes the field and does not keep it."""
    obj["spec"].pop("configSource", None)


def trim_secret_references(obj: Obj) -> None:
    """Secrets of an account are named, nothing else."""
    if secrets := obj.get("secrets"):
        obj["secrets"] = [{"name": each["name"]} if each.get("name") else {} for each in secrets]


def default_endpoints(obj: Obj) -> None:
    """Ports are TCP."""
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            port.setdefault("protocol", "TCP")


def default_endpoint_slice(obj: Obj) -> None:
    """Ports are TCP and carry a name, even an empty one; both lists are always shown."""
    for port in obj.setdefault("ports", None) or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")
    for endpoint in obj.setdefault("endpoints", None) or ():
        endpoint.setdefault("conditions", {})


def default_event(obj: Obj) -> None:
    """Fields that core/v1 always shows."""
    obj.setdefault("involvedObject", {})
    obj.setdefault("source", {})
    obj.setdefault("eventTime", None)
    obj.setdefault("firstTimestamp", None)
    obj.setdefault("lastTimestamp", None)
    obj.setdefault("reportingComponent", "")
    obj.setdefault("reportingInstance", "")


def default_limit_range(obj: Obj) -> None:
    """Container limits: default from max, defaultRequest from default or min."""
    for item in obj.setdefault("spec", {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        default = item.setdefault("default", {})
        for name, amount in (item.get("max") or {}).items():
            default.setdefault(name, amount)
        request = item.setdefault("defaultRequest", {})
        for name, amount in default.items():
            request.setdefault(name, amount)
        for name, amount in (item.get("min") or {}).items():
            request.setdefault(name, amount)
        for field in ("default", "defaultRequest"):
            if not item[field]:
                del item[field]


def default_quota(obj: Obj) -> None:
    """The status of a quota is always shown."""
    obj.setdefault("spec", {})
    obj.setdefault("status", {})


def default_lease(obj: Obj) -> None:
    """The spec of a lease is always shown."""
    obj.setdefault("spec", {})


def default_priority_class(obj: Obj) -> None:
    """Preempts lower priorities."""
    obj.setdefault("value", 0)
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")
