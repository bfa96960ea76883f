"""Pod Security Standards: checks in upstream's words, versions, labels, and what a namespace's labels do."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.admission.pod_security.levels import Policy, Standard, checks_of, details, policy_of, violations
from apiserver.admission.pod_security.plugin import tell_existing
from machinery.errors import Forbidden, Invalid
from tests.unit.apiserver.admission.conftest import Cluster, a_pod

Obj = dict[str, Any]
PREFIX = "pod-security.kubernetes.io/"
SAFE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
SAFE_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def told(level: str, spec: Obj, version: str = "latest", meta: Obj | None = None) -> str:
    return details(violations(Standard(level, version), meta or {}, spec))


def one(**context: Any) -> Obj:
    return {"containers": [{"name": "a", "securityContext": context}]}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(one(), "", id="plain"),
        pytest.param(
            {"hostNetwork": True, "hostIPC": True}, "host namespaces (hostNetwork=true, hostIPC=true)", id="host"
        ),
        pytest.param(
            {"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}, 'hostPath volumes (volume "h")', id="host-path"
        ),
        pytest.param(
            {"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}]}, {"name": "b"}]},
            'hostPort (container "a" uses hostPorts 443, 80)',
            id="host-ports",
        ),
        pytest.param(
            {"containers": [{"name": n, "securityContext": {"privileged": True}} for n in ("a", "b")]},
            'privileged (containers "a", "b" must not set securityContext.privileged=true)',
            id="privileged",
        ),
        pytest.param(
            one(capabilities={"add": ["NET_ADMIN", "CHOWN"]}),
            'non-default capabilities (container "a" must not include "NET_ADMIN" in securityContext.capabilities.add)',
            id="capabilities",
        ),
        pytest.param(
            one(procMount="Unmasked"),
            'procMount (container "a" must not set securityContext.procMount to "Unmasked")',
            id="proc-mount",
        ),
        pytest.param(
            {"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}},
            'seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "x"; user may not be set)',
            id="selinux",
        ),
        pytest.param(
            {"securityContext": {"sysctls": [{"name": "kernel.x"}, {"name": "net.ipv4.tcp_rmem"}]}},
            "forbidden sysctls (kernel.x)",
            id="sysctls",
        ),
        pytest.param(
            {"securityContext": {"seccompProfile": {"type": "Unconfined"}}, **one()},
            'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")',
            id="seccomp",
        ),
        pytest.param(
            one(appArmorProfile={"type": "Unconfined"}),
            'forbidden AppArmor profile (container "a" must not set AppArmor profile type to "Unconfined")',
            id="apparmor",
        ),
        pytest.param(
            {"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}}]},
            'probe or lifecycle host (container "a" uses probe or lifecycle host "h")',
            id="probe-host",
        ),
        pytest.param(
            one(windowsOptions={"hostProcess": True}),
            'hostProcess (container "a" must not set securityContext.windowsOptions.hostProcess=true)',
            id="host-process",
        ),
    ],
)
def test_baseline(spec: Obj, expected: str) -> None:
    assert told("baseline", spec) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"securityContext": SAFE_POD, **one(**SAFE)}, "", id="safe"),
        pytest.param(
            {"securityContext": SAFE_POD, **one(**{**SAFE, "runAsUser": 0})},
            'runAsUser=0 (container "a" must not set runAsUser=0)',
            id="root",
        ),
        pytest.param(
            {"securityContext": {**SAFE_POD, "runAsNonRoot": False}, **one(**SAFE)},
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
            id="may-be-root",
        ),
        pytest.param(
            {"securityContext": SAFE_POD, "volumes": [{"name": "v", "nfs": {"server": "s"}}], **one(**SAFE)},
            'restricted volume types (volume "v" uses restricted volume type "nfs")',
            id="volume",
        ),
        pytest.param(
            {"securityContext": SAFE_POD, **one(allowPrivilegeEscalation=False, capabilities={"add": ["SYS_ADMIN"]})},
            'unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]; '
            'container "a" must not include "SYS_ADMIN" in securityContext.capabilities.add)',
            id="capabilities",
        ),
        pytest.param(
            {"securityContext": {"runAsNonRoot": True}, **one(**SAFE)},
            'seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
            '"Localhost")',
            id="no-seccomp",
        ),
        pytest.param(
            {"securityContext": {"seccompProfile": SAFE_POD["seccompProfile"]}, "hostUsers": False, **one(**SAFE)},
            "",
            id="user-namespace",
        ),
    ],
)
def test_restricted(spec: Obj, expected: str) -> None:
    assert told("restricted", spec) == expected


@pytest.mark.parametrize(
    ("version", "spec", "allowed"),
    [
        pytest.param("v1.33", {"containers": [{"name": "a", "livenessProbe": {"tcpSocket": {"host": "h"}}}]}, True),
        pytest.param("v1.34", {"containers": [{"name": "a", "livenessProbe": {"tcpSocket": {"host": "h"}}}]}, False),
        pytest.param("v1.30", {"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}}, False),
        pytest.param("v1.31", {"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}}, True),
        pytest.param("v1.18", {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, True),
        pytest.param("v1.99", {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, False),
    ],
)
def test_rules_change_with_versions(version: str, spec: Obj, allowed: bool) -> None:
    assert (told("baseline", spec, version) == "") is allowed


def test_restricted_checks_at_least_as_much_as_baseline() -> None:
    assert len(checks_of(Standard("restricted", "latest"))) > len(checks_of(Standard("baseline", "latest")))
    assert checks_of(Standard("privileged", "v1.0")) == ()


@pytest.mark.parametrize(
    ("labels", "policy", "texts"),
    [
        pytest.param({}, Policy(), [], id="none"),
        pytest.param(
            {"enforce": "baseline", "enforce-version": "v1.30"},
            Policy(Standard("baseline", "v1.30"), Standard(), Standard("baseline", "v1.30")),
            [],
            id="enforce-warns-too",
        ),
        pytest.param(
            {"enforce": "baseline", "warn": "privileged"}, Policy(Standard("baseline")), [], id="but-not-if-told"
        ),
        pytest.param(
            {"enforce": "strict", "audit": "x", "warn-version": "1.2"},
            Policy(Standard("restricted")),
            [
                f'metadata.labels[{PREFIX}enforce]: Invalid value: "strict": must be one of privileged, baseline, '
                "restricted",
                f'metadata.labels[{PREFIX}audit]: Invalid value: "x": must be one of privileged, baseline, restricted',
                f'metadata.labels[{PREFIX}warn-version]: Invalid value: "1.2": must be "latest" or "v1.x"',
            ],
            id="wrong",
        ),
    ],
)
def test_labels(labels: dict[str, str], policy: Policy, texts: list[str]) -> None:
    found, wrong = policy_of({PREFIX + key: value for key, value in labels.items()})
    assert found == policy
    assert [str(each) for each in wrong] == texts


async def test_a_namespace_enforces_and_warns(cluster: Cluster) -> None:
    await cluster.create("pods", a_pod("early", hostPID=True))
    await cluster.patch("namespaces", "team", {"metadata": {"labels": {PREFIX + "enforce": "baseline"}}}, "")
    assert cluster.warnings == [
        'existing pods in namespace "team" violate the new PodSecurity enforce level "baseline:latest"',
        "early: host namespaces",
    ]
    with pytest.raises(Forbidden) as caught:
        await cluster.create("pods", a_pod("late", hostPID=True))
    assert caught.value.message == (
        'pods "late" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostPID=true)'
    )
    template = {"metadata": {"labels": {"a": "b"}}, "spec": a_pod("x", hostPID=True)["spec"]}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    await cluster.create("deployments", {"metadata": {"name": "web"}, "spec": spec}, group="apps")
    assert cluster.warnings == ['would violate PodSecurity "baseline:latest": host namespaces (hostPID=true)']
    with pytest.raises(Invalid):
        await cluster.patch("namespaces", "team", {"metadata": {"labels": {PREFIX + "warn": "none"}}}, "")
    await cluster.patch("pods", "early", {"metadata": {"labels": {"still": "changeable"}}})


def test_equal_violations_are_told_together() -> None:
    pods = [{"metadata": {"name": name}, "spec": {"hostPID": True}} for name in ("b", "a", "c")]
    assert tell_existing("n", Standard("baseline", "latest"), pods, 5) == [
        "new PodSecurity enforce level only checked against the first 3 of 5 existing pods",
        'existing pods in namespace "n" violate the new PodSecurity enforce level "baseline:latest"',
        "a (and 2 other pods): host namespaces",
    ]
