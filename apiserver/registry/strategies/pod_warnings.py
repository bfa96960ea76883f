"""Warnings about pods and templates: deprecated fields and settings that surprise.

Never refuses anything. Called by the pod strategy and by every workload for its template.
"""

from typing import Any

from apiserver.registry.strategies.pod_creation import APP_ARMOR, OLD_PROFILE
from apiserver.registry.validation import names
from apiserver.registry.validation.address_warnings import cidr_form, ip_form
from apiserver.registry.validation.deprecations import (
    DEPRECATED_NODE_LABELS,
    claim_spec_warnings,
    fractional_bytes,
    node_term_warnings,
)

Obj = dict[str, Any]

_SECCOMP = "seccomp.security.alpha.kubernetes.io/pod"
_CONTAINER_SECCOMP = "container.seccomp.security.alpha.kubernetes.io/"
_SECCOMP_FIELD = 'non-functional in v1.27+; use the "seccompProfile" field instead'
_SYSCTLS = 'non-functional in v1.11+; use the "sysctls" field instead'
_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": (
        'non-functional in v1.16+; use the "priorityClassName" field instead'
    ),
    "security.alpha.kubernetes.io/sysctls": _SYSCTLS,
    "security.alpha.kubernetes.io/unsafe-sysctls": _SYSCTLS,
}
_SOURCES = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
_NO_PODS = "a null labelSelector results in matching no pod"
_TERM = "nodeSelectorTerms"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def node_warnings(node: Obj, old: Obj | None) -> list[str]:
    """Warnings about a Node."""
    spec = node.get("spec") or {}
    found: list[str] = []
    if spec.get("externalID"):
        found.append("spec.externalID: this field is deprecated, and is unused by Kubernetes")
    for index, block in enumerate(spec.get("podCIDRs") or ()):
        found += cidr_form(f"spec.podCIDRs[{index}]", block)
    return found


def name_warnings(obj: Obj, use: str) -> list[str]:
    """A warning about a name that is no label though it becomes part of host names."""
    if texts := names.dns_label(obj["metadata"].get("name") or ""):
        return [
            f"metadata.name: this is used in {use}, which can result in surprising behavior; "
            f"a DNS label is recommended: [{' '.join(texts)}]"
        ]
    return []


def pod_warnings(pod: Obj, old: Obj | None) -> list[str]:
    """Warnings about a new Pod; updates are too frequent for any."""
    if old is not None:
        return []
    annotations = pod["metadata"].get("annotations") or {}
    return name_warnings(pod, "the Pod's hostname") + _warnings(pod.get("spec") or {}, annotations, "")


def template_warnings(template: Obj, path: str) -> list[str]:
    """Warnings about a PodTemplateSpec at `path`."""
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    return _warnings(template.get("spec") or {}, annotations, f"{path}.")


