"""Rows of the groups that run the cluster: rbac, leases, classes, admission, aggregation, flow control."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apiserver.tables.columns import Object, Printer, printer
from apiserver.tables.durations import age, human_duration
from apiserver.tables.texts import (
    NONE,
    UNSET,
    condition,
    items,
    label_selector,
    mapping,
    name,
    name_with_default,
    number,
    part,
    text,
)

_DEFAULT_STORAGE_CLASS = "storageclass.kubernetes.io/is-default-class"
_DEFAULT_ATTRIBUTES_CLASS = "volumeattributesclass.kubernetes.io/is-default-class"


def role_binding(obj: Object, now: datetime) -> list[Any]:
    role = f"{text(obj, 'roleRef', 'kind')}/{text(obj, 'roleRef', 'name')}"
    subjects = items(obj, "subjects")
    users = [text(s, "name") for s in subjects if text(s, "kind") == "User"]
    groups = [text(s, "name") for s in subjects if text(s, "kind") == "Group"]
    accounts = [f"{text(s, 'namespace')}/{text(s, 'name')}" for s in subjects if text(s, "kind") == "ServiceAccount"]
    return [name(obj), role, age(obj, now), ", ".join(users), ", ".join(groups), ", ".join(accounts)]


def lease(obj: Object, now: datetime) -> list[Any]:
    return [name(obj), text(obj, "spec", "holderIdentity"), age(obj, now)]


def priority_class(obj: Object, now: datetime) -> list[Any]:
    policy = text(obj, "preemptionPolicy") or "PreemptLowerPriority"
    return [name(obj), number(obj, "value"), bool(part(obj, "globalDefault")), age(obj, now), policy]


def runtime_class(obj: Object, now: datetime) -> list[Any]:
    return [name(obj), text(obj, "handler"), age(obj, now)]


def certificate_signing_request(obj: Object, now: datetime) -> list[Any]:
    seconds = part(obj, "spec", "expirationSeconds")
    return [
        name(obj),
        age(obj, now),
        text(obj, "spec", "signerName") or NONE,
        text(obj, "spec", "username"),
        NONE if seconds is None else human_duration(seconds),
        certificate_status(obj),
    ]


def certificate_status(obj: Object) -> str:
    present = {text(c, "type") for c in items(obj, "status", "conditions")}
    status = "Denied" if "Denied" in present else "Approved" if "Approved" in present else "Pending"
    if "Failed" in present:
        status += ",Failed"
    return status + (",Issued" if part(obj, "status", "certificate") else "")


def webhooks(obj: Object, now: datetime) -> list[Any]:
    return [name(obj), len(items(obj, "webhooks")), age(obj, now)]


def validating_policy(obj: Object, now: datetime) -> list[Any]:
    return [name(obj), len(items(obj, "spec", "validations")), _param_kind(obj), age(obj, now)]


def mutating_policy(obj: Object, now: datetime) -> list[Any]:
    return [name(obj), len(items(obj, "spec", "mutations")), _param_kind(obj), age(obj, now)]


def _param_kind(obj: Object) -> str:
    kind = mapping(obj, "spec", "paramKind")
    return f"{text(kind, 'apiVersion')}/{text(kind, 'kind')}" if kind else UNSET


def policy_binding(obj: Object, now: datetime) -> list[Any]:
    reference = mapping(obj, "spec", "paramRef")
    shown = UNSET
    if reference:
        namespace = text(reference, "namespace") or "*"
        target = text(reference, "name") or label_selector(mapping(reference, "selector"))
        shown = f"{namespace}/{target}"
    return [name(obj), text(obj, "spec", "policyName"), shown, age(obj, now)]


def api_service(obj: Object, now: datetime) -> list[Any]:
    service = mapping(obj, "spec", "service")
    where = f"{text(service, 'namespace')}/{text(service, 'name')}" if service else "Local"
    available = condition(items(obj, "status", "conditions"), "Available")
    status = text(available, "status") or "Unknown"
    if status != "True" and text(available, "reason"):
        status += f" ({text(available, 'reason')})"
    return [name(obj), where, status, age(obj, now)]


def storage_class(obj: Object, now: datetime) -> list[Any]:
    return [
        name_with_default(obj, _DEFAULT_STORAGE_CLASS),
        text(obj, "provisioner"),
        text(obj, "reclaimPolicy") or "Delete",
        text(obj, "volumeBindingMode") or "Immediate",
        bool(part(obj, "allowVolumeExpansion")),
        age(obj, now),
    ]


def volume_attributes_class(obj: Object, now: datetime) -> list[Any]:
    return [name_with_default(obj, _DEFAULT_ATTRIBUTES_CLASS), text(obj, "driverName"), age(obj, now)]


def csi_driver(obj: Object, now: datetime) -> list[Any]:
    spec = mapping(obj, "spec")
    attach = part(spec, "attachRequired")
    tokens = [text(token, "audience") for token in items(spec, "tokenRequests")]
    return [
        name(obj),
        True if attach is None else bool(attach),
        bool(part(spec, "podInfoOnMount")),
        bool(part(spec, "storageCapacity")),
        ",".join(tokens) if tokens else UNSET,
        bool(part(spec, "requiresRepublish")),
        ",".join(map(str, items(spec, "volumeLifecycleModes"))) or NONE,
        age(obj, now),
    ]


def csi_node(obj: Object, now: datetime) -> list[Any]:
    return [name(obj), len(items(obj, "spec", "drivers")), age(obj, now)]


def volume_attachment(obj: Object, now: datetime) -> list[Any]:
    return [
        name(obj),
        text(obj, "spec", "attacher"),
        text(obj, "spec", "source", "persistentVolumeName"),
        text(obj, "spec", "nodeName"),
        bool(part(obj, "status", "attached")),
        age(obj, now),
    ]


def priority_level(obj: Object, now: datetime) -> list[Any]:
    limited = mapping(obj, "spec", "limited")
    queuing = mapping(limited, "limitResponse", "queuing")
    shares = part(limited, "nominalConcurrencyShares")
    queues = [part(queuing, field) for field in ("queues", "handSize", "queueLengthLimit")]
    shown = [NONE if value is None else value for value in (shares, *queues)]
    return [name(obj), text(obj, "spec", "type"), *shown, age(obj, now)]


def flow_schema(obj: Object, now: datetime) -> list[Any]:
    dangling = text(condition(items(obj, "status", "conditions"), "Dangling"), "status")
    return [
        name(obj),
        text(obj, "spec", "priorityLevelConfiguration", "name"),
        number(obj, "spec", "matchingPrecedence"),
        text(obj, "spec", "distinguisherMethod", "type") or NONE,
        age(obj, now),
        dangling or "?",
    ]


def resource_claim(obj: Object, now: datetime) -> list[Any]:
    deleted = bool(part(obj, "metadata", "deletionTimestamp"))
    states = ["deleted"] if deleted else []
    if not isinstance(part(obj, "status", "allocation"), dict):
        states += [] if deleted else ["pending"]
    else:
        states.append("allocated")
        if items(obj, "status", "reservedFor"):
            states.append("reserved")
    return [name(obj), ",".join(states), age(obj, now)]


def resource_slice(obj: Object, now: datetime) -> list[Any]:
    spec = mapping(obj, "spec")
    return [name(obj), text(spec, "nodeName"), text(spec, "driver"), text(spec, "pool", "name"), age(obj, now)]


def only_age(obj: Object, now: datetime) -> list[Any]:
    return [name(obj), age(obj, now)]


_ADMISSION = "admissionregistration.k8s.io"
PRINTERS: dict[tuple[str, str], Printer] = {
    ("rbac.authorization.k8s.io", "rolebindings"): printer(
        "Role, Age, Users+, Groups+, ServiceAccounts+", role_binding
    ),
    ("rbac.authorization.k8s.io", "clusterrolebindings"): printer(
        "Role, Age, Users+, Groups+, ServiceAccounts+", role_binding
    ),
    ("coordination.k8s.io", "leases"): printer("Holder, Age", lease),
    ("scheduling.k8s.io", "priorityclasses"): printer(
        "Value:integer, Global-Default:boolean, Age, PreemptionPolicy", priority_class
    ),
    ("node.k8s.io", "runtimeclasses"): printer("Handler, Age", runtime_class),
    ("certificates.k8s.io", "certificatesigningrequests"): printer(
        "Age, SignerName, Requestor, RequestedDuration, Condition", certificate_signing_request
    ),
    (_ADMISSION, "validatingwebhookconfigurations"): printer("Webhooks:integer, Age", webhooks),
    (_ADMISSION, "mutatingwebhookconfigurations"): printer("Webhooks:integer, Age", webhooks),
    (_ADMISSION, "validatingadmissionpolicies"): printer("Validations:integer, ParamKind, Age", validating_policy),
    (_ADMISSION, "validatingadmissionpolicybindings"): printer("PolicyName, ParamRef, Age", policy_binding),
    (_ADMISSION, "mutatingadmissionpolicies"): printer("Mutations:integer, ParamKind, Age", mutating_policy),
    (_ADMISSION, "mutatingadmissionpolicybindings"): printer("PolicyName, ParamRef, Age", policy_binding),
    ("apiregistration.k8s.io", "apiservices"): printer("Service, Available, Age", api_service),
    ("storage.k8s.io", "storageclasses"): printer(
        "Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age", storage_class
    ),
    ("storage.k8s.io", "volumeattributesclasses"): printer("DriverName, Age", volume_attributes_class),
    ("storage.k8s.io", "csidrivers"): printer(
        "AttachRequired:boolean, PodInfoOnMount:boolean, StorageCapacity:boolean, TokenRequests, "
        "RequiresRepublish:boolean, Modes, Age",
        csi_driver,
    ),
    ("storage.k8s.io", "csinodes"): printer("Drivers:integer, Age", csi_node),
    ("storage.k8s.io", "volumeattachments"): printer(
        "Attacher:string:name, PV, Node, Attached:boolean, Age", volume_attachment
    ),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"): printer(
        "Type, NominalConcurrencyShares, Queues, HandSize, QueueLengthLimit, Age", priority_level
    ),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"): printer(
        "PriorityLevel, MatchingPrecedence, DistinguisherMethod, Age, MissingPL", flow_schema
    ),
    ("resource.k8s.io", "resourceclaims"): printer("State, Age", resource_claim),
    ("resource.k8s.io", "resourceclaimtemplates"): printer("Age", only_age),
    ("resource.k8s.io", "deviceclasses"): printer("Age", only_age),
    ("resource.k8s.io", "resourceslices"): printer("Node, Driver, Pool, Age", resource_slice),
}
