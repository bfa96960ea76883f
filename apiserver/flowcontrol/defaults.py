"""The FlowSchemas and PriorityLevelConfigurations that every cluster has.

Owns: upstream's mandatory and suggested objects as data. Mandatory ones always have this spec; suggested ones are kept
at it while their annotation `apf.kubernetes.io/autoupdate-spec` is true, which it is unless a user says otherwise.
Created and reconciled by `feed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apiserver.auth.user import (
    ALL_AUTHENTICATED,
    ALL_SERVICE_ACCOUNTS,
    ALL_UNAUTHENTICATED,
    MASTERS,
    NODES,
)

GROUP = "flowcontrol.apiserver.k8s.io"
LEVELS, SCHEMAS = "prioritylevelconfigurations", "flowschemas"
AUTOUPDATE = "apf.kubernetes.io/autoupdate-spec"
MANDATORY = frozenset({"exempt", "catch-all"})
CONTROLLER_MANAGER, SCHEDULER = "system:kube-controller-manager", "system:kube-scheduler"

Obj = dict[str, Any]
ALL_RESOURCES: Obj = {
    "verbs": ["*"],
    "apiGroups": ["*"],
    "resources": ["*"],
    "clusterScope": True,
    "namespaces": ["*"],
}
ALL_PATHS: Obj = {"verbs": ["*"], "nonResourceURLs": ["*"]}

# name → shares, lendable percent, (queues, hand size, queue length) or None for rejecting at once
_LEVELS: Mapping[str, tuple[int, int, tuple[int, int, int] | None]] = {
    "catch-all": (5, 0, None),
    "system": (30, 33, (64, 6, 50)),
    "node-high": (40, 25, (64, 6, 50)),
    "leader-election": (10, 0, (16, 4, 50)),
    "workload-high": (40, 50, (128, 6, 50)),
    "workload-low": (100, 90, (128, 6, 50)),
    "global-default": (20, 50, (128, 6, 50)),
}


def levels() -> Iterator[Obj]:
    """PriorityLevelConfigurations."""
    exempt = {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}
    yield _object("PriorityLevelConfiguration", "exempt", exempt)
    for name, (shares, lendable, queuing) in _LEVELS.items():
        response: Obj = {"type": "Reject"}
        if queuing is not None:
            queues, hand, length = queuing
            response = {
                "type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length},
            }
        limited = {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}
        yield _object("PriorityLevelConfiguration", name, {"type": "Limited", "limited": limited})


def schemas() -> Iterator[Obj]:
    """FlowSchemas."""
    everybody = _groups(ALL_UNAUTHENTICATED, ALL_AUTHENTICATED)
    managers, scheduler = _users(CONTROLLER_MANAGER), _users(SCHEDULER)
    system_accounts = _accounts("*")
    leases = _rule(("get", "create", "update"), "coordination.k8s.io", ("leases",))
    yield _schema("exempt", "exempt", 1, "", _groups(MASTERS))
    probes = {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}
    yield _schema("probes", "exempt", 2, "", everybody, resources=(), paths=(probes,))
    election = [*managers, *scheduler, *system_accounts]
    yield _schema("system-leader-election", "leader-election", 100, "ByUser", election, resources=(leases,), paths=())
    endpoints = _rule(("get", "create", "update"), "", ("endpoints",))
    controllers = [*managers, *_accounts("endpoint-controller", "endpointslicemirroring-controller")]
    yield _schema("endpoint-controller", "workload-high", 150, "ByUser", controllers, resources=(endpoints,), paths=())
    accounts = _groups(ALL_SERVICE_ACCOUNTS)
    locks = _rule(("get", "create", "update"), "", ("endpoints", "configmaps"))
    old = (locks, leases)
    yield _schema(
        "workload-leader-election", "leader-election", 200, "ByUser", system_accounts, resources=old, paths=()
    )
    nodes = _groups(NODES)
    status = {**_rule(("*",), "", ("nodes", "nodes/status")), "clusterScope": True}
    beats = _rule(("*",), "coordination.k8s.io", ("leases",))
    yield _schema("system-node-high", "node-high", 400, "ByUser", nodes, resources=(status, beats), paths=())
    yield _schema("system-nodes", "system", 500, "ByUser", nodes)
    yield _schema("kube-controller-manager", "workload-high", 800, "ByNamespace", managers)
    yield _schema("kube-scheduler", "workload-high", 800, "ByNamespace", scheduler)
    yield _schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", system_accounts)
    yield _schema("service-accounts", "workload-low", 9000, "ByUser", accounts)
    yield _schema("global-default", "global-default", 9900, "ByUser", everybody)
    yield _schema("catch-all", "catch-all", 10000, "ByUser", everybody)


def _object(kind: str, name: str, spec: Obj) -> Obj:
    meta = {"name": name, "annotations": {AUTOUPDATE: "true"}}
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": meta, "spec": spec}


def _schema(
    name: str,
    level: str,
    precedence: int,
    distinguisher: str,
    subjects: Sequence[Obj],
    *,
    resources: Sequence[Obj] = (ALL_RESOURCES,),
    paths: Sequence[Obj] = (ALL_PATHS,),
) -> Obj:
    rule: Obj = {"subjects": list(subjects)}
    if resources:
        rule["resourceRules"] = list(resources)
    if paths:
        rule["nonResourceRules"] = list(paths)
    spec: Obj = {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule]}
    if distinguisher:
        spec["distinguisherMethod"] = {"type": distinguisher}
    return _object("FlowSchema", name, spec)


def _rule(verbs: Sequence[str], group: str, resources: Sequence[str]) -> Obj:
    return {"verbs": list(verbs), "apiGroups": [group], "resources": list(resources), "namespaces": ["*"]}


def _groups(*names: str) -> list[Obj]:
    return [{"kind": "Group", "group": {"name": name}} for name in names]


def _users(*names: str) -> list[Obj]:
    return [{"kind": "User", "user": {"name": name}} for name in names]


def _accounts(*names: str) -> list[Obj]:
    return [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}} for name in names]
