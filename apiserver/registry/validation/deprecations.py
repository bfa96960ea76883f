"""Well-known names that should not be used any more, and upstream's words about each.

Called by the warnings of pods, workloads and storage.
"""

from typing import Any

from apiserver.registry.validation import names
from machinery import quantity

DEPRECATED_NODE_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
    "app.kubernetes.io/created-by": "deprecated since v1.9",
    "scheduler.alpha.kubernetes.io/preferAvoidPods": "deprecated since v1.22; use Taints and Tolerations instead",
    "node-role.kubernetes.io/master": 'use "node-role.kubernetes.io/control-plane" instead',
}


def node_term_warnings(term: dict[str, Any], path: str, check_values: bool = False) -> list[str]:
    """Deprecated keys of a node selector term, and on demand values that no label can have."""
    found: list[str] = []
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        key = expression.get("key") or ""
        if text := DEPRECATED_NODE_LABELS.get(key):
            found.append(f"{path}.matchExpressions[{index}].key: {key} is {text}")
        if check_values:
            for position, value in enumerate(expression.get("values") or ()):
                at = f"{path}.matchExpressions[{index}].values[{position}]"
                found += [f"{at}: {value} is invalid, {text}" for text in names.label_value(value)]
    return found


def fractional_bytes(amounts: dict[str, str] | None, name: str, path: str) -> list[str]:
    """A warning if an amount of bytes is no whole number."""
    try:
        if not amounts or name not in amounts or quantity.parse(amounts[name]).denominator == 1:
            return []
    except ValueError:  # validation tells
        return []
    return [f'{path}[{name}]: fractional byte value "{amounts[name]}" is invalid, must be an integer']


def claim_spec_warnings(spec: dict[str, Any], path: str) -> list[str]:
    """Warnings about a PersistentVolumeClaimSpec."""
    resources = spec.get("resources") or {}
    found = fractional_bytes(resources.get("requests"), "storage", f"{path}.resources.requests")
    return found + fractional_bytes(resources.get("limits"), "storage", f"{path}.resources.limits")
