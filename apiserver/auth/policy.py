"""Kubernetes' default ClusterRoles, Roles and bindings, as data.

Owns: the rules every cluster starts with. Never writes them: `apiserver/bootstrap.py` creates those that are missing.
The notation: one rule a line, `verbs | groups | resources [| names]`; `-` is the core group; `/path` lines are
non-resource rules. The verbs `R`, `W`, `RW` stand for reading, writing and both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from apiserver.auth.controller_policy import CONTROLLER, CONTROLLER_ROLES

RBAC = "rbac.authorization.k8s.io"
LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
ANNOTATIONS = {"rbac.authorization.kubernetes.io/autoupdate": "true"}

_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_VERBS = {"R": _READ, "W": _WRITE, "RW": tuple(sorted((*_READ, *_WRITE)))}

_WORKLOADS = (
    "daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,statefulsets,"
    "statefulsets/scale"
)
_WORKLOAD_READS = (
    "controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,replicasets,"
    "replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status"
)
_EXTENSION_READS = (
    "daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,"
    "networkpolicies,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale"
)
_EVENTS = "create,patch,update | -,events.k8s.io | events"

_VIEW = f"""
    R | - | configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status
    R | - | bindings,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,resourcequotas,resourcequotas/status
    R | - | namespaces
    R | -,events.k8s.io | events
    R | discovery.k8s.io | endpointslices
    R | apps | {_WORKLOAD_READS}
    R | autoscaling | horizontalpodautoscalers,horizontalpodautoscalers/status
    R | batch | cronjobs,cronjobs/status,jobs,jobs/status
    R | extensions | {_EXTENSION_READS}
    R | policy | poddisruptionbudgets,poddisruptionbudgets/status
    R | networking.k8s.io | ingresses,ingresses/status,networkpolicies
    R | resource.k8s.io | resourceclaims,resourceclaims/status,resourceclaimtemplates
"""  # noqa: E501  one rule, one line

_EDIT = f"""
    R | - | pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy
    impersonate | - | serviceaccounts
    W | - | pods,pods/attach,pods/exec,pods/portforward,pods/proxy
    create | - | pods/eviction
    W | - | configmaps,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,serviceaccounts,services,services/proxy
    W | -,events.k8s.io | events
    create | - | serviceaccounts/token
    W | apps | {_WORKLOADS}
    W | autoscaling | horizontalpodautoscalers
    W | batch | cronjobs,jobs
    W | extensions | daemonsets,deployments,deployments/rollback,deployments/scale,ingresses,networkpolicies,replicasets,replicasets/scale,replicationcontrollers/scale
    W | policy | poddisruptionbudgets
    W | networking.k8s.io | ingresses,networkpolicies
    W | resource.k8s.io | resourceclaims,resourceclaimtemplates
    RW | coordination.k8s.io | leases
"""  # noqa: E501

NODE_RULES = f"""
    create | authentication.k8s.io | tokenreviews
    create | authorization.k8s.io | localsubjectaccessreviews,subjectaccessreviews
    R | - | services
    create,get,list,watch | - | nodes
    patch,update | - | nodes/status
    patch,update | - | nodes
    {_EVENTS}
    R | - | pods
    create,delete | - | pods
    patch,update | - | pods/status
    create | - | pods/eviction
    R | - | configmaps,secrets
    get | - | persistentvolumeclaims,persistentvolumes
    get | - | endpoints
    create,get,list,watch | certificates.k8s.io | certificatesigningrequests
    create,delete,get,patch,update | coordination.k8s.io | leases
    get | storage.k8s.io | volumeattachments
    create | - | serviceaccounts/token
    get,patch,update | - | persistentvolumeclaims/status
    R | storage.k8s.io | csidrivers
    create,delete,get,patch,update | storage.k8s.io | csinodes
    R | node.k8s.io | runtimeclasses
    get | resource.k8s.io | resourceclaims
    deletecollection | resource.k8s.io | resourceslices
    get | - | serviceaccounts
