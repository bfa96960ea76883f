"""Deployments, replica sets, stateful sets, daemon sets, replication controllers, pod templates, revisions.

Called by the rules of those kinds in the strategy table.
"""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import (
    NOT_NEGATIVE,
    check_immutable,
    check_label_selector,
    check_not_negative,
    invalid_each,
    unsupported,
)
from apiserver.registry.validation.pod import validate_template
from apiserver.registry.validation.storage import validate_claim_spec
from machinery.field_errors import FieldError
from machinery.selectors import LabelSelector

Obj = dict[str, Any]
_NO_MATCH = "`selector` does not match template `labels`"


def validate_selector(selector: Obj | None, path: str, empty: str, *, required: bool = True) -> list[FieldError]:
    """A workload's own label selector: given, not empty, valid. `empty` is upstream's word for the kind."""
    if selector is None:
        return [FieldError.required(path)] if required else []
    errors = check_label_selector(path, selector)
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        errors.append(FieldError.invalid(path, selector, empty))
    return errors


def validate_template_labels(selector: Obj | None, template: Obj, path: str) -> list[FieldError]:
    """The template's pods are selected by the workload."""
    labels = (template.get("metadata") or {}).get("labels")
    if selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions"):
        return []
    try:
        matches = selector is not None and LabelSelector.from_object(selector).matches(labels)
    except ValueError:  # the selector's own findings tell
        return []
    return [] if matches else [FieldError.invalid(f"{path}.metadata.labels", labels, _NO_MATCH)]


def validate_restart_always(template: Obj, path: str) -> list[FieldError]:
    """Pods of these kinds always restart."""
    policy = (template.get("spec") or {}).get("restartPolicy")
    return [] if policy == "Always" else [unsupported(f"{path}.spec.restartPolicy", policy, ("Always",))]


def _no_deadline(template: Obj, path: str, kind: str) -> list[FieldError]:
    if (template.get("spec") or {}).get("activeDeadlineSeconds") is None:
        return []
    return [
        FieldError.forbidden(f"{path}.spec.activeDeadlineSeconds", f"activeDeadlineSeconds in {kind} is not Supported")
    ]


def _validate_pods(
    selector: Obj | None, template: Obj, path: str, kind: str, unselectable: str = "invalid label selector"
) -> list[FieldError]:
    try:
        LabelSelector.from_object(selector or {})
    except ValueError:
        # Upstream looks no further at a template that nothing can select.
        return [FieldError.invalid("spec.selector", selector, unselectable)]
    errors = validate_template_labels(selector, template, path) + validate_template(template, path)
    return errors + validate_restart_always(template, path) + _no_deadline(template, path, kind)


def _int_or_percent(path: str, value: Any) -> list[FieldError]:
    if isinstance(value, str):
        return invalid_each(path, value, names.percent(value))
    return check_not_negative(path, value)


def _over_100(path: str, value: Any) -> list[FieldError]:
    if isinstance(value, str) and not names.percent(value) and int(value[:-1]) > 100:
        return [FieldError.invalid(path, value, "must not be greater than 100%")]
    return []


def _is_zero(value: Any) -> bool:
    return value in (0, "") or (isinstance(value, str) and value.endswith("%") and not value.strip("0%"))


def validate_deployment(obj: Obj) -> list[FieldError]:
    """apps/v1 Deployment."""
    spec = obj.get("spec") or {}
    errors = check_not_negative("spec.replicas", spec.get("replicas"))
    errors += validate_selector(spec.get("selector"), "spec.selector", "empty selector is invalid for deployment")
    errors += _validate_pods(spec.get("selector"), spec.get("template") or {}, "spec.template", "ReplicaSet")
    errors += _validate_deployment_strategy(spec.get("strategy") or {}, "spec.strategy")
    ready = spec.get("minReadySeconds") or 0
    errors += check_not_negative("spec.minReadySeconds", ready)
    errors += check_not_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None:
        errors += check_not_negative("spec.progressDeadlineSeconds", deadline)
        if deadline <= ready:
            detail = "must be greater than minReadySeconds"
            errors.append(FieldError.invalid("spec.progressDeadlineSeconds", deadline, detail))
    return errors


