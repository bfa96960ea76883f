"""What may become of an object: one row per rule about updates, as field, reason and the head of the text."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from api.resources import lookup
from apiserver.auth.user import UserInfo
from apiserver.registry.store import RequestContext
from apiserver.registry.strategy import strategy_for
from machinery.patch import apply_merge_patch

Obj = dict[str, Any]
CTX = RequestContext(UserInfo("alice"))
BETA = "volume.beta.kubernetes.io/storage-class"
RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
VOLUME: Obj = {
    "spec": {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "csi": {"driver": "d.example.com", "volumeHandle": "h"},
    }
}
CLAIM: Obj = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}}
BOUND: Obj = {**CLAIM, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
SERVICE: Obj = {"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80}]}}


def affinity(key: str, value: str) -> Obj:
    terms = [{"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}]
    return {"required": {"nodeSelectorTerms": terms}}


def classed(base: Obj, name: str | None, **meta: Any) -> Obj:
    return {**base, "metadata": meta, "spec": {**base["spec"], "volumeAttributesClassName": name}}


def quota(*scopes: str, **hard: str) -> Obj:
    return {"spec": {"hard": {name.replace("_", "."): amount for name, amount in hard.items()}, "scopes": list(scopes)}}


def findings(kind: str, old: Obj, change: Obj) -> list[str]:
    group, _, plural = kind.rpartition("/")
    resource = lookup(group, "v1", plural)
    assert resource is not None
    strategy = strategy_for(resource)
    meta = {"name": "x", "uid": "u", "resourceVersion": "5", "creationTimestamp": "2026-01-01T00:00:00Z"}
    stored = copy.deepcopy({**old, "metadata": {**meta, "namespace": "ns", **old.get("metadata", {})}})
    if not resource.namespaced:
        del stored["metadata"]["namespace"]
    strategy.canonicalize(stored)
    strategy.default(stored)
    new = copy.deepcopy(apply_merge_patch(stored, change))
    strategy.canonicalize(new)
    strategy.default(new)
    strategy.prepare_update(CTX, new, stored)
    return [f"{each.field}: {each.text}" for each in strategy.validate_update(CTX, new, stored)]


STORAGE = "storage.k8s.io"
NODE: Obj = {"spec": {"drivers": [{"name": "d.x", "nodeID": "n", "topologyKeys": ["a"]}]}}
INGRESS: Obj = {"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}
PVC = "persistentvolumeclaims"
IMMUTABLE_CLAIM = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttrib"
SOURCE = "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"
ONLY_BALANCER = "Forbidden: may only be used when `type` is 'LoadBalancer'"


@pytest.mark.parametrize(
    ("plural", "old", "change", "expected"),
    [
        pytest.param(
            "persistentvolumes",
            VOLUME,
            {"spec": {"csi": {"volumeHandle": "g"}}},
            [f"{SOURCE}\n@@ -22,7 +22,7 @@\n"],
            id="volume source",
        ),
        pytest.param(
            "persistentvolumes",
            VOLUME,
            {"spec": {"csi": {"controllerExpandSecretRef": {"name": "s", "namespace": "n"}}}},
            [],
            id="volume: a secret for expansion may be added",
        ),
        pytest.param(
            "persistentvolumes",
            VOLUME,
            {"spec": {"volumeMode": "Block"}},
            ['volumeMode: Invalid value: "Block": field is immutable'],
            id="volume mode",
        ),
        pytest.param(
            "persistentvolumes", VOLUME, {"spec": {"nodeAffinity": affinity("a", "b")}}, [], id="affinity: set"
        ),
        pytest.param(
            "persistentvolumes",
            {"spec": {**VOLUME["spec"], "nodeAffinity": affinity("a", "b")}},
            {"spec": {"nodeAffinity": affinity("a", "c")}},
            ["nodeAffinity: Invalid value: {"],
            id="affinity: changed",
        ),
        pytest.param(
            "persistentvolumes",
            {"spec": {**VOLUME["spec"], "nodeAffinity": affinity("failure-domain.beta.kubernetes.io/zone", "b")}},
            {"spec": {"nodeAffinity": affinity("topology.kubernetes.io/zone", "b")}},
            [],
            id="affinity: newer labels",
        ),
        pytest.param(
            "persistentvolumes",
            classed(VOLUME, "gold"),
            {"spec": {"volumeAttributesClassName": None}},
            ["spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"],
            id="volume: class taken away",
        ),
        pytest.param(
            "persistentvolumes",
            VOLUME,
            {"spec": {"hostPath": {"path": "/"}, "csi": None, "persistentVolumeReclaimPolicy": "Recycle"}},
            [
                "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
                "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
                "spec.persistentvolumesource: Forbidden",
            ],
            id="volume: the root is not recycled",
        ),
        pytest.param(PVC, CLAIM, {"spec": {"volumeName": "v"}}, [], id="claim: bound once"),
        pytest.param(
            PVC, CLAIM, {"spec": {"storageClassName": "fast"}}, [], id="claim: a default class that came later"
        ),
        pytest.param(
            PVC,
            {**CLAIM, "metadata": {"annotations": {BETA: "fast"}}},
            {"spec": {"storageClassName": "slow"}},
            [IMMUTABLE_CLAIM],
            id="claim: another class than the annotation's",
        ),
        pytest.param(
            PVC,
            {**CLAIM, "metadata": {"annotations": {BETA: "fast"}}},
            {"metadata": {"annotations": {BETA: "slow"}}},
            [f'metadata.annotations.{BETA}: Invalid value: "slow": field is immutable'],
            id="claim: annotation",
        ),
        pytest.param(
            PVC,
            CLAIM,
            {"spec": {"resources": {"requests": {"storage": "3Gi"}}}},
            [IMMUTABLE_CLAIM],
            id="claim: unbound grows",
        ),
        pytest.param(
            PVC, BOUND, {"spec": {"resources": {"requests": {"storage": "3Gi"}}}}, [], id="claim: bound grows"
        ),
        pytest.param(
            PVC,
            BOUND,
            {"spec": {"resources": {"requests": {"storage": "1Gi"}}}},
            ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"],
            id="claim: shrinks to what it has",
        ),
        pytest.param(
            PVC, BOUND, {"spec": {"resources": {"requests": {"storage": "1.5Gi"}}}}, [], id="claim: asks for less again"
        ),
        pytest.param(
            PVC, BOUND, {"spec": {"volumeAttributesClassName": "gold"}}, [], id="claim: another class of attributes"
        ),
        pytest.param(
            PVC,
            classed(BOUND, "gold"),
            {"spec": {"volumeAttributesClassName": ""}},
            ["spec.volumeAttributesClassName: Forbidden: update from non-nil value to an empty string is forbidden"],
            id="claim: no class of attributes",
        ),
        pytest.param(
            PVC,
            CLAIM,
            {"spec": {"volumeMode": "Block"}},
            [IMMUTABLE_CLAIM, 'volumeMode: Invalid value: "Block": field is immutable'],
            id="claim: mode",
        ),
        pytest.param(
            "resourcequotas",
            quota("BestEffort", pods="1"),
            {"spec": {"hard": {"cpu": "1"}}},
            ['spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource'],
            id="quota: scope and resource",
        ),
        pytest.param(
            "resourcequotas",
            quota("NotTerminating", pods="1"),
            {"spec": {"hard": {"requests.cpu": "1"}}},
            [],
            id="quota: compute in a scope",
        ),
        pytest.param(
            "resourcequotas",
            quota(pods="1"),
            {"spec": {"hard": {"pods": "1500m"}}},
            ['spec.hard[pods]: Invalid value: "1500m": must be an integer'],
            id="quota: half a pod",
        ),
        pytest.param(
            "services",
            SERVICE,
            {"spec": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}},
            [f"spec.LoadBalancerSourceRanges: {ONLY_BALANCER}"],
            id="service: source ranges without a balancer",
        ),
        pytest.param(
            "services",
            SERVICE,
            {"metadata": {"annotations": {RANGES: "10.0.0.0/8, x"}}},
            [
                f"metadata.annotations[{RANGES}]: {ONLY_BALANCER}",
                f'metadata.annotations[{RANGES}]: Invalid value: "x": ',
            ],
            id="service: the annotation",
        ),
        pytest.param(
            f"{STORAGE}/storageclasses",
            {"provisioner": "a.b/c", "parameters": {"a": "b"}},
            {"provisioner": "a.b/d", "parameters": None},
            [
                "parameters: Forbidden: updates to parameters are forbidden.",
                'provisioner: Invalid value: "a.b/d": field is immutable',
            ],
            id="storage class",
        ),
        pytest.param(
            f"{STORAGE}/storageclasses",
            {"provisioner": "a.b/c"},
            {"allowedTopologies": [{"matchLabelExpressions": [{"key": "z", "values": ["a", "a"]}, {"key": "z"}]}]},
            [
                'allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: "a"',
                "allowedTopologies[0].matchLabelExpressions[1].values: Required value",
                'allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: "z"',
            ],
            id="storage class: topologies",
        ),
        pytest.param(
            f"{STORAGE}/csinodes",
            NODE,
            {"spec": {"drivers": [{"name": "d.x", "nodeID": "m", "topologyKeys": ["a"]}]}},
            ['spec.drivers: Invalid value: {"Name":"d.x","NodeID":"m","TopologyKeys":["a"],"Allocatable":null}: '],
            id="CSI node: another id",
        ),
        pytest.param(
            f"{STORAGE}/csinodes",
            NODE,
            {"spec": {"drivers": [{"name": "d.x", "nodeID": "n", "topologyKeys": ["a"], "allocatable": {"count": 5}}]}},
            [],
            id="CSI node: more volumes",
        ),
        pytest.param(
            f"{STORAGE}/csinodes",
            NODE,
            {"spec": {"drivers": [{"name": "e.x", "topologyKeys": ["a", "a"], "allocatable": {"count": -1}}]}},
            [
                "spec.drivers[0].nodeID: Required value",
                "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
                'spec.drivers[0]: Duplicate value: "a"',
            ],
            id="CSI node: a driver",
        ),
        pytest.param(
            f"{STORAGE}/csidrivers",
            {"spec": {}},
            {"spec": {"attachRequired": False, "podInfoOnMount": True, "nodeAllocatableUpdatePeriodSeconds": 5}},
            [
                "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 5: must be greater than or equal to 10",
                "spec.attachedRequired: Invalid value: false: field is immutable",
            ],
            id="CSI driver",
        ),
        pytest.param(
            f"{STORAGE}/csidrivers",
            {"spec": {}},
            {"spec": {"tokenRequests": [{"audience": "a", "expirationSeconds": 5}, {"audience": "a"}]}},
            [
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less",
                'spec.tokenRequests[1].audience: Duplicate value: "a"',
            ],
            id="CSI driver: tokens",
        ),
        pytest.param(
            f"{STORAGE}/volumeattachments",
            {"spec": {"attacher": "a.b", "nodeName": "n", "source": {"persistentVolumeName": "p"}}},
            {"spec": {"nodeName": "m"}},
            [
                'spec: Invalid value: {"Attacher":"a.b","Source":{"PersistentVolumeName":"p","InlineVolumeSpec":null},'
                '"NodeName":"m"}: field is immutable'
            ],
            id="attachment",
        ),
        pytest.param(
            f"{STORAGE}/volumeattributesclasses",
            {"driverName": "a.b", "parameters": {"a": "b"}},
            {"driverName": "a.c", "parameters": None},
            [
                "driverName: Forbidden: updates to driverName are forbidden.",
                "parameters: Forbidden: updates to parameters are forbidden.",
                "parameters: Required value: must contain at least one key/value pair",
            ],
            id="class of attributes",
        ),
        pytest.param(
            "networking.k8s.io/ingresses",
            INGRESS,
            {"spec": {"tls": [{"secretName": "A"}]}},
            ['spec.tls[0].secretName: Invalid value: "A": '],
            id="ingress: name of a secret",
        ),
        pytest.param(
            "networking.k8s.io/ingresses",
            {"spec": {**INGRESS["spec"], "tls": [{"secretName": "A"}]}},
            {"spec": {"tls": [{"secretName": "B"}]}},
            [],
            id="ingress: it was wrong before",
        ),
        pytest.param(
            "discovery.k8s.io/endpointslices",
            {"addressType": "IPv4", "endpoints": []},
            {"endpoints": [{"addresses": ["1.2.3.4"], "hints": {"forZones": [{"name": "a"}, {"name": "a"}]}}]},
            ['endpoints[0].hints.forZones[1].name: Duplicate value: "a"'],
            id="endpoint slice: hints",
        ),
    ],
)
def test_updates(plural: str, old: Obj, change: Obj, expected: list[str]) -> None:
    found = findings(plural, old, change)
    assert len(found) == len(expected), found
    assert [text[: len(head)] for text, head in zip(found, expected, strict=True)] == expected


def test_a_jobs_template_is_shown_in_upstreams_internal_form() -> None:
    resource = lookup("batch", "v1", "jobs")
    assert resource is not None
    strategy = strategy_for(resource)
    container = {"name": "main", "image": "a"}
    spec: Obj = {"template": {"spec": {"containers": [container], "restartPolicy": "Never"}}}
    meta = {"name": "x", "namespace": "ns", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    old: Obj = {"metadata": meta, "spec": spec}
    strategy.canonicalize(old)
    strategy.default(old)
    strategy.prepare_create(CTX, old)
    new = copy.deepcopy(old)
    new["spec"]["template"]["spec"]["containers"][0]["image"] = "b"
    (finding,) = strategy.validate_update(CTX, new, old)
    assert finding.text.startswith('Invalid value: {"labels":{') and finding.text.endswith(": field is immutable")
    assert '"Spec":{"Volumes":null,"InitContainers":null,"Containers":[{"Name":"main","Image":"b"' in finding.text
