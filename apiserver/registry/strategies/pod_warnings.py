"""Warnings about pods and templates: deprecated fields and settings that surprise.

Never refuses anything. Called by the pod strategy and by every workload for its template.
"""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.deprecations import DEPRECATED_NODE_LABELS
from machinery import quantity

Obj = dict[str, Any]

_SECCOMP = "seccomp.security.alpha.kubernetes.io/pod"
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SOURCES = {
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}


def node_warnings(node: Obj, old: Obj | None) -> list[str]:
    """Warnings about a Node."""
    spec = node.get("spec") or {}
    found: list[str] = []
    if spec.get("externalID") and (old or {}).get("spec", {}).get("externalID") != spec["externalID"]:
        found.append("spec.externalID: this field is deprecated, and is unused by Kubernetes")
    return found


def pod_warnings(pod: Obj, old: Obj | None) -> list[str]:
    """Warnings about a Pod; updates that leave the spec alone warn of nothing."""
    if old is not None and old.get("spec") == pod.get("spec"):
        return []
    found: list[str] = []
    name = pod["metadata"].get("name") or ""
    if old is None and (texts := names.dns_label(name)):
        listed = " ".join(texts)
        found.append(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; "
            f"a DNS label is recommended: [{listed}]"
        )
    found += _annotation_warnings(pod["metadata"].get("annotations") or {}, "metadata")
    return found + spec_warnings(pod.get("spec") or {}, "spec")


def template_warnings(template: Obj, old: Obj | None, path: str) -> list[str]:
    """Warnings about a PodTemplateSpec at `path`."""
    if old is not None and old == template:
        return []
    meta = template.get("metadata") or {}
    found = _annotation_warnings(meta.get("annotations") or {}, f"{path}.metadata")
    return found + spec_warnings(template.get("spec") or {}, f"{path}.spec")


def _annotation_warnings(annotations: dict[str, str], path: str) -> list[str]:
    found: list[str] = []
    if _SECCOMP in annotations:
        found.append(
            f'{path}.annotations[{_SECCOMP}]: non-functional in v1.27+; use the "seccompProfile" field instead'
        )
    for key in annotations:
        if key.startswith("container.seccomp.security.alpha.kubernetes.io/"):
            found.append(f'{path}.annotations[{key}]: non-functional in v1.27+; use the "seccompProfile" field instead')
        elif key.startswith(_APPARMOR):
            found.append(f'{path}.annotations[{key}]: deprecated since v1.30; use the "appArmorProfile" field instead')
    return found


def spec_warnings(spec: Obj, path: str) -> list[str]:
    """Warnings about a PodSpec at `path`."""
    found: list[str] = []
    for key in spec.get("nodeSelector") or ():
        if text := DEPRECATED_NODE_LABELS.get(key):
            found.append(f"{path}.nodeSelector[{key}]: {text}")
    if affinity := spec.get("affinity"):
        found += _affinity_warnings(affinity, f"{path}.affinity")
    for index, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        if text := DEPRECATED_NODE_LABELS.get(constraint.get("topologyKey") or ""):
            found.append(f"{path}.topologySpreadConstraints[{index}].topologyKey: {text}")
    seen: dict[str, int] = {}
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        address = alias.get("ip") or ""
        if address in seen:
            found.append(f'{path}.hostAliases[{index}].ip: duplicate ip "{address}"')
        seen.setdefault(address, index)
    for index, secret in enumerate(spec.get("imagePullSecrets") or ()):
        if not secret.get("name"):
            found.append(f'{path}.imagePullSecrets[{index}].name: invalid empty name ""')
    for index, volume in enumerate(spec.get("volumes") or ()):
        for source in volume:
            if source in _SOURCES:
                found.append(f"{path}.volumes[{index}].{source}: {_SOURCES[source]}")
    if amounts := spec.get("overhead"):
        found += _fractional(amounts, f"{path}.overhead")
    ports: dict[str, str] = {}
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            found += _container_warnings(container, f"{path}.{field}[{index}]", ports)
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        found.append(
            f"{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        )
    return found


def _affinity_warnings(affinity: Obj, path: str) -> list[str]:
    found: list[str] = []
    node = affinity.get("nodeAffinity") or {}
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    base = f"{path}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
    terms = [(f"{base}[{index}]", term) for index, term in enumerate(required.get("nodeSelectorTerms") or ())]
    base = f"{path}.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution"
    preferred = node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    terms += [(f"{base}[{index}].preference", term.get("preference") or {}) for index, term in enumerate(preferred)]
    for at, term in terms:
        for index, expression in enumerate(term.get("matchExpressions") or ()):
            if text := DEPRECATED_NODE_LABELS.get(expression.get("key") or ""):
                found.append(f"{at}.matchExpressions[{index}].key: {expression['key']} is {text}")
    return found


def _container_warnings(container: Obj, path: str, ports: dict[str, str]) -> list[str]:
    found: list[str] = []
    if resources := container.get("resources"):
        for kind in ("limits", "requests"):
            if amounts := resources.get(kind):
                found += _fractional(amounts, f"{path}.resources.{kind}")
    if env := container.get("env"):
        seen: set[str] = set()
        for index, variable in enumerate(env):
            name = variable.get("name") or ""
            if name in seen and f"$({name})" not in (variable.get("value") or ""):
                found.append(
                    f'{path}.env[{index}]: hides previous definition of "{name}", which may be dropped when using apply'
                )
            seen.add(name)
    for index, port in enumerate(container.get("ports") or ()):
        at = f"{path}.ports[{index}]"
        key = (
            f"{port.get('containerPort')}/{port.get('protocol')}/{port.get('hostPort') or 0}/{port.get('hostIP') or ''}"
        )
        if key in ports:
            same = ports[key].startswith(f"{path}.")
            kind = "duplicate port definition with" if same or port.get("hostPort") else ""
            if kind:
                found.append(f"{at}: {kind} {ports[key]}")
        ports.setdefault(key, at)
    return found


def _fractional(amounts: dict[str, str], path: str) -> list[str]:
    found: list[str] = []
    for name in ("memory", "ephemeral-storage"):
        if name in amounts:
            try:
                whole = quantity.parse(amounts[name]).denominator == 1
            except ValueError:  # validation tells
                continue
            if not whole:
                found.append(f'{path}[{name}]: fractional byte value "{amounts[name]}" is invalid, must be an integer')
    return found
