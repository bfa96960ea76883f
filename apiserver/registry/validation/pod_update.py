"""Updates of a pod: the few fields that may change.

Owns the comparison of old and new spec for the main resource, for resize and for ephemeral containers. Called
by the pod strategies.
"""

from typing import Any

from apiserver.registry.validation.fields import MAX_INT32
from apiserver.registry.validation.pod_dump import ephemeral_diff, spec_diff
from machinery.field_errors import FieldError

Obj = dict[str, Any]

ONLY_THESE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_CONTAINERS = ("containers", "initContainers")
ONLY_RESIZE = "only cpu and memory resources are mutable"


def _without_image(containers: list[Obj] | None) -> list[Obj]:
    return [{key: value for key, value in item.items() if key != "image"} for item in containers or ()]


def validate_pod_update(new: Obj, old: Obj) -> list[FieldError]:
    """spec of an existing pod through the main resource."""
    if new == old:
        return []
    errors: list[FieldError] = []
    for field in ("containers", "initContainers"):
        if len(new.get(field) or ()) != len(old.get(field) or ()):
            detail = "pod updates may not add or remove containers"
            errors.append(FieldError.forbidden(f"spec.{field}", detail))
    if errors:
        return errors
    errors += _validate_deadline(new.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds"))
    if new.get("tolerations") != old.get("tolerations"):
        errors += validate_toleration_change(new.get("tolerations") or [], old.get("tolerations") or [])
    gated = bool(old.get("schedulingGates"))
    errors += _validate_gates(new.get("schedulingGates") or [], old.get("schedulingGates") or [])
    if errors:
        return errors
    skip = {"containers", "initContainers", "activeDeadlineSeconds", "tolerations", "schedulingGates"}
    if gated:  # a gated pod's node selection may still be narrowed
        skip |= {"nodeSelector", "affinity"}
    if (old.get("terminationGracePeriodSeconds") or 0) < 0 and new.get("terminationGracePeriodSeconds") == 1:
        skip.add("terminationGracePeriodSeconds")
    changed = any(new.get(field) != old.get(field) for field in {*new, *old} if field not in skip)
    for field in ("containers", "initContainers"):
        changed = changed or _without_image(new.get(field)) != _without_image(old.get(field))
    if changed:
        errors.append(FieldError.forbidden("spec", f"{ONLY_THESE}\n{spec_diff(old, _munged(new, old, skip))}"))
    elif gated:
        errors += _validate_narrowing(new, old)
    return errors


def _munged(new: Obj, old: Obj, skip: set[str]) -> Obj:
    """The new spec with what may change as it was."""
    munged = {**new, **{field: old[field] for field in skip if field in old and field not in _CONTAINERS}}
    munged = {field: value for field, value in munged.items() if field in old or field not in skip}
    for field in _CONTAINERS:
        if field in new:
            pairs = zip(new[field], old[field], strict=True)
            munged[field] = [{**item, "image": was.get("image", "")} for item, was in pairs]
    return munged


def _validate_deadline(new: Any, old: Any) -> list[FieldError]:
    path = "spec.activeDeadlineSeconds"
    if new is None:
        return [FieldError.invalid(path, None, "must not update from a positive integer to nil value")] if old else []
    if not 0 <= new <= MAX_INT32:
        return [FieldError.invalid(path, new, f"must be between 0 and {MAX_INT32}, inclusive")]
    if old is not None and new > old:
        return [FieldError.invalid(path, new, "must be less than or equal to previous value")]
    return []


def validate_toleration_change(new: list[Obj], old: list[Obj]) -> list[FieldError]:
    """Existing tolerations stay; only tolerationSeconds may differ."""

    def bare(toleration: Obj) -> Obj:
        return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}

    kept = [bare(toleration) for toleration in new]
    if any(bare(toleration) not in kept for toleration in old):
        detail = "existing toleration can not be modified except its tolerationSeconds"
        return [FieldError.forbidden("spec.tolerations", detail)]
    return []


def _validate_gates(new: list[Obj], old: list[Obj]) -> list[FieldError]:
    known = [gate.get("name") for gate in old]
    for gate in new:
        if gate.get("name") not in known:
            detail = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            return [FieldError.forbidden("spec.schedulingGates", detail)]
    return []


def _validate_narrowing(new: Obj, old: Obj) -> list[FieldError]:
    selector, before = new.get("nodeSelector") or {}, old.get("nodeSelector") or {}
    if any(selector.get(key) != value for key, value in before.items()):
        detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        return [FieldError.invalid("spec.nodeSelector", selector, detail)]
    return []


_RESIZABLE = ("cpu", "memory")


def _without_resizable(spec: Obj) -> Obj:
    stripped = {key: value for key, value in spec.items() if key not in ("containers", "initContainers")}
    for field in ("containers", "initContainers"):
        stripped[field] = [_frozen(container) for container in spec.get(field) or ()]
    return stripped


def _frozen(container: Obj) -> Obj:
    resources = container.get("resources") or {}
    fixed = {
        kind: {name: amount for name, amount in (resources.get(kind) or {}).items() if name not in _RESIZABLE}
        for kind in ("requests", "limits")
    }
    return {**container, "resources": fixed, "image": ""}


def validate_resize(new: Obj, old: Obj, qos: tuple[str, str]) -> list[FieldError]:
    """Only cpu and memory of containers change, and the QoS class stays. `qos` = (new, old) class."""
    errors: list[FieldError] = []
    if _without_resizable(new) != _without_resizable(old):
        errors.append(FieldError.forbidden("spec", ONLY_RESIZE))
        return errors
    if qos[0] != qos[1]:
        # Upstream shows the class that would be lost.
        errors.append(FieldError.invalid("spec", qos[1], "Pod QOS Class may not change as a result of resizing"))
    for field in ("containers", "initContainers"):
        for index, (after, before) in enumerate(zip(new.get(field) or (), old.get(field) or (), strict=True)):
            for kind in ("limits", "requests"):
                was = (before.get("resources") or {}).get(kind) or {}
                now = (after.get("resources") or {}).get(kind) or {}
                if any(name in was and name not in now for name in _RESIZABLE):
                    path = f"spec.{field}[{index}].resources.{kind}"
                    errors.append(FieldError.forbidden(path, f"resource {kind} cannot be removed"))
    return errors


def validate_ephemeral_update(new: Obj, old: Obj) -> list[FieldError]:
    """Ephemeral containers are only ever added."""
    errors: list[FieldError] = []
    after = {container.get("name"): container for container in new.get("ephemeralContainers") or ()}
    for container in old.get("ephemeralContainers") or ():
        name = container.get("name")
        if name not in after:
            detail = f'existing ephemeral containers "{name}" may not be removed\n'
            errors.append(FieldError.forbidden("spec.ephemeralContainers", detail))
        elif after[name] != container:
            detail = f'existing ephemeral containers "{name}" may not be changed\n'
            detail += ephemeral_diff(container, after[name])
            errors.append(FieldError.forbidden("spec.ephemeralContainers", detail))
    return errors