def _validate_deployment_strategy(strategy: Obj, path: str) -> list[FieldError]:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is None:
            return []
        detail = "may not be specified when strategy `type` is 'Recreate'"
        return [FieldError.forbidden(f"{path}.rollingUpdate", detail)]
    if kind != "RollingUpdate":
        shown = {"Type": kind, "RollingUpdate": rolling}
        return [unsupported(path, shown, ("Recreate", "RollingUpdate"))]
    if rolling is None:
        return [FieldError.required(f"{path}.rollingUpdate", "this should be defaulted and never be nil")]
    at = f"{path}.rollingUpdate"
    surge, unavailable = rolling.get("maxSurge"), rolling.get("maxUnavailable")
    errors = _int_or_percent(f"{at}.maxUnavailable", unavailable)
    errors += _int_or_percent(f"{at}.maxSurge", surge)
    if _is_zero(surge) and _is_zero(unavailable):
        detail = "may not be 0 when `maxSurge` is 0"
        errors.append(FieldError.invalid(f"{at}.maxUnavailable", unavailable, detail))
    return errors + _over_100(f"{at}.maxUnavailable", unavailable)


def validate_deployment_update(new: Obj, old: Obj) -> list[FieldError]:
    """Selectors stay."""
    errors = validate_deployment(new)
    return errors + check_immutable("spec.selector", new["spec"].get("selector"), old["spec"].get("selector"))


def validate_replica_set(obj: Obj) -> list[FieldError]:
    """apps/v1 ReplicaSet."""
    spec = obj.get("spec") or {}
    errors = check_not_negative("spec.replicas", spec.get("replicas"))
    errors += check_not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    errors += validate_selector(spec.get("selector"), "spec.selector", "empty selector is invalid for deployment")
    return errors + _validate_pods(spec.get("selector"), spec.get("template") or {}, "spec.template", "ReplicaSet")


def validate_replica_set_update(new: Obj, old: Obj) -> list[FieldError]:
    """Selectors stay."""
    errors = validate_replica_set(new)
    return errors + check_immutable("spec.selector", new["spec"].get("selector"), old["spec"].get("selector"))


def validate_daemon_set(obj: Obj) -> list[FieldError]:
    """apps/v1 DaemonSet."""
    spec = obj.get("spec") or {}
    errors = check_label_selector("spec.selector", spec.get("selector"))
    selector, template = spec.get("selector"), spec.get("template") or {}
    errors += validate_template_labels(selector, template, "spec.template")
    if selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions"):
        errors.append(FieldError.invalid("spec.selector", selector, "empty selector is invalid for daemonset"))
    errors += validate_template(template, "spec.template")
    errors += validate_restart_always(template, "spec.template")
    errors += _no_deadline(template, "spec.template", "DaemonSet")
    errors += check_not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    strategy = spec.get("updateStrategy") or {}
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "RollingUpdate":
        errors += _validate_daemon_rolling(rolling, "spec.updateStrategy.rollingUpdate")
    elif kind != "OnDelete":
        shown = {"Type": kind, "RollingUpdate": rolling}
        errors.append(unsupported("spec.updateStrategy", shown, ("RollingUpdate", "OnDelete")))
    return errors + check_not_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))


