"""What becomes of a new pod before it is checked: label keys join selectors, profile annotations become fields.

Never refuses anything. Called by the pod strategy.
"""

from typing import Any

from apiserver.registry.validation.security import check_app_armor

Obj = dict[str, Any]

APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
OLD_PROFILE = 'deprecated since v1.30; use the "appArmorProfile" field instead'


def merge_label_keys(pod: Obj) -> None:
    """Spread constraints and terms of affinity also want (or shun) the pod's own values of the keys they name."""
    spec, labels = pod["spec"], pod["metadata"].get("labels") or {}
    affinity = spec.get("affinity") or {}
    for field in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(field) or {}
        for weighted in terms.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            if term := weighted.get("podAffinityTerm"):
                weighted["podAffinityTerm"] = _merged(term, labels)
        if required := terms.get("requiredDuringSchedulingIgnoredDuringExecution"):
            required[:] = [_merged(term, labels) for term in required]
    if constraints := spec.get("topologySpreadConstraints"):
        spec["topologySpreadConstraints"] = [_merged(each, labels) for each in constraints]


def _merged(term: Obj, labels: dict[str, str]) -> Obj:
    """The term with an expression more in its selector for each key; no selector stays none."""
    if (selector := term.get("labelSelector")) is None:
        return term
    added = [
        {"key": key, "operator": operator, "values": [labels[key]]}
        for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn"))
        for key in term.get(field) or ()
        if key in labels
    ]
    if not added:
        return term
    return term | {
        "labelSelector": selector | {"matchExpressions": [*(selector.get("matchExpressions") or ()), *added]}
    }


def follow_profile_annotations(pod: Obj) -> list[str]:
    """Write AppArmor annotations into the fields of containers that have none; answers the warnings."""
    spec, annotations = pod["spec"], pod["metadata"].get("annotations") or {}
    if (spec.get("os") or {}).get("name") == "windows":
        return []
    whole = (spec.get("securityContext") or {}).get("appArmorProfile")
    found: list[str] = []
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            key = APP_ARMOR + (container.get("name") or "")
            security = container.get("securityContext") or {}
            if key not in annotations or security.get("appArmorProfile") is not None:
                continue
            profile = _profile(annotations[key])
            if profile is not None and profile == whole:
                continue
            found.append(f"metadata.annotations[{key}]: {OLD_PROFILE}")
            if profile is not None:
                container["securityContext"] = security | {"appArmorProfile": profile}
    return found


def _profile(annotation: str) -> Obj | None:
    """The field an annotation stands for; None: it stands for nothing valid."""
    profile: Obj
    if annotation == "unconfined":
        profile = {"type": "Unconfined"}
    elif annotation == "runtime/default":
        profile = {"type": "RuntimeDefault"}
    elif annotation.startswith("localhost/") and annotation != "localhost/":
        profile = {"type": "Localhost", "localhostProfile": annotation.removeprefix("localhost/")}
    else:
        return None
    return None if check_app_armor(profile, "") else profile