def _warnings(spec: Obj, annotations: dict[str, str], base: str) -> list[str]:
    """In upstream's order; `base` is what leads to `spec` and `metadata`, "" for a pod."""
    path, notes = f"{base}spec", f"{base}metadata.annotations"
    found = _node_labels(spec, path)
    found += [f"{notes}[{key}]: {text}" for key, text in _ANNOTATIONS.items() if key in annotations]
    found += _volume_warnings(spec.get("volumes") or [], path)
    found += _repeated(spec.get("hostAliases") or [], "ip", f"{path}.hostAliases")
    secrets = spec.get("imagePullSecrets") or []
    found += _repeated(secrets, "name", f"{path}.imagePullSecrets")
    for index, secret in enumerate(secrets):
        if not secret.get("name"):
            found.append(f'{path}.imagePullSecrets[{index}].name: invalid empty name ""')
    for name in ("memory", "ephemeral-storage"):
        found += fractional_bytes(spec.get("overhead"), name, f"{path}.overhead")
    security = spec.get("securityContext") or {}
    if security.get("seccompProfile") is None and _SECCOMP in annotations:
        found.append(f"{notes}[{_SECCOMP}]: {_SECCOMP_FIELD}")
    fields = ("initContainers", "containers", "ephemeralContainers")
    containers = [
        (f"{path}.{field}[{index}]", each) for field in fields for index, each in enumerate(spec.get(field) or ())
    ]
    confined = security.get("appArmorProfile") is not None or not base  # pods are told when the field is written
    for at, container in containers:
        found += _container_warnings(container, at, annotations, notes, confined)
    found += _port_warnings(containers)
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        found.append(
            f"{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        )
    found += _empty_selectors(spec.get("affinity") or {}, f"{path}.affinity")
    for index, server in enumerate((spec.get("dnsConfig") or {}).get("nameservers") or ()):
        found += ip_form(f"{path}.dnsConfig.nameservers[{index}]", server)
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        found += ip_form(f"{path}.hostAliases[{index}].ip", alias.get("ip") or "")
    return found


def _node_labels(spec: Obj, path: str) -> list[str]:
    """Deprecated labels of nodes where nodes are chosen, and constraints that count no pod."""
    chosen = sorted(spec.get("nodeSelector") or {})
    found = [
        f"{path}.nodeSelector[{key}]: {DEPRECATED_NODE_LABELS[key]}" for key in chosen if key in DEPRECATED_NODE_LABELS
    ]
    node, at = (spec.get("affinity") or {}).get("nodeAffinity") or {}, f"{path}.affinity.nodeAffinity"
    for index, term in enumerate((node.get(_REQUIRED) or {}).get(_TERM) or ()):
        found += node_term_warnings(term, f"{at}.{_REQUIRED}.{_TERM}[{index}]")
    for index, weighted in enumerate(node.get(_PREFERRED) or ()):
        preference = weighted.get("preference") or {}
        found += node_term_warnings(preference, f"{at}.{_PREFERRED}[{index}].preference", check_values=True)
    for index, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        at, key = f"{path}.topologySpreadConstraints[{index}]", constraint.get("topologyKey") or ""
        if text := DEPRECATED_NODE_LABELS.get(key):
            found.append(f"{at}.topologyKey: {key} is {text}")
        if constraint.get("labelSelector") is None:
            found.append(f"{at}.labelSelector: {_NO_PODS}")
    return found


def _volume_warnings(volumes: list[Obj], path: str) -> list[str]:
    found: list[str] = []
    for index, volume in enumerate(volumes):
        at = f"{path}.volumes[{index}]"
        for source, text in _SOURCES.items():
            if source in volume:
                found.append(f"{at}.{'storageOS' if source == 'storageos' else source}: {text}")
        if template := (volume.get("ephemeral") or {}).get("volumeClaimTemplate"):
            found += claim_spec_warnings(template.get("spec") or {}, f"{at}.ephemeral.volumeClaimTemplate.spec")
    projected = [(index, (volume.get("projected") or {}).get("sources") or ()) for index, volume in enumerate(volumes)]
    tokens = {
        source["serviceAccountToken"].get("path") or ""
        for _, sources in projected
        for source in sources
        if source.get("serviceAccountToken") is not None
    }
    for index, sources in projected:
        at = f"{path}.volumes[{index}].projected.sources"
        for source in sources:
            for kind, shown in (("configMap", "configMap"), ("secret", "secrets"), ("downwardAPI", "downwardAPI")):
                for position, item in enumerate((source.get(kind) or {}).get("items") or ()):
                    if (to := item.get("path") or "") in tokens:
                        found.append(f'{at}.{shown}[{position}]: has duplicated path with ServiceAccountToken "{to}"')
            if (bundle := source.get("clusterTrustBundle")) and (to := bundle.get("path") or "") in tokens:
                found.append(f'{at}.ClusterTrustBundle: has duplicated path with ServiceAccountToken "{to}"')
    return found


def _repeated(items: list[Obj], field: str, path: str) -> list[str]:
    found: list[str] = []
    seen: set[str] = set()
    for index, item in enumerate(items):
        value = item.get(field) or ""
        if value in seen:
            found.append(f'{path}[{index}].{field}: duplicate {field} "{value}"')
        seen.add(value)
    return found


def _container_warnings(
    container: Obj, path: str, annotations: dict[str, str], notes: str, confined: bool
) -> list[str]:
    """`confined`: a profile of AppArmor is known already, or told of elsewhere."""
    found: list[str] = []
    name, security = container.get("name") or "", container.get("securityContext") or {}
    if security.get("seccompProfile") is None and _CONTAINER_SECCOMP + name in annotations:
        found.append(f"{notes}[{_CONTAINER_SECCOMP}{name}]: {_SECCOMP_FIELD}")
    if not confined and security.get("appArmorProfile") is None and APP_ARMOR + name in annotations:
        found.append(f"{notes}[{APP_ARMOR}{name}]: {OLD_PROFILE}")
    resources = container.get("resources") or {}
    for amount in ("memory", "ephemeral-storage"):
        for kind in ("limits", "requests"):
            found += fractional_bytes(resources.get(kind), amount, f"{path}.resources.{kind}")
    seen: set[str] = set()
    for index, variable in enumerate(container.get("env") or ()):
        name, value = variable.get("name") or "", variable.get("value") or ""
        own = f"$({name})"
        if name in seen and (variable.get("valueFrom") is not None or value == own or own not in value):
            found.append(
                f'{path}.env[{index}]: hides previous definition of "{name}", which may be dropped when using apply'
            )
        seen.add(name)
    return found


def _port_warnings(containers: list[tuple[str, Obj]]) -> list[str]:
    """Ports that are the same as others of the pod, or might be."""
    found: list[str] = []
    known: dict[tuple[int, str], list[tuple[str, int, str]]] = {}
    for path, container in containers:
        for index, port in enumerate(container.get("ports") or ()):
            at, number, protocol = f"{path}.ports[{index}]", port.get("containerPort") or 0, port.get("protocol") or ""
            host, address = port.get("hostPort") or 0, port.get("hostIP") or ""
            if address and not host:
                shown = f"Name:{port.get('name') or ''} HostPort:0 ContainerPort:{number}"
                found.append(f"{at}: hostIP set without hostPort: {{{shown} Protocol:{protocol} HostIP:{address}}}")
            others = known.setdefault((number, protocol), [])
            for where, other_host, other_address in others:
                if (host, address) == (other_host, other_address):
                    found.append(f"{at}: duplicate port definition with {where}")
                elif not host or not other_host:
                    found.append(f"{at}: overlapping port definition with {where}")
                elif host == other_host and bool(address) != bool(other_address):
                    found.append(f"{at}: dangerously ambiguous port definition with {where}")
            others.append((at, host, address))
    return found


def _empty_selectors(affinity: Obj, path: str) -> list[str]:
    found: list[str] = []
    for field in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(field) or {}
        for index, term in enumerate(terms.get(_REQUIRED) or ()):
            if term.get("labelSelector") is None:
                found.append(f"{path}.{field}.{_REQUIRED}[{index}].labelSelector: {_NO_PODS}")
        for index, weighted in enumerate(terms.get(_PREFERRED) or ()):
            if (weighted.get("podAffinityTerm") or {}).get("labelSelector") is None:
                found.append(f"{path}.{field}.{_PREFERRED}[{index}].podAffinityTerm.labelSelector: {_NO_PODS}")
    return found
