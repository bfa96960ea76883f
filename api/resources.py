"""The table of built-in resources: what the server serves, what discovery tells, what a client may ask.

Owns names, scope, verbs, short names, categories and subresources of every built-in kind. A new built-in kind is one
row here (and a strategy in the API server where the kind is irregular). Custom resources are made with `Resource(...)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
STATUS_VERBS = ("get", "patch", "update")


class Subresource(NamedTuple):
    """`kind` is what its bodies are; group and version are told only where they differ from the parent's."""

    kind: str
    verbs: tuple[str, ...] = STATUS_VERBS
    group: str = ""
    version: str = ""


@dataclass(frozen=True)
class Resource:
    """One resource type. Hashable and compared by identity of (group, version, plural)."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = field(default=(), compare=False)
    categories: tuple[str, ...] = field(default=(), compare=False)
    verbs: tuple[str, ...] = field(default=ALL_VERBS, compare=False)
    subresources: Mapping[str, Subresource] = field(default_factory=dict, compare=False, hash=False)
    singular_name: str = field(default="", compare=False)
    storage: tuple[str, str] | None = field(default=None, compare=False)  # (group, version) it is stored as

    @property
    def singular(self) -> str:
        return self.singular_name or self.kind.lower()

    @property
    def group_version(self) -> str:
        """`v1` or `apps/v1`: the apiVersion of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """`pods` or `deployments.apps`: how messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def list_kind(self) -> str:
        return f"{self.kind}List"

    @property
    def storable(self) -> bool:
        """False for create-only reviews and the like, which leave nothing behind."""
        return "get" in self.verbs

    @property
    def storage_version(self) -> tuple[str, str] | None:
        """(group, version) of its objects in storage, as discovery tells it; None where nothing is stored."""
        if "watch" not in self.verbs:
            return None
        return self.storage or (self.group, self.version)

    def key(self) -> tuple[str, str, str]:
        return (self.group, self.version, self.plural)


_STATUS = "status"
_SCALE = Subresource("Scale", STATUS_VERBS, "autoscaling", "v1")
_PROXY_VERBS = ("create", "delete", "get", "patch", "update")
_STREAM_VERBS = ("create", "get")

# Subresources that are not the plain `status` of their kind.
_SPECIAL: Mapping[tuple[str, str], Mapping[str, Subresource]] = {
    ("", "namespaces"): {"finalize": Subresource("Namespace", ("update",))},
    ("", "nodes"): {"proxy": Subresource("NodeProxyOptions", _PROXY_VERBS)},
    ("", "pods"): {
        "attach": Subresource("PodAttachOptions", _STREAM_VERBS),
        "binding": Subresource("Binding", ("create",)),
        "ephemeralcontainers": Subresource("Pod"),
        "eviction": Subresource("Eviction", ("create",), "policy", "v1"),
        "exec": Subresource("PodExecOptions", _STREAM_VERBS),
        "log": Subresource("Pod", ("get",)),
        "portforward": Subresource("PodPortForwardOptions", _STREAM_VERBS),
        "proxy": Subresource("PodProxyOptions", _PROXY_VERBS),
        "resize": Subresource("Pod"),
    },
    ("", "replicationcontrollers"): {"scale": _SCALE},
    ("", "serviceaccounts"): {"token": Subresource("TokenRequest", ("create",), "authentication.k8s.io", "v1")},
    ("", "services"): {"proxy": Subresource("ServiceProxyOptions", _PROXY_VERBS)},
    ("apps", "deployments"): {"scale": _SCALE},
    ("apps", "replicasets"): {"scale": _SCALE},
    ("apps", "statefulsets"): {"scale": _SCALE},
    ("certificates.k8s.io", "certificatesigningrequests"): {"approval": Subresource("CertificateSigningRequest")},
}

# Columns: plural, kind, scope (ns or cluster), flags. Flags: `status` has a status subresource; `only=a,b` limits the
# verbs; `no=a,b` takes verbs away; `short=a,b`; `in=category,…`; `singular=name`; `stored=group/version`.
_TABLE: Mapping[str, str] = {
    "v1": """
        bindings                  Binding                  ns       only=create
        componentstatuses         ComponentStatus          cluster  only=get,list short=cs
        configmaps                ConfigMap                ns       short=cm
        endpoints                 Endpoints                ns       short=ep singular=endpoints
        events                    Event                    ns       short=ev
        limitranges               LimitRange               ns       short=limits
        namespaces                Namespace                cluster  status no=deletecollection short=ns
        nodes                     Node                     cluster  status short=no
        persistentvolumeclaims    PersistentVolumeClaim    ns       status short=pvc
        persistentvolumes         PersistentVolume         cluster  status short=pv
        pods                      Pod                      ns       status short=po in=all
        podtemplates              PodTemplate              ns
        replicationcontrollers    ReplicationController    ns       status short=rc in=all
        resourcequotas            ResourceQuota            ns       status short=quota
        secrets                   Secret                   ns
        serviceaccounts           ServiceAccount           ns       short=sa
        services                  Service                  ns       status short=svc in=all
    """,
    "apiregistration.k8s.io/v1": """
        apiservices               APIService               cluster  status in=api-extensions
    """,
    "apps/v1": """
        controllerrevisions       ControllerRevision       ns
        daemonsets                DaemonSet                ns       status short=ds in=all
        deployments               Deployment               ns       status short=deploy in=all
        replicasets               ReplicaSet               ns       status short=rs in=all
        statefulsets              StatefulSet              ns       status short=sts in=all
    """,
    "events.k8s.io/v1": """
        events                    Event                    ns       short=ev stored=/v1
    """,
    "authentication.k8s.io/v1": """
        selfsubjectreviews        SelfSubjectReview        cluster  only=create
        tokenreviews              TokenReview              cluster  only=create
    """,
    "authorization.k8s.io/v1": """
        localsubjectaccessreviews LocalSubjectAccessReview ns       only=create
        selfsubjectaccessreviews  SelfSubjectAccessReview  cluster  only=create
        selfsubjectrulesreviews   SelfSubjectRulesReview   cluster  only=create
        subjectaccessreviews      SubjectAccessReview      cluster  only=create
    """,
    "autoscaling/v2": """
        horizontalpodautoscalers  HorizontalPodAutoscaler  ns       status short=hpa in=all
    """,
    "autoscaling/v1": """
        horizontalpodautoscalers  HorizontalPodAutoscaler  ns       status short=hpa in=all stored=autoscaling/v2
    """,
    "batch/v1": """
        cronjobs                  CronJob                  ns       status short=cj in=all
        jobs                      Job                      ns       status in=all
    """,
    "certificates.k8s.io/v1": """
        certificatesigningrequests CertificateSigningRequest cluster status short=csr
    """,
    "networking.k8s.io/v1": """
        ingressclasses            IngressClass             cluster
        ingresses                 Ingress                  ns       status short=ing
        ipaddresses               IPAddress                cluster  short=ip
        networkpolicies           NetworkPolicy            ns       short=netpol
        servicecidrs              ServiceCIDR              cluster  status
    """,
    "policy/v1": """
        poddisruptionbudgets      PodDisruptionBudget      ns       status short=pdb
    """,
    "rbac.authorization.k8s.io/v1": """
        clusterrolebindings       ClusterRoleBinding       cluster
        clusterroles              ClusterRole              cluster
        rolebindings              RoleBinding              ns
        roles                     Role                     ns
    """,
    "storage.k8s.io/v1": """
        csidrivers                CSIDriver                cluster
        csinodes                  CSINode                  cluster
        csistoragecapacities      CSIStorageCapacity       ns
        storageclasses            StorageClass             cluster  short=sc
        volumeattachments         VolumeAttachment         cluster  status
        volumeattributesclasses   VolumeAttributesClass    cluster  short=vac
    """,
    "admissionregistration.k8s.io/v1": """
        mutatingadmissionpolicies         MutatingAdmissionPolicy          cluster in=api-extensions
        mutatingadmissionpolicybindings   MutatingAdmissionPolicyBinding   cluster in=api-extensions
        mutatingwebhookconfigurations     MutatingWebhookConfiguration     cluster in=api-extensions
        validatingadmissionpolicies       ValidatingAdmissionPolicy        cluster status in=api-extensions
        validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding cluster in=api-extensions
        validatingwebhookconfigurations   ValidatingWebhookConfiguration   cluster in=api-extensions
    """,
    "apiextensions.k8s.io/v1": """
        customresourcedefinitions CustomResourceDefinition cluster  status short=crd,crds in=api-extensions
    """,
    "scheduling.k8s.io/v1": """
        priorityclasses           PriorityClass            cluster  short=pc
    """,
    "coordination.k8s.io/v1": """
        leases                    Lease                    ns
    """,
    "node.k8s.io/v1": """
        runtimeclasses            RuntimeClass             cluster
    """,
    "discovery.k8s.io/v1": """
        endpointslices            EndpointSlice            ns
    """,
    "resource.k8s.io/v1": """
        deviceclasses             DeviceClass              cluster
        resourceclaims            ResourceClaim            ns       status
        resourceclaimtemplates    ResourceClaimTemplate    ns
        resourceslices            ResourceSlice            cluster
    """,
    "flowcontrol.apiserver.k8s.io/v1": """
        flowschemas                 FlowSchema                 cluster status
        prioritylevelconfigurations PriorityLevelConfiguration cluster status
    """,
}


def split_group_version(group_version: str) -> tuple[str, str]:
    """`apps/v1` → ("apps", "v1"); `v1` → ("", "v1")."""
    group, _, version = group_version.rpartition("/")
    return group, version


def _row(group_version: str, line: str) -> Resource:
    plural, kind, scope, *flags = line.split()
    group, version = split_group_version(group_version)
    options = dict(flag.split("=", 1) for flag in flags if "=" in flag)
    verbs = tuple(options["only"].split(",")) if "only" in options else ALL_VERBS
    verbs = tuple(verb for verb in verbs if verb not in options.get("no", "").split(","))
    subresources = dict(_SPECIAL.get((group, plural), {}))
    if "status" in flags:
        subresources["status"] = Subresource(kind)
    return Resource(
        group=group,
        version=version,
        plural=plural,
        kind=kind,
        namespaced=scope == "ns",
        short_names=tuple(options["short"].split(",")) if "short" in options else (),
        categories=tuple(options["in"].split(",")) if "in" in options else (),
        verbs=verbs,
        subresources=MappingProxyType(dict(sorted(subresources.items()))),
        singular_name=options.get("singular", ""),
        storage=split_group_version(options["stored"].lstrip("/")) if "stored" in options else None,
    )


RESOURCES: tuple[Resource, ...] = tuple(
    _row(group_version, line) for group_version, rows in _TABLE.items() for line in rows.split("\n") if line.strip()
)
_BY_KEY = {resource.key(): resource for resource in RESOURCES}
_BY_KIND = {(resource.group, resource.version, resource.kind): resource for resource in RESOURCES}


def lookup(group: str, version: str, plural: str) -> Resource | None:
    """The built-in resource of that name, or None."""
    return _BY_KEY.get((group, version, plural))


def by_kind(group: str, version: str, kind: str) -> Resource | None:
    """The built-in resource whose objects are of that kind, or None."""
    return _BY_KIND.get((group, version, kind))


def storage_of(resource: Resource) -> Resource:
    """The resource as which objects are stored: itself, but for second versions and aliases."""
    if resource.storage is None:
        return resource
    return _BY_KEY[(*resource.storage, resource.plural)]


# lightkube's modules that hold the models of a group, where the name is not the group's first word.
_MODULES = {
    "": "core",
    "rbac.authorization.k8s.io": "rbac",
    "flowcontrol.apiserver.k8s.io": "flowcontrol",
}


@cache
def of(model: type[Any]) -> Resource:
    """The resource whose objects are instances of a lightkube model class. Raises LookupError for other classes."""
    module = model.__module__.rpartition(".")[2]
    for resource in RESOURCES:
        stem = _MODULES.get(resource.group, resource.group.partition(".")[0])
        if resource.kind == model.__name__ and module == f"{stem}_{resource.version}":
            return resource
    raise LookupError(f"{model.__module__}.{model.__name__} is no resource")
