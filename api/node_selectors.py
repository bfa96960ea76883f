"""Which nodes a pod or volume may have by its node selector and required node affinity.

Owns the meaning of one term for one node, for everybody who looks at nodes one by one: DaemonSets, the kubelet's
admission, volumes. The scheduler compiles the same rules for all nodes at once (`scheduler.framework.node_selector`); a
test holds the two together. The rules are upstream's (k8s.io/component-helpers/scheduling/corev1/nodeaffinity): a term
that is empty, or that has one requirement which makes no sense, holds nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from api.models import core_v1

NAME_FIELD: Final = "metadata.name"
Labels = Mapping[str, str]
_INTEGER: Final = re.compile(r"[+-]?[0-9]+").fullmatch
_WIDEST: Final = 2**63


def integer(text: str | None) -> int | None:
    """As Go's ParseInt(text, 10, 64) reads it; None when it is no such number."""
    if text is None or not _INTEGER(text) or len(text) > 64:
        return None
    number = int(text)
    return number if -_WIDEST <= number < _WIDEST else None


def admits(spec: core_v1.PodSpec, labels: Labels, name: str) -> bool:
    """Whether a pod's `nodeSelector` and required node affinity allow the node of this name."""
    if not (spec.nodeSelector or {}).items() <= labels.items():
        return False
    affinity = spec.affinity.nodeAffinity if spec.affinity is not None else None
    required = affinity.requiredDuringSchedulingIgnoredDuringExecution if affinity is not None else None
    return required is None or any(term_matches(each, labels, name) for each in required.nodeSelectorTerms or ())


def term_matches(term: core_v1.NodeSelectorTerm, labels: Labels, name: str) -> bool:
    """Whether all requirements on labels and on the name hold."""
    if not term.matchExpressions and not term.matchFields:
        return False
    return all(requirement_matches(each, labels) for each in term.matchExpressions or ()) and all(
        _name_matches(each, name) for each in term.matchFields or ()
    )


def requirement_matches(requirement: core_v1.NodeSelectorRequirement, labels: Labels) -> bool:
    """Whether one requirement on a label holds."""
    actual, listed = labels.get(requirement.key), list(requirement.values or ())
    match requirement.operator:
        case "In":
            return actual in listed
        case "NotIn":
            return bool(listed) and actual not in listed
        case "Exists":
            return not listed and actual is not None
        case "DoesNotExist":
            return not listed and actual is None
        case "Gt" | "Lt" if len(listed) == 1:
            left, right = integer(actual), integer(listed[0])
            if left is None or right is None:
                return False
            return left > right if requirement.operator == "Gt" else left < right
    return False


def _name_matches(requirement: core_v1.NodeSelectorRequirement, name: str) -> bool:
    if requirement.key != NAME_FIELD or len(requirement.values or ()) != 1:
        return False
    same = name == (requirement.values or ("",))[0]
    return (requirement.operator == "In" and same) or (requirement.operator == "NotIn" and not same)
