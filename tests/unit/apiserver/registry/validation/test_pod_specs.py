"""Rules of pod specs that clients seldom meet, one row each."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.registry.validation.pod import validate_pod_spec

Obj = dict[str, Any]
MAIN = "spec.containers[0]"
CONTEXT = f"{MAIN}.securityContext"
WINDOWS = "Forbidden: cannot be set for a windows pod"


def pod(container: Obj | None = None, **spec: Any) -> Obj:
    main = {"name": "main", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}
    return {"containers": [{**main, **(container or {})}], "restartPolicy": "Always", "dnsPolicy": "Default", **spec}


def secure(**security: Any) -> Obj:
    return pod({"securityContext": security})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (pod(), []),
        (
            pod({"lifecycle": {"preStop": {}}}),
            [f"{MAIN}.lifecycle.preStop: Required value: must specify a handler type"],
        ),
        (
            secure(procMount="X"),
            [f'{CONTEXT}.procMount: Unsupported value: "X": supported values: "Default", "Unmasked"'],
        ),
        (secure(appArmorProfile={"type": "RuntimeDefault"}), []),
        (
            secure(appArmorProfile={}),
            [f"{CONTEXT}.appArmorProfile.type: Required value: type is required"],
        ),
        (
            secure(appArmorProfile={"type": "Localhost"}),
            [f"{CONTEXT}.appArmorProfile.localhostProfile: Required value: must be set when AppArmor"],
        ),
        (
            secure(appArmorProfile={"type": "Unconfined", "localhostProfile": "p"}),
            [f'{CONTEXT}.appArmorProfile.localhostProfile: Invalid value: "p": can only be set when'],
        ),
        (
            secure(privileged=True, allowPrivilegeEscalation=False, capabilities={"add": ["X"]}),
            [f'{CONTEXT}: Invalid value: {{"Capabilities":{{"Add":["X"],"Drop":null}},"Privileged":true,'],
        ),
        (
            pod(securityContext={"seLinuxChangePolicy": "X", "fsGroup": -1}),
            [
                "spec.securityContext.fsGroup: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                'spec.securityContext.seLinuxChangePolicy: Unsupported value: "X": supported values: ',
            ],
        ),
        (
            pod(
                {"securityContext": {"capabilities": {"add": ["X"]}}},
                os={"name": "windows"},
                hostPID=True,
                hostIPC=False,
                hostUsers=True,
                securityContext={"runAsUser": 1},
            ),
            [
                f"spec.securityContext.runAsUser: {WINDOWS}",
                f"spec.hostUsers: {WINDOWS}",
                f"spec.hostPID: {WINDOWS}",
                f"{CONTEXT}.capabilities: {WINDOWS}",
            ],
        ),
        (
            pod(os={"name": "linux"}, securityContext={"windowsOptions": {}}),
            ["spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"],
        ),
        (
            pod({"resources": {"limits": {"hugepages-2Mi": "2Mi"}, "requests": {"hugepages-2Mi": "2Mi"}}}),
            [f"{MAIN}.resources: Forbidden: HugePages require cpu or memory"],
        ),
        (
            pod({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2", "example.com/a": "1"}}}),
            [
                f'{MAIN}.resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
                f"{MAIN}.resources.limits: Required value: Limit must be set for non overcommitable resources",
            ],
        ),
        (pod(resourceClaims=[{"name": "a", "resourceClaimName": "b"}]), []),
        (
            pod(resourceClaims=[{"name": "A", "resourceClaimName": "x"}, {"name": "b"}]),
            [
                'spec.resourceClaims[0].name: Invalid value: "A": ',
                'spec.resourceClaims[1]: Invalid value: {"Name":"b","ResourceClaimName":null,',
            ],
        ),
        (
            pod(resourceClaims=[{"name": "a", "resourceClaimName": "x", "resourceClaimTemplateName": "y"}]),
            ['spec.resourceClaims[0]: Invalid value: {"Name":"a","ResourceClaimName":"x",'],
        ),
        (
            pod(resourceClaims=[{"name": "a", "resourceClaimName": "x"}] * 2),
            ['spec.resourceClaims[1].name: Duplicate value: "a"'],
        ),
    ],
)
def test_pod_specs(spec: Obj, expected: list[str]) -> None:
    texts = [f"{each.field}: {each.text}" for each in validate_pod_spec(spec, "spec")]
    assert len(texts) == len(expected), texts
    assert [text[: len(head)] for text, head in zip(texts, expected, strict=True)] == expected