def _validate_daemon_rolling(rolling: Obj | None, path: str) -> list[FieldError]:
    if rolling is None:
        return [FieldError.required(path)]
    surge, unavailable = rolling.get("maxSurge", 0), rolling.get("maxUnavailable", 0)
    errors: list[FieldError] = []
    for field, value in (("maxUnavailable", unavailable), ("maxSurge", surge)):
        errors += _int_or_percent(f"{path}.{field}", value) + _over_100(f"{path}.{field}", value)
    if not _is_zero(surge) and not _is_zero(unavailable):
        detail = "may not be set when maxUnavailable is non-zero"
        errors.append(FieldError.invalid(f"{path}.maxSurge", surge, detail))
    elif _is_zero(surge) and _is_zero(unavailable):
        errors.append(FieldError.required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    return errors


def validate_daemon_set_update(new: Obj, old: Obj) -> list[FieldError]:
    """Selectors stay."""
    errors = validate_daemon_set(new)
    return errors + check_immutable("spec.selector", new["spec"].get("selector"), old["spec"].get("selector"))


def validate_stateful_set(obj: Obj) -> list[FieldError]:
    """apps/v1 StatefulSet."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    policy = spec.get("podManagementPolicy")
    if not policy:
        errors.append(FieldError.required("spec.podManagementPolicy"))
    elif policy not in ("OrderedReady", "Parallel"):
        detail = "must be 'OrderedReady' or 'Parallel'"
        errors.append(FieldError.invalid("spec.podManagementPolicy", policy, detail))
    errors += _validate_stateful_strategy(spec.get("updateStrategy") or {}, "spec.updateStrategy")
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for field in ("whenDeleted", "whenScaled"):
        path = f"spec.persistentVolumeClaimRetentionPolicy.{field}"
        if (value := retention.get(field) or "") not in ("Retain", "Delete"):
            errors.append(unsupported(path, value, ("Retain", "Delete")))
    errors += check_not_negative("spec.replicas", spec.get("replicas"))
    errors += check_not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    if ordinals := spec.get("ordinals"):
        errors += check_not_negative("spec.ordinals.start", ordinals.get("start"))
    if name := spec.get("serviceName"):
        errors += invalid_each("spec.serviceName", name, names.dns_label(name))
    errors += validate_selector(spec.get("selector"), "spec.selector", "empty selector is invalid for statefulset")
    return errors + _validate_claimed_pods(spec)


def _validate_claimed_pods(spec: Obj) -> list[FieldError]:
    """Claims of the set are volumes of its pods."""
    template = dict(spec.get("template") or {})
    pods = dict(template.get("spec") or {})
    errors: list[FieldError] = []
    own = {volume.get("name") for volume in pods.get("volumes") or ()}
    claimed = []
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        name = (claim.get("metadata") or {}).get("name") or ""
        errors += validate_claim_spec(claim.get("spec") or {}, f"spec.volumeClaimTemplates[{index}].spec")
        if name not in own:
            claimed.append({"name": name, "persistentVolumeClaim": {"claimName": name}})
    if claimed:
        pods["volumes"] = [*(pods.get("volumes") or ()), *claimed]
        template["spec"] = pods
    return errors + _validate_pods(spec.get("selector"), template, "spec.template", "StatefulSet", "")


def _rolling_value(rolling: Obj | None) -> Obj | None:
    if rolling is None:
        return None
    return {"Partition": rolling.get("partition") or 0, "MaxUnavailable": rolling.get("maxUnavailable")}


def _validate_stateful_strategy(strategy: Obj, path: str) -> list[FieldError]:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if not kind:
        return [FieldError.required(path)]
    if kind == "OnDelete":
        if rolling is None:
            return []
        detail = "only allowed for updateStrategy 'RollingUpdate'"
        return [FieldError.invalid(f"{path}.rollingUpdate", _rolling_value(rolling), detail)]
    if kind != "RollingUpdate":
        shown = {"Type": kind, "RollingUpdate": _rolling_value(rolling)}
        return [FieldError.invalid(path, shown, "must be 'RollingUpdate' or 'OnDelete'")]
    partition = (rolling or {}).get("partition")
    errors = check_not_negative(f"{path}.rollingUpdate.partition", partition)
    if (unavailable := (rolling or {}).get("maxUnavailable")) is not None:
        at = f"{path}.rollingUpdate.maxUnavailable"
        errors += _int_or_percent(at, unavailable)
        if _is_zero(unavailable):
            errors.append(FieldError.invalid(at, unavailable, "cannot be 0"))
        errors += _over_100(at, unavailable)
    return errors


_STATEFUL_MUTABLE = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip


def validate_stateful_set_update(new: Obj, old: Obj) -> list[FieldError]:
    """Only the listed fields change."""
    errors = validate_stateful_set(new)
    after, before = new["spec"], old["spec"]
    if any(after.get(field) != before.get(field) for field in {*after, *before} if field not in _STATEFUL_MUTABLE):
        listed = ", ".join(f"'{field}'" for field in _STATEFUL_MUTABLE[:-1])
        detail = (
            f"updates to statefulset spec for fields other than {listed} and '{_STATEFUL_MUTABLE[-1]}' are forbidden"
        )
        errors.append(FieldError.forbidden("spec", detail))
    return errors


def validate_replication_controller(obj: Obj) -> list[FieldError]:
    """v1 ReplicationController: the selector is a plain map."""
    spec = obj.get("spec") or {}
    errors = check_not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    selector = spec.get("selector")
    if not selector:
        errors.append(FieldError.required("spec.selector"))
    errors += check_not_negative("spec.replicas", spec.get("replicas"))
    template = spec.get("template")
    if template is None:
        errors.append(FieldError.required("spec.template"))
        return errors
    wanted = {"matchLabels": selector} if selector else {}
    return errors + _validate_pods(wanted, template, "spec.template", "ReplicationController")


def validate_pod_template(obj: Obj) -> list[FieldError]:
    """v1 PodTemplate."""
    return validate_template(obj.get("template") or {}, "template")


def validate_revision(obj: Obj) -> list[FieldError]:
    """apps/v1 ControllerRevision."""
    revision = obj.get("revision") or 0
    errors = [FieldError.invalid("revision", revision, NOT_NEGATIVE)] if revision < 0 else []
    if obj.get("data") is None:
        errors.append(FieldError.required("data", "data is mandatory"))
    return errors


def validate_revision_update(new: Obj, old: Obj) -> list[FieldError]:
    """Data stays."""
    return validate_revision(new) + check_immutable("data", new.get("data"), old.get("data"))


_COUNTS: dict[str, tuple[str, ...]] = {
    "Deployment": (
        "observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "availableReplicas",
        "unavailableReplicas", "terminatingReplicas", "collisionCount",
    ),
    "ReplicaSet": (
        "replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration",
        "terminatingReplicas",
    ),
    "ReplicationController": (
        "replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration",
    ),
    "StatefulSet": (
        "replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas", "observedGeneration",
        "collisionCount",
    ),
    "DaemonSet": (
        "currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady", "observedGeneration",
        "updatedNumberScheduled", "numberAvailable", "numberUnavailable", "collisionCount",
    ),
}  # fmt: skip
# Counts of replicas of which there cannot be more than replicas.
_PARTS: dict[str, tuple[str, ...]] = {
    "Deployment": ("updatedReplicas", "readyReplicas", "availableReplicas"),
    "ReplicaSet": ("fullyLabeledReplicas", "readyReplicas", "availableReplicas"),
    "ReplicationController": ("fullyLabeledReplicas", "readyReplicas", "availableReplicas"),
    "StatefulSet": ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"),
}


def validate_workload_status(new: Obj, old: Obj) -> list[FieldError]:
    """Counts are not negative; a part cannot exceed the whole."""
    status, kind = new.get("status") or {}, new.get("kind") or ""
    errors: list[FieldError] = []
    for field in _COUNTS.get(kind, ()):
        errors += check_not_negative(f"status.{field}", status.get(field))
    replicas = status.get("replicas") or 0
    for field in _PARTS.get(kind, ()):
        value = status.get(field) or 0
        if value > replicas:
            errors.append(FieldError.invalid(f"status.{field}", value, "cannot be greater than status.replicas"))
    ready, available = status.get("readyReplicas") or 0, status.get("availableReplicas") or 0
    if kind in _PARTS and available > ready:
        detail = "cannot be greater than readyReplicas"
        if kind == "StatefulSet":
            detail = "cannot be greater than status.readyReplicas"
        errors.append(FieldError.invalid("status.availableReplicas", available, detail))
    return errors
