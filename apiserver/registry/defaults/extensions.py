"""Defaults of admission configuration, CRDs, API services, certificates, flow control, RBAC, autoscaling, devices.

Called by the rules of those kinds in the strategy table.
"""

from datetime import UTC, datetime
from typing import Any

from apiserver.registry.autoscaler_versions import ANNOTATIONS
from machinery.meta import rfc3339

Obj = dict[str, Any]
_RBAC = "rbac.authorization.k8s.io"


def default_webhooks(obj: Obj) -> None:
    """Both webhook configurations; reinvocationPolicy exists on mutating ones only."""
    mutating = obj.get("kind") == "MutatingWebhookConfiguration"
    for hook in obj.get("webhooks") or ():
        hook.setdefault("failurePolicy", "Fail")
        hook.setdefault("matchPolicy", "Equivalent")
        hook.setdefault("namespaceSelector", {})
        hook.setdefault("objectSelector", {})
        hook.setdefault("timeoutSeconds", 10)
        if mutating:
            hook.setdefault("reinvocationPolicy", "Never")
        for rule in hook.get("rules") or ():
            rule.setdefault("scope", "*")
        if service := (hook.get("clientConfig") or {}).get("service"):
            service.setdefault("port", 443)


def _match_resources(match: Obj | None) -> None:
    if match is None:
        return
    match.setdefault("matchPolicy", "Equivalent")
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    for field in ("resourceRules", "excludeResourceRules"):
        for rule in match.get(field) or ():
            rule.setdefault("scope", "*")


def default_admission_policy(obj: Obj) -> None:
    """Validating and mutating admission policies."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("failurePolicy", "Fail")
    _match_resources(spec.get("matchConstraints"))
    if obj.get("kind") == "ValidatingAdmissionPolicy":
        obj.setdefault("status", {})


def default_admission_binding(obj: Obj) -> None:
    """Bindings of admission policies."""
    _match_resources(obj.setdefault("spec", {}).get("matchResources"))


def default_crd(obj: Obj) -> None:
    """apiextensions.k8s.io/v1 CustomResourceDefinition."""
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind") or ""
    if kind:
        if not names.get("singular"):
            names["singular"] = kind.lower()
        if not names.get("listKind"):
            names["listKind"] = f"{kind}List"
    conversion = spec.setdefault("conversion", {"strategy": "None"})
    if service := ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service"):
        service.setdefault("port", 443)


def default_api_service(obj: Obj) -> None:
    """apiregistration.k8s.io/v1 APIService."""
    if service := obj.setdefault("spec", {}).get("service"):
        service.setdefault("port", 443)


def default_role(obj: Obj) -> None:
    """Roles always show their rules."""
    obj.setdefault("rules", None)


def default_binding(obj: Obj) -> None:
    """Role references and subjects get their API group."""
    reference = obj.setdefault("roleRef", {})
    reference.setdefault("apiGroup", _RBAC)
    reference.setdefault("kind", "")
    reference.setdefault("name", "")
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", _RBAC)


def default_flow_schema(obj: Obj) -> None:
    """flowcontrol FlowSchema."""
    spec = obj.setdefault("spec", {})
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = 1000
    for rule in spec.get("rules") or ():
        for resource in rule.get("resourceRules") or ():
            resource.setdefault("namespaces", None)


def default_priority_level(obj: Obj) -> None:
    """flowcontrol PriorityLevelConfiguration."""
    spec = obj.setdefault("spec", {})
    if (exempt := spec.get("exempt")) is not None:
        exempt.setdefault("nominalConcurrencyShares", 0)
        exempt.setdefault("lendablePercent", 0)
    if (limited := spec.get("limited")) is not None:
        limited.setdefault("nominalConcurrencyShares", 30)
        limited.setdefault("lendablePercent", 0)
        if (queuing := (limited.get("limitResponse") or {}).get("queuing")) is not None:
            for field, value in (("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)):
                if not queuing.get(field):
                    queuing[field] = value


def _device_request(request: Obj) -> None:
    if request.setdefault("allocationMode", "ExactCount") == "ExactCount" and not request.get("count"):
        request["count"] = 1
    for toleration in request.get("tolerations") or ():
        if not toleration.get("operator"):
            toleration["operator"] = "Equal"


def _claim_spec(spec: Obj) -> None:
    for request in spec.setdefault("devices", {}).setdefault("requests", None) or ():
        if (exactly := request.get("exactly")) is not None:
            _device_request(exactly)
        for option in request.get("firstAvailable") or ():
            _device_request(option)


def default_resource_claim(obj: Obj) -> None:
    """resource.k8s.io ResourceClaim."""
    _claim_spec(obj.setdefault("spec", {}))


def default_resource_claim_template(obj: Obj) -> None:
    """resource.k8s.io ResourceClaimTemplate."""
    _claim_spec(obj.setdefault("spec", {}).setdefault("spec", {}))


def default_resource_slice(obj: Obj) -> None:
    """resource.k8s.io ResourceSlice: taints are as old as the write that brings them."""
    for device in (obj.get("spec") or {}).get("devices") or ():
        for taint in device.get("taints") or ():
            if not taint.get("timeAdded"):
                taint["timeAdded"] = rfc3339(datetime.now(UTC))


_SCALE_UP: list[Obj] = [
    {"type": "Pods", "value": 4, "periodSeconds": 15},
    {"type": "Percent", "value": 100, "periodSeconds": 15},
]
_SCALE_DOWN: list[Obj] = [{"type": "Percent", "value": 100, "periodSeconds": 15}]


def default_autoscaler(obj: Obj) -> None:
    """autoscaling/v2 HorizontalPodAutoscaler; what the older version says in annotations is never stored as such."""
    spec = obj.setdefault("spec", {})
    if annotations := obj["metadata"].get("annotations"):
        kept = {key: value for key, value in annotations.items() if key not in ANNOTATIONS}
        if not kept:
            del obj["metadata"]["annotations"]
        elif len(kept) < len(annotations):
            obj["metadata"]["annotations"] = kept
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    if behavior := spec.get("behavior"):
        up = behavior.setdefault("scaleUp", {})
        up.setdefault("stabilizationWindowSeconds", 0)
        down = behavior.setdefault("scaleDown", {})
        for rules, policies in ((up, _SCALE_UP), (down, _SCALE_DOWN)):
            rules.setdefault("selectPolicy", "Max")
            if not rules.get("policies"):
                rules["policies"] = [dict(policy) for policy in policies]
