"""Updates of a pod: the few fields that may change.

Owns the comparison of old and new spec for the main resource, for resize and for ephemeral containers. Called
by the pod strategies.
"""

from typing import Any

from apiserver.registry.validation.containers import validate_image_text
from apiserver.registry.validation.fields import MAX_INT32
from apiserver.registry.validation.pod_dump import ephemeral_diff, node_term_value, spec_diff
from apiserver.registry.validation.scheduling import validate_tolerations
from machinery.field_errors import FieldError

Obj = dict[str, Any]

ONLY_THESE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_CONTAINERS = ("containers", "initContainers")
ONLY_RESIZE = "only cpu and memory resources are mutable"


def validate_pod_update(new: Obj, old: Obj) -> list[FieldError]:
    """spec of an existing pod through the main resource; the rules for new specs are asked apart."""
    errors: list[FieldError] = []
    for field in _CONTAINERS:
        if len(new.get(field) or ()) != len(old.get(field) or ()):
            detail = "pod updates may not add or remove containers"
            return [*errors, FieldError.forbidden(f"spec.{field}", detail)]
        for index, container in enumerate(new.get(field) or ()):
            if not container.get("image"):
                errors.append(FieldError.required(f"spec.{field}[{index}].image"))
            errors += validate_image_text(container, f"spec.{field}[{index}]")
    deadline, stop = _validate_deadline(new.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds"))
    errors += deadline
    if stop:
        return errors
    errors += _validate_toleration_change(new.get("tolerations") or [], old.get("tolerations") or [])
    errors += _validate_gates(new.get("schedulingGates") or [], old.get("schedulingGates") or [])
    munged = _munged(new, old)
    if old.get("schedulingGates"):  # a gated pod's node selection may still be narrowed
        errors += _validate_narrowing(munged, old)
    if munged != old:
        errors.append(FieldError.forbidden("spec", f"{ONLY_THESE}\n{spec_diff(old, munged)}"))
    return errors


def _munged(new: Obj, old: Obj) -> Obj:
    """The new spec with what may change as it was."""
    munged = dict(new)
    for field in ("activeDeadlineSeconds", "schedulingGates", "tolerations"):
        _take_over(munged, old, field)
    for field in _CONTAINERS:
        if field in new:
            pairs = zip(new[field], old.get(field) or (), strict=True)
            munged[field] = [{**item, "image": was.get("image", "")} for item, was in pairs]
    if (old.get("terminationGracePeriodSeconds") or 0) < 0 and new.get("terminationGracePeriodSeconds") == 1:
        munged["terminationGracePeriodSeconds"] = old["terminationGracePeriodSeconds"]
    return munged


def _take_over(new: Obj, old: Obj, field: str) -> None:
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)


def _validate_deadline(new: Any, old: Any) -> tuple[list[FieldError], bool]:
    """The findings, and whether upstream looks no further."""
    path = "spec.activeDeadlineSeconds"
    if new is None:
        detail = "must not update from a positive integer to nil value"
        return ([] if old is None else [FieldError.invalid(path, None, detail)]), False
    if not 0 <= new <= MAX_INT32:
        return [FieldError.invalid(path, new, f"must be between 0 and {MAX_INT32}, inclusive")], True
    if old is not None and new > old:
        return [FieldError.invalid(path, new, "must be less than or equal to previous value")], True
    return [], False


def _validate_toleration_change(new: list[Obj], old: list[Obj]) -> list[FieldError]:
    """Existing tolerations stay; only tolerationSeconds may differ."""

    def bare(toleration: Obj) -> Obj:
        return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}

    kept = [bare(toleration) for toleration in new]
    if any(bare(toleration) not in kept for toleration in old):
        detail = "existing toleration can not be modified except its tolerationSeconds"
        return [FieldError.forbidden("spec.tolerations", detail)]
    return validate_tolerations(new, "spec.tolerations")


def _validate_gates(new: list[Obj], old: list[Obj]) -> list[FieldError]:
    known = [gate.get("name") for gate in old]
    added = {gate.get("name"): index for index, gate in enumerate(new) if gate.get("name") not in known}
    return [
        FieldError.forbidden(
            f"spec.schedulingGates[{index}].name",
            f"only deletion is allowed, but found new scheduling gate '{name}'",
        )
        for name, index in added.items()
    ]


