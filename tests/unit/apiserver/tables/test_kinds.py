"""Rows of every other kind, the envelope around them, and custom columns."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.tables import custom_table, registry, table_for

NOW = datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
META = {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"}
POD_SPEC = {"containers": [{"name": "main", "image": "nginx:1"}, {"name": "side", "image": "busybox"}]}
SELECTOR = {
    "matchLabels": {"tier": "web"},
    "matchExpressions": [
        {"key": "color", "operator": "DoesNotExist"},
        {"key": "tier", "operator": "In", "values": ["web", "db"]},
    ],
}
TEMPLATE = {"selector": SELECTOR, "template": {"spec": POD_SPEC}}
WIDE = ["main,side", "nginx:1,busybox", "!color,tier=web,tier in (db,web)"]


@dataclass(frozen=True)
class Name:
    group: str
    plural: str


def row(group: str, plural: str, fields: dict[str, Any]) -> list[Any]:
    table = table_for(Name(group, plural)).render(None, [{"metadata": META, **fields}], "None", NOW)
    cells: list[Any] = table["rows"][0]["cells"]
    assert len(cells) == len(table["columnDefinitions"])
    return cells


@pytest.mark.parametrize(
    ("group", "plural", "fields", "cells"),
    [
        pytest.param("", "limitranges", {}, ["web", "2026-01-01T00:00:00Z"], id="default"),
        pytest.param("", "configmaps", {"data": {"a": "b"}, "binaryData": {"c": ""}}, ["web", 2, "5s"], id="configmap"),
        pytest.param("", "secrets", {"type": "Opaque", "data": {"a": ""}}, ["web", "Opaque", 1, "5s"], id="secret"),
        pytest.param("", "namespaces", {"status": {"phase": "Active"}}, ["web", "Active", "5s"], id="namespace"),
        pytest.param(
            "",
            "nodes",
            {
                "metadata": {
                    **META,
                    "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "extra"},
                },
                "spec": {"unschedulable": True},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                    "nodeInfo": {"kubeletVersion": "v1", "osImage": "Debian"},
                },
            },
            [
                "web",
                "Ready,SchedulingDisabled",
                "extra,worker",
                "5s",
                "v1",
                "10.0.0.1",
                "<none>",
                "Debian",
                "<unknown>",
                "<unknown>",
            ],
            id="node",
        ),
        pytest.param(
            "",
            "nodes",
            {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
            ["web", "NotReady", "<none>", "5s", "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"],
            id="node lost",
        ),
        pytest.param(
            "",
            "resourcequotas",
            {"status": {"hard": {"pods": "10", "limits.memory": "4Gi"}, "used": {"pods": "3"}}},
            ["web", "pods: 3/10", "limits.memory: 0/4Gi", "5s"],
            id="quota",
        ),
        pytest.param(
            "",
            "persistentvolumeclaims",
            {
                "spec": {"volumeName": "pv", "storageClassName": "fast", "volumeMode": "Block"},
                "status": {
                    "phase": "Bound",
                    "capacity": {"storage": "5Gi"},
                    "accessModes": ["ReadOnlyMany", "ReadWriteOnce"],
                },
            },
            ["web", "Bound", "pv", "5Gi", "RWO,ROX", "fast", "<unset>", "5s", "Block"],
            id="claim",
        ),
        pytest.param(
            "apps",
            "deployments",
            {"spec": {"replicas": 3, **TEMPLATE}, "status": {"readyReplicas": 1, "updatedReplicas": 2}},
            ["web", "1/3", 2, 0, "5s", *WIDE],
            id="deployment",
        ),
        pytest.param(
            "apps",
            "replicasets",
            {"spec": {"replicas": 2, **TEMPLATE}, "status": {"replicas": 2}},
            ["web", 2, 2, 0, "5s", *WIDE],
            id="replicaset",
        ),
        pytest.param(
            "apps",
            "daemonsets",
            {"spec": TEMPLATE, "status": {"desiredNumberScheduled": 4, "numberReady": 2}},
            ["web", 4, 0, 2, 0, 0, "<none>", "5s", *WIDE],
            id="daemonset",
        ),
        pytest.param(
            "apps",
            "controllerrevisions",
            {
                "metadata": {
                    **META,
                    "ownerReferences": [
                        {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "controller": True}
                    ],
                },
                "revision": 3,
            },
            ["web", "statefulset.apps/db", 3, "5s"],
            id="controllerrevision",
        ),
        pytest.param(
            "batch",
            "jobs",
            {
                "spec": {"completions": 3, **TEMPLATE},
                "status": {
                    "succeeded": 3,
                    "startTime": "2026-01-01T00:00:00Z",
                    "completionTime": "2026-01-01T00:00:02Z",
                    "conditions": [{"type": "Complete", "status": "True"}],
                },
            },
            ["web", "Complete", "3/3", "2s", "5s", *WIDE],
            id="job",
        ),
        pytest.param(
            "batch",
            "cronjobs",
            {
                "spec": {
                    "schedule": "@daily",
                    "suspend": False,
                    "jobTemplate": {"spec": {"template": {"spec": POD_SPEC}}},
                }
            },
            ["web", "@daily", "<none>", "False", 0, "<none>", "5s", "main,side", "nginx:1,busybox", "<none>"],
            id="cronjob",
        ),
        pytest.param(
            "autoscaling",
            "horizontalpodautoscalers",
            {
                "apiVersion": "autoscaling/v2",
                "spec": {
                    "maxReplicas": 7,
                    "scaleTargetRef": {"kind": "Deployment", "name": "web"},
                    "metrics": [
                        {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 60}}},
                        {"type": "Resource", "resource": {"name": "memory", "target": {"averageValue": "100Mi"}}},
                        {"type": "External", "external": {"target": {"value": "30"}}},
                    ],
                },
                "status": {"currentMetrics": [{"resource": {"current": {"averageUtilization": 33}}}]},
            },
            ["web", "Deployment/web", "cpu: 33%/60%, memory: <unknown>/100Mi + 1 more...", "<unset>", 7, 0, "5s"],
            id="hpa v2",
        ),
        pytest.param(
            "autoscaling",
            "horizontalpodautoscalers",
            {
                "apiVersion": "autoscaling/v1",
                "spec": {"maxReplicas": 3, "minReplicas": 2, "targetCPUUtilizationPercentage": 80},
                "status": {"currentCPUUtilizationPercentage": 5, "currentReplicas": 1},
            },
            ["web", "/", "cpu: 5%/80%", "2", 3, 1, "5s"],
            id="hpa v1",
        ),
        pytest.param(
            "policy",
            "poddisruptionbudgets",
            {"spec": {"maxUnavailable": "30%"}},
            ["web", "N/A", "30%", 0, "5s"],
            id="pdb",
        ),
        pytest.param(
            "",
            "services",
            {
                "spec": {
                    "type": "LoadBalancer",
                    "clusterIPs": ["10.96.0.1"],
                    "externalIPs": ["192.0.2.7"],
                    "ports": [{"port": 80, "nodePort": 30321, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
                    "selector": {"b": "c", "a": "b"},
                },
                "status": {"loadBalancer": {"ingress": [{"hostname": "lb"}, {"ip": "203.0.113.1"}]}},
            },
            ["web", "LoadBalancer", "10.96.0.1", "203.0.113.1,lb,192.0.2.7", "80:30321/TCP,53/UDP", "5s", "a=b,b=c"],
            id="service",
        ),
        pytest.param(
            "",
            "services",
            {"spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"]}},
            ["web", "LoadBalancer", "10.96.0.1", "<pending>", "<none>", "5s", "<none>"],
            id="load balancer pending",
        ),
        pytest.param(
            "",
            "endpoints",
            {"subsets": [{"addresses": [{"ip": f"10.1.1.{i}"} for i in range(1, 5)], "ports": [{"port": 80}]}]},
            ["web", "10.1.1.1:80,10.1.1.2:80,10.1.1.3:80 + 1 more...", "5s"],
            id="endpoints",
        ),
        pytest.param(
            "discovery.k8s.io",
            "endpointslices",
            {"addressType": "IPv4", "ports": [{"name": "x"}, {"port": 443}], "endpoints": []},
            ["web", "IPv4", "x,443", "<unset>", "5s"],
            id="endpointslice",
        ),
        pytest.param(
            "networking.k8s.io",
            "ingresses",
            {"spec": {"tls": [{}], "rules": [{"host": h} for h in "abcd"]}},
            ["web", "<none>", "a,b,c + 1 more...", "", "80, 443", "5s"],
            id="ingress",
        ),
        pytest.param(
            "storage.k8s.io",
            "storageclasses",
            {
                "metadata": {**META, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
                "provisioner": "p",
            },
            ["web (default)", "p", "Delete", "Immediate", False, "5s"],
            id="default storage class",
        ),
        pytest.param(
            "rbac.authorization.k8s.io",
            "rolebindings",
            {
                "roleRef": {"kind": "Role", "name": "r"},
                "subjects": [
                    {"kind": "User", "name": "u"},
                    {"kind": "Group", "name": "g"},
                    {"kind": "ServiceAccount", "namespace": "n", "name": "s"},
                ],
            },
            ["web", "Role/r", "5s", "u", "g", "n/s"],
            id="role binding",
        ),
        pytest.param(
            "certificates.k8s.io",
            "certificatesigningrequests",
            {
                "spec": {"signerName": "s", "username": "u", "expirationSeconds": 7200},
                "status": {"conditions": [{"type": "Approved"}], "certificate": "x"},
            },
            ["web", "5s", "s", "u", "120m", "Approved,Issued"],
            id="csr",
        ),
        pytest.param(
            "apiregistration.k8s.io",
            "apiservices",
            {
                "spec": {"service": {"namespace": "n", "name": "s"}},
                "status": {"conditions": [{"type": "Available", "status": "False", "reason": "MissingEndpoints"}]},
            },
            ["web", "n/s", "False (MissingEndpoints)", "5s"],
            id="api service",
        ),
        pytest.param(
            "",
            "events",
            {
                "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{main}"},
                "type": "Normal",
                "reason": "Started",
                "message": "hello\n",
                "count": 3,
                "firstTimestamp": "2026-01-01T00:00:00Z",
                "lastTimestamp": "2026-01-01T00:00:03Z",
                "source": {"component": "kubelet", "host": "n1"},
            },
            ["2s", "Normal", "Started", "pod/web", "spec.containers{main}", "kubelet, n1", "hello", "5s", 3, "web"],
            id="event",
        ),
        pytest.param(
            "events.k8s.io",
            "events",
            {
                "regarding": {"kind": "Pod", "name": "web"},
                "note": "m",
                "reportingController": "c",
                "eventTime": "2026-01-01T00:00:00.000001Z",
                "series": {"count": 4, "lastObservedTime": "2026-01-01T00:00:04.000001Z"},
            },
            ["0s", "", "", "pod/web", "", "c", "m", "4s", 4, "web"],
            id="event series",
        ),
    ],
)
def test_cells(group: str, plural: str, fields: dict[str, Any], cells: list[Any]) -> None:
    assert row(group, plural, fields) == cells


def test_row_objects() -> None:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": META}
    table = table_for(Name("", "configmaps"))
    assert table.render(None, [obj], "Object", NOW)["rows"][0]["object"] is obj
    assert table.render(None, [obj], "None", NOW)["rows"][0]["object"] is None
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": META}
    assert table.render(None, [obj], "Metadata", NOW)["rows"][0]["object"] == partial


def test_columns_are_sent_once_in_a_watch() -> None:
    table = table_for(Name("", "configmaps"))
    assert table.render(None, [], "None", NOW, with_columns=False)["columnDefinitions"] is None
    assert [c["name"] for c in table.render(None, [], "None", NOW)["columnDefinitions"]] == ["Name", "Data", "Age"]


def test_custom_columns() -> None:
    table = custom_table(
        [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
            {"name": "First", "type": "string", "jsonPath": ".spec.parts[0].name", "priority": 1},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            {"name": "Odd", "type": "string", "jsonPath": ".metadata.annotations.example\\.com/x"},
            {"name": "Bad", "type": "integer", "jsonPath": "{nonsense"},
        ]
    )
    obj = {
        "metadata": {**META, "annotations": {"example.com/x": "y"}},
        "spec": {"size": 3, "parts": [{"name": "p"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    made = table.render(None, [obj, {"metadata": META}], "None", NOW)
    assert made["rows"][0]["cells"] == ["web", 3, "True", "p", "5s", "y", None]
    assert made["rows"][1]["cells"] == ["web", None, None, None, "5s", None, None]
    assert [c["priority"] for c in made["columnDefinitions"]] == [0, 0, 0, 1, 0, 0, 0]


def test_custom_resources_without_columns_show_their_age() -> None:
    made = custom_table([]).render(None, [{"metadata": META}], "None", NOW)
    assert [c["name"] for c in made["columnDefinitions"]] == ["Name", "Age"]
    assert made["rows"][0]["cells"] == ["web", "5s"]


_fields = st.sampled_from(["metadata", "spec", "status", "type", "template", "labels", "ports", "conditions", "name"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda c: st.lists(c, max_size=2) | st.dictionaries(_fields, c, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(_fields, _json), st.sampled_from(sorted(registry._PRINTERS)))
def test_odd_objects_never_break_a_list(obj: dict[str, Any], key: tuple[str, str]) -> None:
    table = table_for(Name(*key)).render(None, [obj], "Metadata", NOW)
    assert len(table["rows"][0]["cells"]) == len(table["columnDefinitions"])
