"""resource.k8s.io: what upstream says of claims, classes and slices."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.registry.validation.claim_status import validate_claim_status
from tests.unit.apiserver.registry.validation.refused import created, same, updated

Obj = dict[str, Any]
REFERENCE = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
PLACE = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
DEVICE_PLACE = (
    "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true "
    "in the ResourceSlice spec"
)
TERM = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
BOTH = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'


def exactly(name: str = "one", **more: Any) -> Obj:
    return {"name": name, "exactly": {"deviceClassName": "gpu", **more}}


def claim(*requests: Obj, **devices: Any) -> Obj:
    return {"metadata": {"name": "c", "namespace": "ns"}, "spec": {"devices": {"requests": list(requests), **devices}}}


def toleration(**fields: str) -> Obj:
    return claim(exactly(tolerations=[fields]))


def opaque(driver: str = "d.example", parameters: Any = None) -> Obj:
    return {"opaque": {"driver": driver, "parameters": {"a": 1} if parameters is None else parameters}}


AT = "spec.devices.requests[0].exactly"


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (claim(exactly(), constraints=[{"requests": ["one"], "matchAttribute": "d.example/a"}]), []),
        (claim(exactly(), config=[{"requests": ["one"], **opaque()}]), []),
        (claim(exactly(tolerations=[{"key": "a", "operator": "Exists", "effect": "NoExecute"}])), []),
        (toleration(key="a", value="b"), []),
        (claim({"name": "One"}), [
            'spec.devices.requests[0].name: Invalid value: "One": a lowercase RFC 1123 label must',
            "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
        ]),
        (claim({**exactly(), "firstAvailable": [{"name": "a", "deviceClassName": "gpu"}]}), [
            "spec.devices.requests[0]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required,",
        ]),
        (claim(exactly(), exactly()), ['spec.devices.requests[1]: Duplicate value: "one"']),
        (claim(*(exactly(f"r{n}") for n in range(33))), [
            "spec.devices.requests: Too many: 33: must have at most 32 items"
        ]),
        (claim({"name": "a", "exactly": {}}), [f"{AT}.deviceClassName: Required value"]),
        (claim(exactly(deviceClassName="A_b")), [f'{AT}.deviceClassName: Invalid value: "A_b": a lowercase RFC 1123']),
        (claim(exactly(allocationMode="Some")), [
            f'{AT}.allocationMode: Unsupported value: "Some": supported values: "All", "ExactCount"'
        ]),
        (claim(exactly(allocationMode="All", count=2)), [
            f"{AT}.count: Invalid value: 2: must not be specified when allocationMode is 'All'"
        ]),
        (claim(exactly(count=-1)), [f"{AT}.count: Invalid value: -1: must be greater than zero"]),
        (claim(exactly(selectors=[{}])), [f"{AT}.selectors[0].cel: Required value"]),
        (claim(exactly(selectors=[{"cel": {"expression": "1 +"}}])), [
            f'{AT}.selectors[0].cel.expression: Invalid value: "1 +": compilation failed: '
        ]),
        (claim(exactly(selectors=[{"cel": {"expression": "x" * 10241}}])), [
            f"{AT}.selectors[0].cel.expression: Too long: may not be more than 10240 bytes"
        ]),
        (toleration(key="a", operator="Exists", value="b"), [
            f'{AT}.tolerations[0].value: Invalid value: "b": must be empty for operator `Exists`'
        ]),
        (toleration(key="a", operator="Like"), [
            f'{AT}.tolerations[0].operator: Unsupported value: "Like": supported values: "Equal", "Exists"'
        ]),
        (toleration(operator="Exists", effect="Never"), [
            f'{AT}.tolerations[0].effect: Unsupported value: "Never": supported values: "NoExecute", "NoSchedule", "Non'
        ]),
        (claim({"name": "a", "firstAvailable": [{"name": "x"}, {"name": "x", "deviceClassName": "gpu"}]}), [
            "spec.devices.requests[0].firstAvailable[0].deviceClassName: Required value",
            'spec.devices.requests[0].firstAvailable[1]: Duplicate value: "x"',
        ]),
        (claim(exactly(), constraints=[{"requests": ["two", "one/x", "a/b/c"], "matchAttribute": "a"}]), [
            f'spec.devices.constraints[0].requests[0]: Invalid value: "two": {REFERENCE}',
            f'spec.devices.constraints[0].requests[1]: Invalid value: "one/x": {REFERENCE}',
            f'spec.devices.constraints[0].requests[2]: Invalid value: "a/b/c": {REFERENCE}',
            'spec.devices.constraints[0].matchAttribute: Invalid value: "a": a fully qualified name must be a domain a',
        ]),
        (claim(exactly(), constraints=[{}]), [
            'spec.devices.constraints[0]: Required value: exactly one of "matchAttribute" or "distinctAttribute" is',
        ]),
        (claim(exactly(), constraints=[{"matchAttribute": "/a b"}]), [
            'spec.devices.constraints[0].matchAttribute: Invalid value: "": the domain must not be empty',
            'spec.devices.constraints[0].matchAttribute: Invalid value: "a b": a valid C identifier must start with',
        ]),
        (claim(exactly(), config=[{}, opaque("", [1])]), [
            "spec.devices.config[0].opaque: Required value",
            "spec.devices.config[1].opaque.driver: Required value",
            'spec.devices.config[1].opaque.parameters: Invalid value: "<value omitted>": must be a valid JSON object',
        ]),
        (claim(exactly(), config=[opaque(parameters={"a": "x" * 10240})]), [
            "spec.devices.config[0].opaque.parameters: Too long: may not be more than 10240 bytes",
        ]),
    ],
)  # fmt: skip
def test_claims(obj: Obj, expected: list[str]) -> None:
    same(created("resource.k8s.io/v1 resourceclaims", obj)[1], expected)
    template = {"metadata": obj["metadata"], "spec": {"spec": obj["spec"]}}
    inner = [text.replace("spec.", "spec.spec.", 1) for text in expected]
    same(created("resource.k8s.io/v1 resourceclaimtemplates", template)[1], inner)


def test_defaults() -> None:
    stored = created("resource.k8s.io/v1 resourceclaims", toleration(key="a"))[0]
    made = stored["spec"]["devices"]["requests"][0]["exactly"]
    assert (made["allocationMode"], made["count"], made["tolerations"][0]["operator"]) == ("ExactCount", 1, "Equal")
    taint = {"key": "a", "effect": "NoSchedule"}
    offered = created("resource.k8s.io/v1 resourceslices", devices({"name": "d", "taints": [taint]}))[0]
    assert offered["spec"]["devices"][0]["taints"][0]["timeAdded"].endswith("Z")


@pytest.mark.parametrize(
    ("kind", "obj"),
    [
        ("resourceclaims", claim(exactly())),
        ("resourceclaimtemplates", {"metadata": claim()["metadata"], "spec": {"spec": claim(exactly())["spec"]}}),
    ],
)
def test_what_is_asked_for_stays(kind: str, obj: Obj) -> None:
    asked: Obj = {"devices": {"requests": [exactly("other")]}}
    change = {"spec": {"spec": asked} if "templates" in kind else asked}
    found = updated(f"resource.k8s.io/v1 {kind}", obj, change)[1]
    assert [text.partition(":")[0] for text in found] == ["spec"]
    assert found[0].endswith("field is immutable")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"selectors": [{"cel": {"expression": 'device.driver == "d"'}}], "config": [opaque()]}, []),
        ({"extendedResourceName": "example.com/gpu"}, []),
        ({"extendedResourceName": "gpu"}, [
            'spec.extendedResourceName: Invalid value: "gpu": must be a valid extended resource name'
        ]),
        ({"selectors": [{}]}, ["spec.selectors[0].cel: Required value"]),
        ({"config": [{}]}, ["spec.config[0].opaque: Required value"]),
    ],
)  # fmt: skip
def test_classes(spec: Obj, expected: list[str]) -> None:
    same(created("resource.k8s.io/v1 deviceclasses", {"metadata": {"name": "gpu"}, "spec": spec})[1], expected)


def offer(**spec: Any) -> Obj:
    pool = {"name": "p", "resourceSliceCount": 1}
    spec = {"driver": "d.example", "pool": pool, "nodeName": "n1", **spec}
    return {"metadata": {"name": "s"}, "spec": {key: value for key, value in spec.items() if value is not None}}


def devices(*found: Obj, **spec: Any) -> Obj:
    return offer(devices=list(found), **spec)


def device(**more: Any) -> Obj:
    return devices({"name": "d", **more})


def capacity(**policy: Any) -> Obj:
    return device(allowMultipleAllocations=True, capacity={"mem": {"value": "8Gi", "requestPolicy": policy}})


POLICY = "spec.devices[0].capacity[mem].requestPolicy"


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (device(attributes={"a": {"int": 1}, "d.example/b": {"version": "1.2.3-a.1+b"}}), []),
        (device(capacity={"m": {"value": "1"}}), []),
        (offer(sharedCounters=[{"name": "c", "counters": {"a": {"value": "1"}}}]), []),
        (devices({"name": "d", "nodeName": "n1"}, nodeName=None, perDeviceNodeSelection=True), []),
        (capacity(validRange={"min": "1Gi", "max": "4Gi", "step": "1Gi"}, default="1Gi"), []),
        (capacity(validValues=["1Gi", "2Gi"], default="1Gi"), []),
        (offer(driver="", pool={}), [
            "spec.driver: Required value", "spec.pool.name: Required value",
            "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
        ]),
        (offer(driver="d" * 64, pool={"name": "p//q", "resourceSliceCount": 1, "generation": -1}), [
            "spec.driver: Too long: may not be more than 63 bytes",
            'spec.pool.name: Invalid value: "": a lowercase RFC 1123 subdomain',
            "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
        ]),
        (offer(nodeName=None), [f"spec: Required value: {PLACE}"]),
        (offer(nodeName=""), [f"spec: Required value: {PLACE}"]),
        (offer(allNodes=True), [
            f'spec: Invalid value: "{{`nodeName`, `allNodes`}}": {PLACE}, but multiple fields are set'
        ]),
        (offer(allNodes=False), ["spec.allNodes: Invalid value: false: must be either unset or set to true"]),
        (offer(nodeName=None, nodeSelector={"nodeSelectorTerms": [TERM, TERM]}), [
            "spec.nodeSelector.nodeSelectorTerms: Invalid value: "
        ]),
        (device(nodeName="n1"), [
            "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if"
        ]),
        (devices({"name": "d"}, nodeName=None, perDeviceNodeSelection=True), [
            f"spec.devices[0]: Required value: {DEVICE_PLACE}"
        ]),
        (devices({"name": "d"}, sharedCounters=[{"name": "c", "counters": {"a": {"value": "1"}}}]), [
            'spec: Invalid value: "": only one of `sharedCounters` or `devices` is allowed'
        ]),
        (devices({"name": "d"}, {"name": "d"}), ['spec.devices[1]: Duplicate value: "d"']),
        (devices(*({"name": f"d{n}"} for n in range(129))), [
            "spec.devices: Too many: 129: must have at most 128 items"
        ]),
        (devices({"name": "t", "taints": [{"key": "a", "effect": "None"}]}, *({"name": f"d{n}"} for n in range(64))), [
            "spec.devices: Too many: 65: must have at most 64 items"
        ]),
        (device(attributes={"a": {}}), [
            'spec.devices[0].attributes[a]: Invalid value: "": exactly one value must be specified'
        ]),
        (device(attributes={"a": {"int": 1, "bool": True}}), [
            "spec.devices[0].attributes[a]: Invalid value: "
        ]),
        (device(attributes={"a": {"version": "1.2"}, "b": {"string": "x" * 65}}), [
            'spec.devices[0].attributes[a].version: Invalid value: "1.2": must be a string compatible with semver.org',
            "spec.devices[0].attributes[b].string: Too long: may not be more than 64 bytes",
        ]),
        (device(attributes={f"a{n}": {"int": n} for n in range(33)}), [
            "spec.devices[0]: Invalid value: 33: the total number of attributes and capacities must not exceed 32"
        ]),
        (device(attributes={"x" * 100: {"int": 1}}), [
            f"spec.devices[0].attributes[{'x' * 47}...{'x' * 46}]: Too long: may not be more than 32 bytes"
        ]),
        (device(capacity={"m": {"value": "1", "requestPolicy": {"default": "1"}}}), [
            "spec.devices[0].capacity[m].requestPolicy: Forbidden: allowMultipleAllocations must be true"
        ]),
        (device(taints=[{"key": "", "effect": "Never"}, {"key": "a"}]), [
            'spec.devices[0].taints[0].key: Invalid value: "": name part must be non-empty',
            'spec.devices[0].taints[0].key: Invalid value: "": name part must consist of alphanumeric characters',
            'spec.devices[0].taints[0].effect: Unsupported value: "Never": supported values: "NoExecute", "NoSchedule"',
            "spec.devices[0].taints[1].effect: Required value",
        ]),
        (device(consumesCounters=[{}, {"counterSet": "A", "counters": {"x": {"value": "1"}}}]), [
            "spec.devices[0].consumesCounters[0].counterSet: Required value",
            "spec.devices[0].consumesCounters[0].counters: Required value",
            'spec.devices[0].consumesCounters[1].counterSet: Invalid value: "A": a lowercase RFC 1123 label must',
        ]),
        (device(bindingConditions=["a", "a"], bindingFailureConditions=["a"]), [
            'spec.devices[0].bindingConditions[1]: Duplicate value: "a"',
            'spec.devices[0].bindingFailureConditions[0]: Invalid value: "a": bindingFailureConditions must not overla',
        ]),
        (device(bindingConditions=["a"]), [
            "spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to u",
        ]),
        (capacity(validValues=["1Gi"], validRange={"min": "1"}), [f"{POLICY}: Forbidden: {BOTH}"]),
        (capacity(validValues=["1Gi"]), [f"{POLICY}.default: Required value: required when validValues is defined"]),
        (capacity(validRange={}, default="1"), [f"{POLICY}.validRange.min: Required value: required when validRange"]),
        (capacity(validValues=["2Gi", "1Gi", "9Gi"], default="3Gi"), [
            f'{POLICY}.validValues[1]: Invalid value: "1Gi": values must be sorted in ascending order',
            f'{POLICY}.validValues[2]: Invalid value: "9Gi": option is larger than capacity value: 8Gi',
            f'{POLICY}.validValues: Invalid value: "3Gi": default value is not valid according to the requestPolicy',
        ]),
        (capacity(validRange={"min": "2Gi", "max": "9Gi", "step": "3Gi"}, default="1Gi"), [
            f'{POLICY}.validRange.min: Invalid value: "1Gi": default is less than min: 2Gi',
            f'{POLICY}.validRange.max: Invalid value: "9Gi": max is larger than capacity value: 8Gi',
            f'{POLICY}.validRange.step: Invalid value: "1Gi": value is not a multiple of a given step (3Gi) from (2Gi)',
            f'{POLICY}.validRange.step: Invalid value: "9Gi": value is not a multiple of a given step (3Gi) from (2Gi)',
        ]),
        (capacity(validValues=[None, "1"], default="1"), []),
        (capacity(validRange={"min": "1", "step": "0"}, default="1"), [f"{POLICY}.validRange.step: Invalid value: "]),
    ],
)  # fmt: skip
def test_slices(obj: Obj, expected: list[str]) -> None:
    same(created("resource.k8s.io/v1 resourceslices", obj)[1], expected)


def test_where_a_slice_is_stays() -> None:
    change = {"spec": {"driver": "e.example", "nodeName": "n2", "pool": {"name": "q"}}}
    found = updated("resource.k8s.io/v1 resourceslices", offer(), change)[1]
    assert sorted(text.partition(":")[0] for text in found) == ["spec.driver", "spec.nodeName", "spec.pool.name"]


DEVICE = {"driver": "d.example", "pool": "p", "device": "dev"}
RESULT = {"request": "one", **DEVICE}
CONSUMER = {"resource": "pods", "name": "p", "uid": "u"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"allocation": {"devices": {"results": [RESULT]}}, "reservedFor": [CONSUMER]}, []),
        ({"reservedFor": [CONSUMER]}, ["status.reservedFor: Forbidden: may not be specified when `allocated` is not"]),
        ({"allocation": {}, "reservedFor": [{"uid": "u"}, CONSUMER]}, [
            "status.reservedFor[0].resource: Required value", "status.reservedFor[0].name: Required value",
            'status.reservedFor[1]: Duplicate value: "u"',
        ]),
        ({"allocation": {"devices": {"results": [{"request": "two", "shareID": "X"}]}}}, [
            f'status.allocation.devices.results[0].request: Invalid value: "two": {REFERENCE}',
            "status.allocation.devices.results[0].driver: Required value",
            "status.allocation.devices.results[0].pool: Required value",
            'status.allocation.devices.results[0].device: Invalid value: "": a lowercase RFC 1123 label must',
            'status.allocation.devices.results[0].shareID: Invalid value: "X": error validating uid: invalid UUID leng',
        ]),
        ({"allocation": {"devices": {"config": [{"source": "Else", **opaque()}, {**opaque()}]}}}, [
            'status.allocation.devices.config[0].source: Unsupported value: "Else": supported values: "FromClaim", ',
            "status.allocation.devices.config[1].source: Required value",
        ]),
        ({"allocation": {"devices": {"results": [RESULT]}}, "devices": [
            {**DEVICE, "data": 3, "networkData": {"ips": ["10.0.0.1", "10.0.0.1/24"]}},
            {"driver": "d.example", "pool": "p", "device": "other"},
        ]}, [
            'status.devices[0].data: Invalid value: "<value omitted>": must be a valid JSON object',
            'status.devices[0].networkData.ips[0]: Invalid value: "10.0.0.1": must be a valid address in CIDR form, (e',
            "status.devices[1]: Invalid value: d.example/p/other: must be an allocated device in the claim",
        ]),
    ],
)  # fmt: skip
def test_statuses(status: Obj, expected: list[str]) -> None:
    old = claim(exactly())
    same([str(each) for each in validate_claim_status({**old, "status": status}, old)], expected)


def test_an_allocation_stays_and_a_claim_that_goes_takes_nobody_more() -> None:
    old = {**claim(exactly()), "status": {"allocation": {"devices": {"results": [RESULT]}}}}
    other = {"allocation": {"devices": {"results": [{**RESULT, "pool": "q"}]}}}
    found = [str(each) for each in validate_claim_status({**old, "status": other}, old)]
    assert [text.partition(":")[0] for text in found] == ["status.allocation"]
    going = {**old, "metadata": {**old["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    late = {**going, "status": {**old["status"], "reservedFor": [CONSUMER]}}
    assert [str(each) for each in validate_claim_status(late, going)] == [
        "status.reservedFor: Forbidden: new entries may not be added while `deallocationRequested` or "
        "`deletionTimestamp` are set"
    ]
