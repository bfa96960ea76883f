"""sig-node: what a container finds when it starts: environment, arguments, identity, files; and what is told of its end."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.conformance.objects import container, pod
from tests.harness.api import Api, ApiError, Obj
from tests.harness.nanokube import eventually

NODE = "[sig-node] "
USER = NODE + "Security Context "


def field(path: str) -> Obj:
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


def resource(name: str, **more: str) -> Obj:
    return {"valueFrom": {"resourceFieldRef": {"resource": name, **more}}}


def env(**values: Any) -> list[Obj]:
    return [{"name": key, **(value if isinstance(value, dict) else {"value": value})} for key, value in values.items()]


def has(*lines: str) -> str:
    """A pattern for output that has all these lines. (A shell would drop variables that are no names for it.)"""
    return "(?sm)" + "".join(f"(?=.*^{re.escape(line)}$)" for line in lines) + ".*"


def case(names: list[str], script: str, wanted: str, spec: Obj | None = None, **main: Any) -> Any:
    marks = pytest.mark.conformance(*(NODE + name for name in names))
    ident = re.sub(r" \[.*", "", names[0])
    return pytest.param(script, wanted, main, spec or {}, marks=marks, id=ident)


CM, SECRET = {"name": "settings"}, {"name": "hidden"}
QUANTITIES = {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}
CONF = "[NodeConformance] [Conformance]"
CASES = [
    case([f"ConfigMap should be consumable via environment variable {CONF}"], "echo $A", "1",
         env=env(A={"valueFrom": {"configMapKeyRef": {**CM, "key": "data-1"}}})),
    case([f"ConfigMap should be consumable via the environment {CONF}"], "", has("data-1=1", "data-2=2", "p-data-1=1"), command=["env"],
         envFrom=[{"configMapRef": CM}, {"prefix": "p-", "configMapRef": CM}]),
    case(["ConfigMap should be consumable as environment variable names with various prefixes [Conformance]"],
         "", has("#data-1=1", "#data-2=2", "p-data-1=1", "p-data-2=2"), command=["env"],
         envFrom=[{"prefix": "p-", "configMapRef": CM}, {"prefix": "#", "configMapRef": CM}]),
    case([f"Secrets should be consumable from pods in env vars {CONF}"], "echo $A", "value-1",
         env=env(A={"valueFrom": {"secretKeyRef": {**SECRET, "key": "data-1"}}})),
    case([f"Secrets should be consumable via the environment {CONF}"], "", has("data-1=value-1"), command=["env"], envFrom=[{"secretRef": SECRET}]),
    case(["Secrets should be consumable as environment variable names variable names with various prefixes [Conformance]"],
         "", has("#data-1=value-1", "p-data-1=value-1"), command=["env"],
         envFrom=[{"prefix": "p-", "secretRef": SECRET}, {"prefix": "#", "secretRef": SECRET}]),
    case([f"Downward API should provide pod name, namespace and IP address as env vars {CONF}"], "echo $N $S $I",
         r"probe t-\w+ 10\.[\d.]+", env=env(N=field("metadata.name"), S=field("metadata.namespace"), I=field("status.podIP"))),
    case([f"Downward API should provide host IP as an env var {CONF}"], "echo $A", r"10\.[\d.]+", env=env(A=field("status.hostIP"))),
    case([f"Downward API should provide hostIPs as an env var {CONF}"], "echo $A", r"10\.[\d.]+", env=env(A=field("status.hostIPs"))),
    case([f"Downward API should provide pod UID as env vars {CONF}"], "echo $A", r"[0-9a-f-]{36}", env=env(A=field("metadata.uid"))),
    case([f"Downward API should provide container's limits.cpu/memory and requests.cpu/memory as env vars {CONF}"],
         "echo $A $B $C $D", "2 1 67108864 33554432", resources=QUANTITIES,
         env=env(A=resource("limits.cpu"), B=resource("requests.cpu"), C=resource("limits.memory"), D=resource("requests.memory"))),
    case([f"Downward API should provide default limits.cpu/memory from node allocatable {CONF}"], "echo $A $B", r"[1-9]\d* [1-9]\d+",
         env=env(A=resource("limits.cpu"), B=resource("limits.memory"))),
    case([f"Variable Expansion should allow composing env vars into new env vars {CONF}"], "echo $C", "one;;two",
         env=env(A="one", B="two", C="$(A);;$(B)")),
    case([f"Variable Expansion should allow substituting values in a container's command {CONF}"], "", "test-value;$(A)",
         env=env(A="test-value"), command=["echo", "$(A);$$(A)"]),
    case([f"Variable Expansion should allow substituting values in a container's args {CONF}"], "", "test-value;$(NONE)",
         env=env(A="test-value"), command=["echo"], args=["$(A);$(NONE)"]),
    case([f"Containers should be able to override the image's default command (container entrypoint) {CONF}",
          f"Containers should be able to override the image's default arguments (container cmd) {CONF}",
          f"Containers should be able to override the image's default command and arguments {CONF}"],
         "", "override arguments", command=["echo", "override"], args=["arguments"]),
    case([f"Kubelet when scheduling a busybox command in a pod should print the output to logs {CONF}"], "echo Hello World", "Hello World"),
    case([f"Kubelet when scheduling an agnhost Pod with hostAliases should write entries to /etc/hosts {CONF}"],
         "grep foo /etc/hosts", r"123\.45\.67\.89\tfoo\tbar", spec={"hostAliases": [{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}]}),
    case([f"Kubelet when scheduling a read only busybox container should not write to root filesystem [LinuxOnly] {CONF}"],
         "sh -c 'echo test > /file' 2>/dev/null || echo refused", "refused", securityContext={"readOnlyRootFilesystem": True}),
    case([f"Security Context When creating a pod with readOnlyRootFilesystem should run the container with writable rootfs when readOnlyRootFilesystem=false {CONF}"],
         "echo test > /file && cat /file", "test", securityContext={"readOnlyRootFilesystem": False}),
    case([f"Security Context When creating a container with runAsUser should run the container with uid 65534 [LinuxOnly] {CONF}"],
         "id -u", "65534", securityContext={"runAsUser": 65534}),
    case([f"Security Context When creating a pod with privileged should run the container as unprivileged when false [LinuxOnly] {CONF}"],
         "ip link add dummy0 type dummy 2>/dev/null || echo refused", "refused", securityContext={"privileged": False}),
    case([f"Security Context when creating containers with AllowPrivilegeEscalation should not allow privilege escalation when false [LinuxOnly] {CONF}"],
         "grep NoNewPrivs /proc/self/status", r"NoNewPrivs:\s+1", securityContext={"allowPrivilegeEscalation": False, "runAsUser": 1000}),
    case(["Security Context should support container.SecurityContext.RunAsUser And container.SecurityContext.RunAsGroup [LinuxOnly] [Conformance]"],
         "id -u; id -g", "1001\n2002", securityContext={"runAsUser": 1001, "runAsGroup": 2002}),
    case(["Security Context should support pod.Spec.SecurityContext.RunAsUser And pod.Spec.SecurityContext.RunAsGroup [LinuxOnly] [Conformance]"],
         "id -u; id -g", "1001\n2002", spec={"securityContext": {"runAsUser": 1001, "runAsGroup": 2002}}),
    case(["Sysctls [LinuxOnly] [NodeConformance] should support sysctls [Environment:NotInUserNS] [Conformance]"],
         "cat /proc/sys/kernel/shm_rmid_forced", "1",
         spec={"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}}),
]  # fmt: skip


def ended(api: Api, namespace: str, name: str = "probe") -> Obj:
    """The pod, once it has ended."""
    pods = api.of("v1", "pods", namespace)
    return eventually(
        lambda: found if (found := pods.get(name))["status"]["phase"] in ("Succeeded", "Failed") else {},
        f"{name} to end",
    )


@pytest.mark.parametrize(("script", "wanted", "main", "spec"), CASES)
def test_what_a_container_finds(api: Api, namespace: str, script: str, wanted: str, main: Obj, spec: Obj) -> None:
    settings = {"metadata": {"name": "settings"}, "data": {"data-1": "1", "data-2": "2"}}
    api.of("v1", "configmaps", namespace).create(settings)
    hidden = {"metadata": {"name": "hidden"}, "stringData": {"data-1": "value-1"}}
    api.of("v1", "secrets", namespace).create(hidden)
    made = container(**{"command": ["sh", "-c", script], **main})
    api.of("v1", "pods", namespace).create(pod("probe", main=made, restartPolicy="Never", **spec))
    ended(api, namespace)
    printed = api.raw("GET", f"/api/v1/namespaces/{namespace}/pods/probe/log").body.decode().strip()
    assert re.fullmatch(wanted, printed) or printed == wanted, printed


BLACKBOX = NODE + "Container Runtime blackbox test on terminated container should report termination message "
MESSAGES = [
    ("if TerminationMessagePath is set as non-root user and at a non-default path", "echo -n DONE > /dev/custom", "DONE",
     {"terminationMessagePath": "/dev/custom", "securityContext": {"runAsUser": 1000}}),
    ("from log output if TerminationMessagePolicy FallbackToLogsOnError is set", "echo -n DONE; exit 1", "DONE",
     {"terminationMessagePolicy": "FallbackToLogsOnError"}),
    ("as empty when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set", "echo -n DONE", "",
     {"terminationMessagePolicy": "FallbackToLogsOnError"}),
    ("from file when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set", "echo -n OK > /dev/termination-log; echo DONE", "OK",
     {"terminationMessagePolicy": "FallbackToLogsOnError"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "message", "main"),
    [
        pytest.param(script, message, main, marks=pytest.mark.conformance(f"{BLACKBOX}{name} {CONF}"), id=name[:30])
        for name, script, message, main in MESSAGES
    ],
)
def test_termination_message(api: Api, namespace: str, script: str, message: str, main: Obj) -> None:
    made = container(["sh", "-c", script], **main)
    api.of("v1", "pods", namespace).create(pod("probe", main=made, restartPolicy="Never"))
    (status,) = ended(api, namespace)["status"]["containerStatuses"]
    assert status["state"]["terminated"].get("message", "") == message


@pytest.mark.conformance(
    NODE
    + f"Kubelet when scheduling a busybox command that always fails in a pod should have an terminated reason {CONF}"
)
def test_a_failed_container_has_a_reason(api: Api, namespace: str) -> None:
    made = container(["false"])
    api.of("v1", "pods", namespace).create(pod("probe", main=made, restartPolicy="Never"))
    (status,) = ended(api, namespace)["status"]["containerStatuses"]
    assert (status["state"]["terminated"]["exitCode"], status["state"]["terminated"]["reason"]) == (1, "Error")


@pytest.mark.conformance(NODE + "Sysctls [LinuxOnly] [NodeConformance] should reject invalid sysctls [Conformance]")
def test_invalid_sysctls_are_refused(api: Api, namespace: str) -> None:
    names = ("foo-", "kernel.shmmax", "safe-and-unsafe", "bar..")
    sysctls = [{"name": name, "value": "100"} for name in names]
    with pytest.raises(ApiError) as refused:
        api.of("v1", "pods", namespace).create(pod("probe", securityContext={"sysctls": sysctls}))
    assert refused.value.code == 422
    told = [each["field"] for each in refused.value.status["details"]["causes"]]
    assert told == [f"spec.securityContext.sysctls[{index}].name" for index in (0, 3)]


@pytest.mark.conformance(NODE + f"Pods should get a host IP {CONF}")
def test_host_ip(api: Api, namespace: str) -> None:
    pods = api.of("v1", "pods", namespace)
    pods.create(pod("probe"))
    host = eventually(lambda: pods.get("probe")["status"].get("hostIP"), "a host IP")
    addresses = api.of("v1", "nodes").get(pods.get("probe")["spec"]["nodeName"])["status"]["addresses"]
    assert host in [each["address"] for each in addresses if each["type"] == "InternalIP"]
