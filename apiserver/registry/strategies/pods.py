"""Pods: phase and QoS class at creation, graceful deletion, and the subresources that change a pod.

Owns what only pods have. Never schedules and never talks to a kubelet. Looked up through `strategy_for`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from apiserver.registry.defaults.pod import default_pod
from apiserver.registry.strategies.pod_creation import follow_profile_annotations, merge_label_keys
from apiserver.registry.strategies.pod_warnings import pod_warnings
from apiserver.registry.strategies.qos import qos_class
from apiserver.registry.strategy import PartStrategy, Rules, StatusStrategy, Strategy
from apiserver.registry.validation.metadata import Passes
from apiserver.registry.validation.pod import validate_pod
from apiserver.registry.validation.pod_annotations import (
    MIRROR,
    validate_annotation_change,
    validate_pod_annotations,
    validate_profile_annotations,
)
from apiserver.registry.validation.pod_status import validate_pod_status
from apiserver.registry.validation.pod_update import (
    validate_ephemeral_update,
    validate_pod_update,
    validate_resize,
)
from machinery.field_errors import FieldError

if TYPE_CHECKING:
    from apiserver.registry.store import RequestContext

Obj = dict[str, Any]

_GATED = "Scheduling is blocked due to non-empty scheduling gates"


def _spec_field(name: str, default: str = "") -> Callable[[Obj], str]:
    return lambda pod: str(pod.get("spec", {}).get(name) or default)


def _status_field(name: str) -> Callable[[Obj], str]:
    return lambda pod: str((pod.get("status") or {}).get(name) or "")


def _host_network(pod: Obj) -> str:
    return "true" if pod.get("spec", {}).get("hostNetwork") else "false"


def _pod_ip(pod: Obj) -> str:
    status = pod.get("status") or {}
    addresses = status.get("podIPs") or ()
    return str(addresses[0].get("ip") or "") if addresses else str(status.get("podIP") or "")


class PodStrategy(Strategy):
    """The main resource."""

    rules = Rules(
        generation=True,
        has_status=True,
        default=default_pod,
        passes=Passes(2, 1),
        warnings=pod_warnings,
        fields={
            "spec.nodeName": _spec_field("nodeName"),
            "spec.restartPolicy": _spec_field("restartPolicy"),
            "spec.schedulerName": _spec_field("schedulerName"),
            "spec.serviceAccountName": _spec_field("serviceAccountName"),
            "spec.hostNetwork": _host_network,
            "status.phase": _status_field("phase"),
            "status.podIP": _pod_ip,
            "status.nominatedNodeName": _status_field("nominatedNodeName"),
        },
    )

    def prepare_create(self, ctx: RequestContext, obj: Obj) -> None:
        super().prepare_create(ctx, obj)
        spec = obj["spec"]
        status: Obj = {"phase": "Pending", "qosClass": qos_class(spec)}
        obj["status"] = status
        if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
            spec["terminationGracePeriodSeconds"] = 1
        if spec.get("schedulingGates"):
            gated: Obj = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": _GATED}
            gated |= {"lastProbeTime": None, "lastTransitionTime": obj["metadata"].get("creationTimestamp")}
            status["conditions"] = [gated]
        merge_label_keys(obj)
        ctx.warnings.extend(follow_profile_annotations(obj))

    def validate_create(self, ctx: RequestContext, obj: Obj) -> list[FieldError]:
        errors = super().validate_create(ctx, obj)
        spec = obj["spec"]
        if spec.get("ephemeralContainers"):
            errors.append(FieldError.forbidden("spec.ephemeralContainers", "cannot be set on create"))
        if spec.get("nodeName") and spec.get("schedulingGates"):
            detail = "cannot be set until all schedulingGates have been cleared"
            errors.append(FieldError.forbidden("spec.nodeName", detail))
        if annotations := obj["metadata"].get("annotations"):
            errors += validate_profile_annotations(annotations, spec, "spec")
        return errors

    def validate(self, obj: Obj) -> list[FieldError]:
        return validate_pod(obj)

    def validate_change(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        same = new["spec"] == old["spec"]
        if not same:
            errors += validate_pod(new)
        changed = _annotation_change(new, old)
        if same and changed:  # what a look at the whole pod finds once more
            errors += validate_pod_annotations(new["metadata"]["annotations"], new["spec"], "metadata.annotations")
        errors += changed
        return errors if same else errors + validate_pod_update(new["spec"], old["spec"])

    def grace_period(self, obj: Obj, requested: int | None) -> int | None:
        spec = obj.get("spec") or {}
        own = spec.get("terminationGracePeriodSeconds")
        period = requested if requested is not None else own if own is not None else 0
        phase = (obj.get("status") or {}).get("phase")
        if not spec.get("nodeName") or phase in ("Failed", "Succeeded"):
            return 0  # nobody would finish the deletion
        return 1 if period < 0 else period

    def make_subresource(self, name: str) -> Strategy:
        made = {
            "status": PodStatusStrategy,
            "resize": PodResizeStrategy,
            "ephemeralcontainers": PodEphemeralStrategy,
        }.get(name)
        return made(self) if made else super().make_subresource(name)


def _annotation_change(new: Obj, old: Obj) -> list[FieldError]:
    after, before = (pod["metadata"].get("annotations") or {} for pod in (new, old))
    if after == before:
        return []
    errors = validate_annotation_change(after, before, "metadata.annotations")
    return errors + validate_pod_annotations(after, new["spec"], "metadata.annotations")


class PodStatusStrategy(StatusStrategy):
    """`…/status`: the kubelet's door."""

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        super().prepare_update(ctx, new, old)
        meta = new["metadata"]
        if "ownerReferences" in old["metadata"]:
            meta["ownerReferences"] = old["metadata"]["ownerReferences"]
        else:
            meta.pop("ownerReferences", None)
        status = new.setdefault("status", {})
        status.setdefault("qosClass", (old.get("status") or {}).get("qosClass") or qos_class(old["spec"]))
        for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
            for item in status.get(field) or ():
                item.setdefault("state", {})
                item.setdefault("lastState", {})

    def validate_status(self, new: Obj, old: Obj) -> list[FieldError]:
        return _annotation_change(new, old) + validate_pod_status(new, old)


