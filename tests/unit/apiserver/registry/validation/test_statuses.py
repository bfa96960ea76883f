"""What a status cannot be, one row each."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.registry.validation.autoscaling import validate_autoscaler_status
from apiserver.registry.validation.pod_status import validate_pod_status
from apiserver.registry.validation.storage import validate_claim_status
from apiserver.registry.validation.workloads import validate_workload_status
from machinery.field_errors import FieldError

Obj = dict[str, Any]
MORE = "cannot be greater than status.replicas"


def texts(found: list[FieldError]) -> list[str]:
    return [f"{each.field}: {each.text}" for each in found]


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("Deployment", {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 1}, []),
        ("Deployment", {"unavailableReplicas": -1}, ["status.unavailableReplicas: Invalid value: -1: must be greater"]),
        ("Deployment", {"replicas": 1, "updatedReplicas": 2}, [f"status.updatedReplicas: Invalid value: 2: {MORE}"]),
        ("ReplicaSet", {"fullyLabeledReplicas": 1}, [f"status.fullyLabeledReplicas: Invalid value: 1: {MORE}"]),
        ("ReplicationController", {"readyReplicas": 1}, [f"status.readyReplicas: Invalid value: 1: {MORE}"]),
        ("StatefulSet", {"replicas": 1, "currentReplicas": 2}, [f"status.currentReplicas: Invalid value: 2: {MORE}"]),
        (
            "StatefulSet",
            {"replicas": 2, "readyReplicas": 1, "availableReplicas": 2},
            ["status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas"],
        ),
        (
            "ReplicaSet",
            {"replicas": 2, "readyReplicas": 1, "availableReplicas": 2},
            ["status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas"],
        ),
        (
            "DaemonSet",
            {"numberReady": -1},
            ["status.numberReady: Invalid value: -1: must be greater than or equal to 0"],
        ),
    ],
)
def test_workloads(kind: str, status: Obj, expected: list[str]) -> None:
    found = texts(validate_workload_status({"kind": kind, "status": status}, {}))
    assert [text[: len(head)] for text, head in zip(found, expected, strict=True)] == expected


def test_autoscalers_claims_and_pods() -> None:
    counts = {"status": {"currentReplicas": -1, "desiredReplicas": 1}}
    assert texts(validate_autoscaler_status(counts, {})) == [
        "status.currentReplicas: Invalid value: -1: must be greater than or equal to 0"
    ]
    capacity = {"status": {"capacity": {"storage": "-1Gi", "a.b/c": "1"}}}
    assert texts(validate_claim_status(capacity, {})) == [
        "status.capacity[storage]: Invalid value: -1073741824: must be a valid resource quantity"
    ]
    pair: Obj = {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}
    assert validate_pod_status({"status": pair}, {}) == []
    twice: Obj = {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}
    assert texts(validate_pod_status({"status": twice}, {})) == [
        'status.podIPs: Invalid value: [{"IP":"10.0.0.1"},{"IP":"10.0.0.2"}]: '
        "may specify no more than one IP for each IP family"
    ]
