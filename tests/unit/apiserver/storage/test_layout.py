"""Where and in which version built-in kinds are stored, against what Kubernetes 1.36 does.

The facts are those that upstream's own test of storage paths checks (test/integration/etcd/data.go).
"""

from __future__ import annotations

import pytest

from api.resources import RESOURCES
from apiserver.storage.keys import resource_prefix, suffix

LAYOUT = {
    "v1": {
        "configmaps": "configmaps",
        "endpoints": "services/endpoints",
        "events": "events",
        "limitranges": "limitranges",
        "namespaces": "namespaces",
        "nodes": "minions",
        "persistentvolumeclaims": "persistentvolumeclaims",
        "persistentvolumes": "persistentvolumes",
        "pods": "pods",
        "podtemplates": "podtemplates",
        "replicationcontrollers": "controllers",
        "resourcequotas": "resourcequotas",
        "secrets": "secrets",
        "serviceaccounts": "serviceaccounts",
        "services": "services/specs",
    },
    "admissionregistration.k8s.io/v1": {
        "mutatingadmissionpolicies": "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings": "mutatingadmissionpolicybindings",
        "mutatingwebhookconfigurations": "mutatingwebhookconfigurations",
        "validatingadmissionpolicies": "validatingadmissionpolicies",
        "validatingadmissionpolicybindings": "validatingadmissionpolicybindings",
        "validatingwebhookconfigurations": "validatingwebhookconfigurations",
    },
    "apiextensions.k8s.io/v1": {"customresourcedefinitions": "apiextensions.k8s.io/customresourcedefinitions"},
    "apiregistration.k8s.io/v1": {"apiservices": "apiregistration.k8s.io/apiservices"},
    "apps/v1": {
        "controllerrevisions": "controllerrevisions",
        "daemonsets": "daemonsets",
        "deployments": "deployments",
        "replicasets": "replicasets",
        "statefulsets": "statefulsets",
    },
    "autoscaling/v2": {"horizontalpodautoscalers": "horizontalpodautoscalers"},
    "batch/v1": {"cronjobs": "cronjobs", "jobs": "jobs"},
    "certificates.k8s.io/v1": {"certificatesigningrequests": "certificatesigningrequests"},
    "coordination.k8s.io/v1": {"leases": "leases"},
    "discovery.k8s.io/v1": {"endpointslices": "endpointslices"},
    "flowcontrol.apiserver.k8s.io/v1": {
        "flowschemas": "flowschemas",
        "prioritylevelconfigurations": "prioritylevelconfigurations",
    },
    "networking.k8s.io/v1": {
        "ingressclasses": "ingressclasses",
        "ingresses": "ingress",
        "ipaddresses": "ipaddresses",
        "networkpolicies": "networkpolicies",
        "servicecidrs": "servicecidrs",
    },
    "node.k8s.io/v1": {"runtimeclasses": "runtimeclasses"},
    "policy/v1": {"poddisruptionbudgets": "poddisruptionbudgets"},
    "rbac.authorization.k8s.io/v1": {
        "clusterrolebindings": "clusterrolebindings",
        "clusterroles": "clusterroles",
        "rolebindings": "rolebindings",
        "roles": "roles",
    },
    "resource.k8s.io/v1": {
        "deviceclasses": "deviceclasses",
        "resourceclaims": "resourceclaims",
        "resourceclaimtemplates": "resourceclaimtemplates",
        "resourceslices": "resourceslices",
    },
    "scheduling.k8s.io/v1": {"priorityclasses": "priorityclasses"},
    "storage.k8s.io/v1": {
        "csidrivers": "csidrivers",
        "csinodes": "csinodes",
        "csistoragecapacities": "csistoragecapacities",
        "storageclasses": "storageclasses",
        "volumeattachments": "volumeattachments",
        "volumeattributesclasses": "volumeattributesclasses",
    },
}
VERSIONS_OF_OTHERS = {"events.k8s.io/v1/events": "v1", "autoscaling/v1/horizontalpodautoscalers": "autoscaling/v2"}
NOT_STORED_UPSTREAM = {"componentstatuses"}

STORED = [
    pytest.param(resource, id=f"{resource.group_version}/{resource.plural}")
    for resource in RESOURCES
    if resource.storable and resource.storage is None and resource.plural not in NOT_STORED_UPSTREAM
]


@pytest.mark.parametrize("resource", STORED)
def test_each_kind_is_where_upstream_looks_for_it(resource) -> None:  # type: ignore[no-untyped-def]
    expected = LAYOUT[resource.group_version][resource.plural]
    assert resource_prefix(resource.group, resource.plural) == f"/registry/{expected}/".encode()


def test_every_kind_of_the_table_is_stored() -> None:
    ours = {(resource.group_version, resource.plural) for resource in RESOURCES if resource.storable}
    assert {(version, plural) for version, row in LAYOUT.items() for plural in row} <= ours


def test_other_versions_are_stored_in_the_one_that_upstream_stores() -> None:
    found = {
        f"{resource.group_version}/{resource.plural}": "/".join(filter(None, resource.storage))
        for resource in RESOURCES
        if resource.storable and resource.storage is not None
    }
    assert found.items() >= VERSIONS_OF_OTHERS.items()


def test_custom_objects_and_scopes() -> None:
    assert resource_prefix("example.com", "widgets") == b"/registry/example.com/widgets/"
    assert (suffix("ns", "name"), suffix("", "name")) == ("ns/name", "name")
