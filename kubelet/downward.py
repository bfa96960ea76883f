"""The downward API: fields of the pod and resources of its containers as texts, for env and volumes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from api.models import core_v1
from machinery import quantity

_SUBSCRIPT = re.compile(r"^(metadata\.(?:labels|annotations))\['([^']*)'\]$")


class DownwardError(Exception):
    """A field path or resource that does not exist."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the pod's spec does not say and its containers may ask."""

    pod_ips: tuple[str, ...] = ()
    host_ips: tuple[str, ...] = ()
    node_cpu_milli: int = 0
    node_memory: int = 0
    node_ephemeral: int = 0


def _format_map(pairs: Mapping[str, str] | None) -> str:
    """`key="escaped value"` lines in key order, as upstream writes them into files."""
    lines = []
    for key in sorted(pairs or {}):
        value = (pairs or {})[key]
        escaped = (
            value.replace("\\", "\\\\")
            .replace('"', '\\"')
            .replace("\n", "\\n")
            .replace("\t", "\\t")
            .replace("\r", "\\r")
        )
        lines.append(f'{key}="{escaped}"')
    return "\n".join(lines)


def field_value(pod: core_v1.Pod, path: str, facts: PodFacts) -> str:
    """The text of a fieldRef. Raises DownwardError."""
    meta, spec = pod.metadata, pod.spec
    if meta is None or spec is None:
        raise DownwardError(f"unsupported fieldPath: {path}")
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        source = meta.labels if subscript[1].endswith("labels") else meta.annotations
        return str((source or {}).get(subscript[2], ""))
    match path:
        case "metadata.name":
            return meta.name or ""
        case "metadata.namespace":
            return meta.namespace or ""
        case "metadata.uid":
            return meta.uid or ""
        case "metadata.labels":
            return _format_map(meta.labels)
        case "metadata.annotations":
            return _format_map(meta.annotations)
        case "spec.nodeName":
            return spec.nodeName or ""
        case "spec.serviceAccountName":
            return spec.serviceAccountName or ""
        case "spec.restartPolicy":
            return spec.restartPolicy or ""
        case "status.podIP":
            return facts.pod_ips[0] if facts.pod_ips else ""
        case "status.podIPs":
            return ",".join(facts.pod_ips)
        case "status.hostIP":
            return facts.host_ips[0] if facts.host_ips else ""
        case "status.hostIPs":
            return ",".join(facts.host_ips)
    raise DownwardError(f"unsupported fieldPath: {path}")


def resource_value(selector: core_v1.ResourceFieldSelector, container: core_v1.Container, facts: PodFacts) -> str:
    """The number of a resourceFieldRef: limits fall back to what the node has. Raises DownwardError."""
    kind, _, name = selector.resource.partition(".")
    if kind not in ("limits", "requests") or not name:
        raise DownwardError(f"unsupported container resource : {selector.resource}")
    claim = container.resources
    source = (claim.limits if kind == "limits" else claim.requests) if claim else None
    amount = (source or {}).get(name)
    cpu = name == "cpu"
    if amount is not None and quantity.parse(amount) > 0:
        have = quantity.milli(amount) if cpu else quantity.value(amount)
    elif kind == "requests" and amount is None:
        have = 0
    else:
        node = {"cpu": facts.node_cpu_milli, "memory": facts.node_memory, "ephemeral-storage": facts.node_ephemeral}
        have = node.get(name, 0)
    divisor = quantity.parse(selector.divisor) if selector.divisor else quantity.parse("1")
    divisor = divisor or quantity.parse("1")
    if cpu:
        per = int(divisor * 1000) or 1000
        return str(-(-have // per))
    return str(-(-have // (int(divisor) or 1)))