"""

# name -> (rules, extra labels, label that an aggregated role selects)
_CLUSTER_ROLES: Mapping[str, str] = {
    "cluster-admin": """
        * | * | *
        * | /*
    """,
    "system:discovery": """
        get | /api,/api/*,/apis,/apis/*,/healthz,/livez,/openapi,/openapi/*,/readyz,/version,/version/
    """,
    "system:monitoring": "get | /healthz,/healthz/*,/livez,/livez/*,/metrics,/metrics/slis,/readyz,/readyz/*",
    "system:public-info-viewer": "get | /healthz,/livez,/readyz,/version,/version/",
    "system:service-account-issuer-discovery": "get | /.well-known/openid-configuration,/openid/v1/jwks",
    # A distribution's: the recorded conversations show it, and clients that log in look there.
    "system:well-known-viewer": "get | /.well-known,/.well-known/*",
    "system:basic-user": """
        create | authorization.k8s.io | selfsubjectaccessreviews,selfsubjectrulesreviews
        create | authentication.k8s.io | selfsubjectreviews
    """,
    "system:aggregate-to-view": _VIEW,
    "system:aggregate-to-edit": _EDIT,
    "system:aggregate-to-admin": """
        create | authorization.k8s.io | localsubjectaccessreviews
        RW | rbac.authorization.k8s.io | rolebindings,roles
    """,
    "system:heapster": """
        R | - | events,namespaces,nodes,pods
        R | extensions | deployments
    """,
    "system:node": NODE_RULES,
    "system:node-problem-detector": f"""
        get | - | nodes
        patch | - | nodes/status
        {_EVENTS}
    """,
    "system:kubelet-api-admin": """
        R | - | nodes
        proxy | - | nodes
        * | - | nodes/configz,nodes/healthz,nodes/log,nodes/metrics,nodes/pods,nodes/proxy,nodes/stats
    """,
    "system:node-bootstrapper": "create,get,list,watch | certificates.k8s.io | certificatesigningrequests",
    "system:auth-delegator": """
        create | authentication.k8s.io | tokenreviews
        create | authorization.k8s.io | subjectaccessreviews
    """,
    "system:kube-aggregator": "R | - | endpoints,services",
    "system:kube-scheduler": f"""
        {_EVENTS}
        create | coordination.k8s.io | leases
        get,update | coordination.k8s.io | leases | kube-scheduler
        R | - | nodes
        delete,get,list,watch | - | pods
        create | - | bindings,pods/binding
        patch,update | - | pods/status
        R | - | replicationcontrollers,services
        R | apps,extensions | replicasets
        R | apps | statefulsets
        R | policy | poddisruptionbudgets
        R | - | persistentvolumeclaims,persistentvolumes
        create | authentication.k8s.io | tokenreviews
        create | authorization.k8s.io | subjectaccessreviews
        R | storage.k8s.io | csinodes
        R | - | namespaces
        R | storage.k8s.io | csidrivers
        R | storage.k8s.io | csistoragecapacities
        R | resource.k8s.io | deviceclasses
        get,list,patch,update,watch | resource.k8s.io | resourceclaims
        get,list,patch,update,watch | resource.k8s.io | resourceclaims/status
        get,list,patch,update,watch | - | pods/finalizers
        R | resource.k8s.io | resourceslices
        R | storage.k8s.io | volumeattachments
    """,
    "system:kube-controller-manager": f"""
        {_EVENTS}
        create | coordination.k8s.io | leases
        get,update | coordination.k8s.io | leases | kube-controller-manager
        create | - | secrets,serviceaccounts
        delete | - | secrets
        get | - | configmaps,namespaces,secrets,serviceaccounts
        update | - | secrets,serviceaccounts
        create | authentication.k8s.io | tokenreviews
        create | authorization.k8s.io | subjectaccessreviews
        list,watch | * | *
        create | - | serviceaccounts/token
    """,
    # Ours: upstream gives every controller its own account (system:controller:*); here one identity runs them all.
    "nanokube:controllers": """
        * | * | *
        * | /*
    """,
    "system:node-proxier": f"""
        list,watch | - | endpoints,services
        get,list,watch | - | nodes
        {_EVENTS}
        list,watch | discovery.k8s.io | endpointslices
        list,watch | networking.k8s.io | servicecidrs
    """,
    "system:kube-dns": "list,watch | - | endpoints,services",
    "system:persistent-volume-provisioner": """
        create,delete,get,list,watch | - | persistentvolumes
        get,list,update,watch | - | persistentvolumeclaims
        R | storage.k8s.io | storageclasses
        watch | - | events
        create,patch,update | -,events.k8s.io | events
    """,
    "system:volume-scheduler": """
        get,list,patch,update,watch | - | persistentvolumes
        R | storage.k8s.io | storageclasses
        get,list,patch,update,watch | - | persistentvolumeclaims
    """,
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (
        "create | certificates.k8s.io | certificatesigningrequests/nodeclient"
    ),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": (
        "create | certificates.k8s.io | certificatesigningrequests/selfnodeclient"
    ),
    **{
        f"system:certificates.k8s.io:{name}-approver": f"approve | certificates.k8s.io | signers | kubernetes.io/{name}"
        for name in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown")
    },
}

_AGGREGATE_LABEL = "rbac.authorization.k8s.io/aggregate-to-"
_PART_OF = {
    "system:aggregate-to-view": "view",
    "system:aggregate-to-edit": "edit",
    "system:aggregate-to-admin": "admin",
}
# A role in this table is made of all roles that carry its label; the second entry is the role it is part of itself.
_AGGREGATED = {"view": "edit", "edit": "admin", "admin": ""}

# binding name -> (role, subjects)
_CLUSTER_BINDINGS: Mapping[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "cluster-admin": ("cluster-admin", (("Group", "system:masters"),)),
    "system:monitoring": ("system:monitoring", (("Group", "system:monitoring"),)),
    "system:discovery": ("system:discovery", (("Group", "system:authenticated"),)),
    "system:basic-user": ("system:basic-user", (("Group", "system:authenticated"),)),
    "system:public-info-viewer": (
        "system:public-info-viewer",
        (("Group", "system:authenticated"), ("Group", "system:unauthenticated")),
    ),
    "system:well-known-viewer": ("system:well-known-viewer", (("Group", "system:authenticated"),)),
    "system:service-account-issuer-discovery": (
        "system:service-account-issuer-discovery",
        (("Group", "system:serviceaccounts"),),
    ),
    "system:node-proxier": ("system:node-proxier", (("User", "system:kube-proxy"),)),
    "system:kube-controller-manager": ("system:kube-controller-manager", (("User", "system:kube-controller-manager"),)),
    "nanokube:controllers": ("nanokube:controllers", (("User", "system:kube-controller-manager"),)),
    "system:kube-dns": ("system:kube-dns", (("ServiceAccount", "kube-system/kube-dns"),)),
    "system:kube-scheduler": ("system:kube-scheduler", (("User", "system:kube-scheduler"),)),
    "system:volume-scheduler": ("system:volume-scheduler", (("User", "system:kube-scheduler"),)),
    "system:node": ("system:node", ()),
}

_ROLES: Mapping[tuple[str, str], str] = {
    ("kube-system", "extension-apiserver-authentication-reader"): (
        "R | - | configmaps | extension-apiserver-authentication"
    ),
    ("kube-system", "system:controller:bootstrap-signer"): "R | - | secrets",
    ("kube-system", "system:controller:cloud-provider"): "create,get,list,watch | - | configmaps",
    ("kube-system", "system:controller:token-cleaner"): f"""
        delete,get,list,watch | - | secrets
        {_EVENTS}
    """,
    ("kube-system", "system::leader-locking-kube-controller-manager"): """
        watch | - | configmaps
        get,update | - | configmaps | kube-controller-manager
    """,
    ("kube-system", "system::leader-locking-kube-scheduler"): """
        watch | - | configmaps
        get,update | - | configmaps | kube-scheduler
    """,
    ("kube-public", "system:controller:bootstrap-signer"): f"""
        R | - | configmaps
        update | - | configmaps | cluster-info
        {_EVENTS}
    """,
}

_ROLE_BINDINGS: Mapping[tuple[str, str], tuple[str, tuple[tuple[str, str], ...]]] = {
    ("kube-system", "system::extension-apiserver-authentication-reader"): (
        "extension-apiserver-authentication-reader",
        (("User", "system:kube-controller-manager"), ("User", "system:kube-scheduler")),
    ),
    **{
        ("kube-system", f"system::leader-locking-{name}"): (
            f"system::leader-locking-{name}",
            (("User", f"system:{name}"), ("ServiceAccount", f"kube-system/{name}")),
        )
        for name in ("kube-controller-manager", "kube-scheduler")
    },
    **{
        (namespace, f"system:controller:{name}"): (
            f"system:controller:{name}",
            (("ServiceAccount", f"kube-system/{name}"),),
        )
        for namespace, name in (
            ("kube-system", "bootstrap-signer"),
            ("kube-system", "cloud-provider"),
            ("kube-system", "token-cleaner"),
            ("kube-public", "bootstrap-signer"),
        )
    },
}


def parse_rules(text: str) -> list[dict[str, Any]]:
    """The notation of this module as PolicyRules."""
    rules: list[dict[str, Any]] = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        verbs_text, *rest = (part.strip() for part in line.split("|"))
        rule: dict[str, Any] = {"verbs": list(_VERBS.get(verbs_text) or verbs_text.split(","))}
        if len(rest) == 1:
            rule["nonResourceURLs"] = [path if path != "/*" else "*" for path in rest[0].split(",")]
        else:
            rule["apiGroups"] = ["" if group == "-" else group for group in rest[0].split(",")]
            rule["resources"] = rest[1].split(",")
            if len(rest) > 2:
                rule["resourceNames"] = rest[2].split(",")
        rules.append(rule)
    return rules


def _meta(name: str, namespace: str = "", labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "labels": {**LABELS, **(labels or {})}, "annotations": dict(ANNOTATIONS)}
    if namespace:
        meta["namespace"] = namespace
    return meta


def _subject(kind: str, name: str) -> dict[str, str]:
    if kind == "ServiceAccount":
        namespace, _, account = name.partition("/")
        return {"kind": kind, "name": account, "namespace": namespace}
    return {"kind": kind, "apiGroup": RBAC, "name": name}


def default_objects() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(plural, namespace, object) of everything a cluster starts with, roles before bindings."""
    for name, rules in _CLUSTER_ROLES.items():
        part = _PART_OF.get(name)
        meta = _meta(name, labels={f"{_AGGREGATE_LABEL}{part}": "true"} if part else None)
        yield "clusterroles", "", _role("ClusterRole", meta, rules=parse_rules(rules))
    for name, rules in CONTROLLER_ROLES.items():
        yield "clusterroles", "", _role("ClusterRole", _meta(f"{CONTROLLER}{name}"), rules=parse_rules(rules))
    for name, into in _AGGREGATED.items():
        meta = _meta(name, labels={f"{_AGGREGATE_LABEL}{into}": "true"} if into else None)
        selectors = [{"matchLabels": {f"{_AGGREGATE_LABEL}{name}": "true"}}]
        aggregation = {"clusterRoleSelectors": selectors}
        yield "clusterroles", "", _role("ClusterRole", meta, aggregationRule=aggregation, rules=None)
    for (namespace, name), rules in _ROLES.items():
        yield "roles", namespace, _role("Role", _meta(name, namespace), rules=parse_rules(rules))
    for name, (role_name, subjects) in _CLUSTER_BINDINGS.items():
        yield "clusterrolebindings", "", _binding("ClusterRoleBinding", _meta(name), "ClusterRole", role_name, subjects)
    for name in CONTROLLER_ROLES:
        full, account = f"{CONTROLLER}{name}", (("ServiceAccount", f"kube-system/{name}"),)
        yield "clusterrolebindings", "", _binding("ClusterRoleBinding", _meta(full), "ClusterRole", full, account)
    for (namespace, name), (role_name, subjects) in _ROLE_BINDINGS.items():
        yield "rolebindings", namespace, _binding("RoleBinding", _meta(name, namespace), "Role", role_name, subjects)


def _role(kind: str, meta: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": meta, **fields}


def _binding(
    kind: str, meta: dict[str, Any], role_kind: str, role: str, subjects: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    made: dict[str, Any] = {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": meta}
    if subjects:
        made["subjects"] = [_subject(*subject) for subject in subjects]
    made["roleRef"] = {"apiGroup": RBAC, "kind": role_kind, "name": role}
    return made