class _PodPartStrategy(PartStrategy):
    """A subresource that writes one part of the spec and nothing else."""

    def keep_part(self, new: Obj, old: Obj) -> Obj:
        """The spec to write: the old one with the new part."""
        raise NotImplementedError

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        new["metadata"] = {**old["metadata"], "resourceVersion": new["metadata"].get("resourceVersion", "")}
        new["spec"] = self.keep_part(new["spec"], old["spec"])
        if "status" in old:
            new["status"] = old["status"]
        self._count_generation(new, old)


class PodResizeStrategy(_PodPartStrategy):
    """`…/resize`: cpu and memory of containers."""

    def keep_part(self, new: Obj, old: Obj) -> Obj:
        kept = dict(old)
        for field in ("containers", "initContainers"):
            asked = {container.get("name"): container for container in new.get(field) or ()}
            if field in old:
                kept[field] = [_resized(container, asked.get(container.get("name"))) for container in old[field]]
        return kept

    def validate_update(self, ctx: RequestContext, new: Obj, old: Obj) -> list[FieldError]:
        errors = validate_pod(new)
        if refusal := _unresizable(new, old):
            return [FieldError.forbidden("[]", refusal)]
        return errors + validate_resize(new, old, qos_class(new["spec"]))


def _unresizable(new: Obj, old: Obj) -> str:
    if MIRROR in (old["metadata"].get("annotations") or ()):
        return "static pods cannot be resized"
    if (old["spec"].get("os") or {}).get("name") == "windows":
        return "windows pods cannot be resized"
    return ""


def _resized(container: Obj, asked: Obj | None) -> Obj:
    if asked is None:
        return container
    resized = {**container, "resources": asked.get("resources") or {}}
    if "resizePolicy" in asked:
        resized["resizePolicy"] = asked["resizePolicy"]
    return resized


class PodEphemeralStrategy(_PodPartStrategy):
    """`…/ephemeralcontainers`: containers for debugging."""

    def keep_part(self, new: Obj, old: Obj) -> Obj:
        kept = dict(old)
        kept.pop("ephemeralContainers", None)
        if added := new.get("ephemeralContainers"):
            kept["ephemeralContainers"] = added
        return kept

    def validate_update(self, ctx: RequestContext, new: Obj, old: Obj) -> list[FieldError]:
        if MIRROR in (old["metadata"].get("annotations") or ()):
            return [FieldError.forbidden("[]", "static pods do not support ephemeral containers")]
        return validate_pod(new) + validate_ephemeral_update(new["spec"], old["spec"])