def _validate_narrowing(munged: Obj, old: Obj) -> list[FieldError]:
    """Findings about what may only be added to; `munged` then has it as it was."""
    errors: list[FieldError] = []
    selector, before = munged.get("nodeSelector") or {}, old.get("nodeSelector") or {}
    if any(selector.get(key) != value for key, value in before.items()):
        detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        errors.append(FieldError.invalid("spec.nodeSelector", selector or None, detail))
    _take_over(munged, old, "nodeSelector")
    affinity, was = dict(munged.get("affinity") or {}), old.get("affinity") or {}
    if affinity.get("nodeAffinity") != was.get("nodeAffinity"):
        errors += _validate_terms(affinity.get("nodeAffinity") or {}, was.get("nodeAffinity") or {})
        _take_over(affinity, was, "nodeAffinity")
        if affinity or "affinity" in old:
            munged["affinity"] = affinity
        else:
            munged.pop("affinity", None)
    return errors


def _validate_terms(new: Obj, old: Obj) -> list[FieldError]:
    field = "requiredDuringSchedulingIgnoredDuringExecution"
    terms, before = ((each.get(field) or {}).get("nodeSelectorTerms") or [] for each in (new, old))
    path = f"spec.affinity.nodeAffinity.{field}.nodeSelectorTerms"
    if before and len(terms) != len(before):
        detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        return [FieldError.invalid(path, [node_term_value(term) for term in terms] or None, detail)]
    detail = "only additions are allowed (no mutations or deletions)"
    return [
        FieldError.invalid(f"{path}[{index}]", node_term_value(term), detail)
        for index, (term, was) in enumerate(zip(terms, before, strict=False))
        if not _only_adds(term, was)
    ]


def _only_adds(new: Obj, old: Obj) -> bool:
    fields = ("matchExpressions", "matchFields")
    if not any(old.get(field) for field in fields):
        return not any(new.get(field) for field in fields)  # an empty term selects nothing
    return all((new.get(field) or [])[: len(old.get(field) or ())] == (old.get(field) or []) for field in fields)


_RESIZABLE = ("cpu", "memory")


def _frozen(container: Obj, old: Obj) -> Obj:
    """The container with cpu and memory as they were."""
    resources, was = (each.get("resources") or {} for each in (container, old))
    amounts: Obj = {}
    for kind in ("limits", "requests"):
        if kind not in was:
            continue
        kept = {name: amount for name, amount in (resources.get(kind) or {}).items() if name not in _RESIZABLE}
        amounts[kind] = {**kept, **{name: was[kind][name] for name in _RESIZABLE if name in was[kind]}}
    return {**container, "resources": amounts}


def validate_resize(new_pod: Obj, old_pod: Obj, qos: str) -> list[FieldError]:
    """Only cpu and memory of containers and sidecars change, and the QoS class stays. `qos` is that of the new spec."""
    new, old = new_pod["spec"], old_pod["spec"]
    errors: list[FieldError] = []
    was = (old_pod.get("status") or {}).get("qosClass") or qos
    if qos != was:  # upstream shows the class that would be lost
        errors.append(FieldError.invalid("spec", was, "Pod QOS Class may not change as a result of resizing"))
    running = [
        each
        for each in (old_pod.get("status") or {}).get("containerStatuses") or ()
        if "running" in (each.get("state") or ())
    ]
    if running and running[0].get("resources") is None:
        errors.append(FieldError.forbidden("spec", "Pod running on node without support for resize"))
    for field in ("initContainers", "containers"):
        for index, (after, before) in enumerate(zip(new.get(field) or (), old.get(field) or (), strict=False)):
            if field == "containers" or before.get("restartPolicy") == "Always":
                errors += _validate_container_resize(after, before, f"spec.{field}[{index}].resources")
    for field, text in (("containers", ONLY_RESIZE), ("initContainers", "")):
        for after, before in zip(new.get(field) or (), old.get(field) or (), strict=False):
            sidecar = field == "initContainers" and after.get("restartPolicy") == "Always"
            if field == "containers" or sidecar:
                if _frozen(after, before) != before:
                    detail = text or "only cpu and memory resources for sidecar containers are mutable"
                    errors.append(FieldError.forbidden("spec", detail))
            elif after != before:
                detail = "resources for non-sidecar init containers are immutable"
                errors.append(FieldError.forbidden("spec", detail))
    return errors


def _validate_container_resize(after: Obj, before: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    now, was = (each.get("resources") or {} for each in (after, before))
    for kind in ("requests", "limits"):
        if (was.get(kind) or {}).keys() - (now.get(kind) or {}).keys():
            errors.append(FieldError.forbidden(f"{path}.{kind}", f"resource {kind} cannot be removed"))
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
