"""The official Python client: typed, dynamic, watch, streams, patches, leader election, informer."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward, stream

from tests.harness.nanokube import eventually

# The client leaves sockets and its discovery cache to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def api_client(kubeconfig: Path) -> client.ApiClient:
    return config.new_client_from_config(str(kubeconfig))


@pytest.fixture(scope="module")
def core(api_client: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(api_client)


def config_map(name: str, **data: str) -> client.V1ConfigMap:
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"made": "by-official"}), data=data)


def test_verbs(core: client.CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, config_map("settings", a="1"))
    assert made.metadata.uid and made.data == {"a": "1"}
    made.data["b"] = "2"
    replaced = core.replace_namespaced_config_map("settings", namespace, made)
    assert core.read_namespaced_config_map("settings", namespace).data == {"a": "1", "b": "2"}
    with pytest.raises(ApiException) as stale:
        core.replace_namespaced_config_map("settings", namespace, made)
    assert stale.value.status == 409 and replaced.metadata.resource_version > made.metadata.resource_version
    with pytest.raises(ApiException) as twice:
        core.create_namespaced_config_map(namespace, config_map("settings"))
    assert twice.value.status == 409 and '"reason":"AlreadyExists"' in twice.value.body
    core.delete_namespaced_config_map("settings", namespace)
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_config_map("settings", namespace)
    assert gone.value.status == 404


def test_pages(core: client.CoreV1Api, namespace: str) -> None:
    for number in range(5):
        core.create_namespaced_config_map(namespace, config_map(f"page-{number}"))
    names, token, left = [], "", []
    while True:
        page = core.list_namespaced_config_map(namespace, limit=2, _continue=token, label_selector="made=by-official")
        names += [each.metadata.name for each in page.items]
        left.append(page.metadata.remaining_item_count)
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"page-{number}" for number in range(5)]
    assert len(left) == 3 and left[-1] is None


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        pytest.param(
            "application/json-patch+json", [{"op": "add", "path": "/data/b", "value": "2"}], {"a": "1", "b": "2"}
        ),
        pytest.param("application/merge-patch+json", {"data": {"a": None, "c": "3"}}, {"c": "3"}),
        pytest.param("application/strategic-merge-patch+json", {"data": {"a": "4"}}, {"a": "4"}),
    ],
)
def test_patches(core: client.CoreV1Api, namespace: str, kind: str, body: Any, expected: dict[str, str]) -> None:
    core.create_namespaced_config_map(namespace, config_map("settings", a="1"))
    patched = core.patch_namespaced_config_map("settings", namespace, body, _content_type=kind)
    assert patched.data == expected


def test_server_side_apply(core: client.CoreV1Api, namespace: str) -> None:
    apply = {"_content_type": "application/apply-patch+yaml"}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned"}, "data": {"a": "1"}}
    core.patch_namespaced_config_map("owned", namespace, body, field_manager="one", **apply)
    body["data"] = {"a": "2"}
    with pytest.raises(ApiException) as conflict:
        core.patch_namespaced_config_map("owned", namespace, body, field_manager="two", **apply)
    assert conflict.value.status == 409 and 'conflict with \\"one\\": .data.a' in conflict.value.body
    forced = core.patch_namespaced_config_map("owned", namespace, body, field_manager="two", force=True, **apply)
    assert forced.data == {"a": "2"}
    assert [each.manager for each in forced.metadata.managed_fields if "f:data" in each.fields_v1] == ["two"]


def test_watch(core: client.CoreV1Api, namespace: str) -> None:
    version = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, config_map("seen"))
    core.patch_namespaced_config_map("seen", namespace, {"data": {"a": "1"}})
    core.delete_namespaced_config_map("seen", namespace)
    events = watch.Watch().stream(
        core.list_namespaced_config_map, namespace, resource_version=version, timeout_seconds=5, label_selector="made"
    )
    assert [next(events)["type"] for _ in range(3)] == ["ADDED", "MODIFIED", "DELETED"]


def test_logs_and_exec(core: client.CoreV1Api, talker: tuple[str, str]) -> None:
    namespace, name = talker
    raw = {"_preload_content": False}  # this version of the client prints bytes where it should decode them
    assert core.read_namespaced_pod_log(name, namespace, **raw).data == b"one\ntwo\n"
    assert core.read_namespaced_pod_log(name, namespace, tail_lines=1, **raw).data == b"two\n"
    command = ["sh", "-c", "read line; echo out-$line; echo err >&2; exit 3"]
    session = stream(
        core.connect_get_namespaced_pod_exec, name, namespace,
        command=command, stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
    )  # fmt: skip
    session.write_stdin("in\n")
    session.run_forever(timeout=10)
    assert (session.read_stdout(), session.read_stderr(), session.returncode) == ("out-in\n", "err\n", 3)


def test_port_forward(core: client.CoreV1Api, talker: tuple[str, str]) -> None:
    namespace, name = talker
    forward = portforward(core.connect_get_namespaced_pod_portforward, name, namespace, ports="8080")
    connection = forward.socket(8080)
    connection.settimeout(10)
    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
    received = b""
    while chunk := connection.recv(4096):
        received += chunk
    assert received.endswith(b"served\n")
    assert forward.error(8080) is None


def test_dynamic_client(api_client: client.ApiClient, namespace: str) -> None:
    found = dynamic.DynamicClient(api_client)
    deployments = found.resources.get(api_version="apps/v1", kind="Deployment")
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"made": "by-dynamic"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "busybox"}]},
            },
        },
    }
    made = deployments.create(body=body, namespace=namespace)
    assert made.spec.progressDeadlineSeconds == 600
    assert deployments.status.get(name="web", namespace=namespace).kind == "Deployment"
    scaled = deployments.scale.patch(
        name="web", namespace=namespace, body={"spec": {"replicas": 0}}, content_type="application/merge-patch+json"
    )
    assert scaled.kind == "Scale"
    assert [each.metadata.name for each in deployments.get(namespace=namespace, label_selector="made").items] == ["web"]
    applied = deployments.server_side_apply(
        body=body, name="web", namespace=namespace, field_manager="tests", force_conflicts=True
    )
    assert applied.metadata.name == "web"
    deployments.delete(name="web", namespace=namespace)
    with pytest.raises(dynamic.exceptions.NotFoundError):
        deployments.get(name="web", namespace=namespace)


def test_informer(api_client: client.ApiClient, core: client.CoreV1Api, namespace: str) -> None:
    """List, then watch from there, as every informer does: nothing is missed and nothing seen twice."""
    seen: list[tuple[str, str]] = []
    stop = threading.Event()
    listed = core.list_namespaced_config_map(namespace, label_selector="made=by-official")
    source = watch.Watch()

    def follow() -> None:
        for event in source.stream(
            core.list_namespaced_config_map, namespace,
            resource_version=listed.metadata.resource_version, label_selector="made=by-official", timeout_seconds=20,
        ):  # fmt: skip
            seen.append((event["type"], event["object"].metadata.name))
            if stop.is_set():
                return

    thread = threading.Thread(target=follow)
    thread.start()
    for number in range(10):
        core.create_namespaced_config_map(namespace, config_map(f"many-{number}"))
    stop.set()
    core.delete_collection_namespaced_config_map(namespace, label_selector="made=by-official")
    thread.join(25)
    assert not thread.is_alive()
    assert seen[:10] == [("ADDED", f"many-{number}") for number in range(10)]


CANDIDATE = """
import sys
from kubernetes import config
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

kubeconfig, namespace, name = sys.argv[1:]
config.load_kube_config(kubeconfig)
leaderelection.LeaderElection(electionconfig.Config(
    ConfigMapLock("leader", namespace, name), lease_duration=3, renew_deadline=2, retry_period=1,
    onstarted_leading=lambda: print("leading", flush=True), onstopped_leading=None,
)).run()
"""


def test_leader_election(kubeconfig: Path, core: client.CoreV1Api, namespace: str) -> None:
    """Two processes, one leader; the other takes over when it is killed."""

    def candidate(name: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", CANDIDATE, str(kubeconfig), namespace, name]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def record() -> str:
        try:
            found = core.read_namespaced_config_map("leader", namespace)
        except ApiException:
            return ""
        return str(found.metadata.annotations["control-plane.alpha.kubernetes.io/leader"])

    first = candidate("first")
    second: subprocess.Popen[str] | None = None
    try:
        eventually(lambda: '"first"' in record(), "a leader")
        before = record()
        second = candidate("second")
        eventually(lambda: record() != before, "a renewal")
        assert '"first"' in record()
        first.kill()
        eventually(lambda: '"second"' in record(), "the other to take over")
        assert second.stdout is not None and second.stdout.readline() == "leading\n"
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.communicate()
