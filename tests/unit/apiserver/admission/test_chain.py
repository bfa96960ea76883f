"""The default admission plugins on a registry with the memory store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from api.resources import RESOURCES
from apiserver.admission.chain import default_plugins
from apiserver.admission.default_class import choose_default
from apiserver.admission.default_toleration_seconds import missing_tolerations
from apiserver.admission.node_restriction import forbidden_label
from apiserver.admission.service_account import TOKEN_PATH, ServiceAccount, mount_token
from apiserver.auth.user import UserInfo
from apiserver.registry.store import DeleteOptions, Registry, RequestContext
from apiserver.storage.memory import MemoryStore
from machinery.clock import RealClock
from machinery.errors import Forbidden, NotFound

CTX = RequestContext(UserInfo("tester"))
Obj = dict[str, Any]


def load(raw: bytes) -> Obj:
    obj: Obj = msgspec.json.decode(raw)
    return obj


def pod(name: str = "web", **spec: Any) -> Obj:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "nginx"}], **spec}}


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    registry = Registry(MemoryStore(), RealClock(), RESOURCES)
    registry.admission.extend(default_plugins(registry))
    task = asyncio.create_task(registry.run())
    await registry.wait_ready()
    for name in ("default", "team"):
        await registry.resource("", "v1", "namespaces").create(CTX, "", {"metadata": {"name": name}})
        account = {"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "pull"}]}
        await registry.resource("", "v1", "serviceaccounts").create(CTX, name, account)
    yield registry
    task.cancel()
    await asyncio.wait((task,))


async def test_nothing_is_created_in_a_missing_namespace(registry: Registry) -> None:
    maps = registry.resource("", "v1", "configmaps")
    with pytest.raises(NotFound, match='namespaces "nope" not found'):
        await maps.create(CTX, "nope", {"metadata": {"name": "web"}})
    assert await maps.create(CTX, "team", {"metadata": {"name": "web"}})


async def test_nothing_is_created_in_a_terminating_namespace(registry: Registry) -> None:
    namespaces, maps = registry.resource("", "v1", "namespaces"), registry.resource("", "v1", "configmaps")
    await namespaces.create(CTX, "", {"metadata": {"name": "going"}, "spec": {"finalizers": ["kubernetes"]}})
    result = await namespaces.delete(CTX, "", "going", DeleteOptions())
    assert not result.deleted and load(result.raw)["status"]["phase"] == "Terminating"
    await namespaces.sync()
    with pytest.raises(Forbidden) as caught:
        await maps.create(CTX, "going", {"metadata": {"generateName": "late-"}})
    assert caught.value.message == (
        'configmaps "late-" is forbidden: unable to create new content in namespace going because it is being '
        "terminated"
    )
    assert caught.value.causes == [
        {
            "reason": "NamespaceTerminating",
            "message": "namespace going is being terminated",
            "field": "metadata.namespace",
        }
    ]


async def test_the_first_namespaces_stay(registry: Registry) -> None:
    with pytest.raises(Forbidden, match='namespaces "default" is forbidden: this namespace may not be deleted'):
        await registry.resource("", "v1", "namespaces").delete(CTX, "", "default", DeleteOptions())


async def test_a_pod_gets_account_priority_and_tolerations(registry: Registry) -> None:
    made = load(await registry.resource("", "v1", "pods").create(CTX, "team", pod()))
    spec = made["spec"]
    assert spec["serviceAccountName"] == "default" and spec["imagePullSecrets"] == [{"name": "pull"}]
    assert spec["priority"] == 0 and spec["preemptionPolicy"] == "PreemptLowerPriority"
    assert [(each["key"], each["tolerationSeconds"]) for each in spec["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 300),
        ("node.kubernetes.io/unreachable", 300),
    ]


async def test_priority_comes_from_the_class(registry: Registry) -> None:
    classes = registry.resource("scheduling.k8s.io", "v1", "priorityclasses")
    await classes.create(CTX, "", {"metadata": {"name": "high"}, "value": 1000})
    made = load(await registry.resource("", "v1", "pods").create(CTX, "team", pod(priorityClassName="high")))
    assert made["spec"]["priority"] == 1000
    with pytest.raises(Forbidden, match="no PriorityClass with name nope was found"):
        await registry.resource("", "v1", "pods").create(CTX, "team", pod("b", priorityClassName="nope"))
    with pytest.raises(Forbidden, match=r"the integer value of priority \(7\) must not be provided"):
        await registry.resource("", "v1", "pods").create(CTX, "team", pod("c", priority=7))


async def test_the_default_class_applies_to_pods_without_one(registry: Registry) -> None:
    classes = registry.resource("scheduling.k8s.io", "v1", "priorityclasses")
    await classes.create(CTX, "", {"metadata": {"name": "usual"}, "value": 5, "globalDefault": True})
    await classes.sync()
    made = load(await registry.resource("", "v1", "pods").create(CTX, "team", pod()))
    assert made["spec"]["priority"] == 5 and made["spec"]["priorityClassName"] == "usual"
    with pytest.raises(Forbidden, match="PriorityClass usual is already marked as default"):
        await classes.create(CTX, "", {"metadata": {"name": "other"}, "value": 5, "globalDefault": True})


async def test_the_account_must_exist(registry: Registry) -> None:
    with pytest.raises(Forbidden, match='error looking up service account team/robot: serviceaccount "robot" not'):
        await registry.resource("", "v1", "pods").create(CTX, "team", pod(serviceAccountName="robot"))


async def test_a_new_node_is_tainted(registry: Registry) -> None:
    made = load(await registry.resource("", "v1", "nodes").create(CTX, "", {"metadata": {"name": "n1"}}))
    assert made["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        pytest.param([], ["not-ready", "unreachable"], id="none"),
        pytest.param([{"operator": "Exists"}], [], id="everything tolerated"),
        pytest.param([{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}], ["unreachable"], id="one"),
        pytest.param(
            [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}], ["not-ready", "unreachable"], id="other"
        ),
    ],
)
def test_missing_tolerations(given: list[Obj], keys: list[str]) -> None:
    assert [each["key"].partition("/")[2] for each in missing_tolerations(given)] == keys


NODE = RequestContext(UserInfo("system:node:n1", ("system:nodes",)))
MERGE = "application/merge-patch+json"


@pytest.mark.parametrize(
    ("label", "refused"),
    [
        pytest.param("app", False, id="plain"),
        pytest.param("example.com/x", False, id="somebody's"),
        pytest.param("kubernetes.io/hostname", False, id="known"),
        pytest.param("node.kubernetes.io/anything", False, id="kubelet domain"),
        pytest.param("node-role.kubernetes.io/control-plane", True, id="role"),
        pytest.param("x.node-restriction.kubernetes.io/y", True, id="reserved"),
        pytest.param("foo.k8s.io/bar", True, id="k8s.io"),
    ],
)
def test_labels_of_a_kubelet(label: str, refused: bool) -> None:
    assert forbidden_label(label) is refused


async def test_a_kubelet_writes_its_own_node_only(registry: Registry) -> None:
    nodes = registry.resource("", "v1", "nodes")
    with pytest.raises(Forbidden, match='node "n1" is not allowed to modify node "n2"'):
        await nodes.create(NODE, "", {"metadata": {"name": "n2"}})
    await nodes.create(NODE, "", {"metadata": {"name": "n1", "labels": {"kubernetes.io/os": "linux"}}})
    await nodes.patch(NODE, "", "n1", MERGE, b'{"metadata":{"labels":{"a":"b"}}}')
    with pytest.raises(Forbidden, match=r"is not allowed to modify labels: node-role\.kubernetes\.io/x"):
        await nodes.patch(NODE, "", "n1", MERGE, b'{"metadata":{"labels":{"node-role.kubernetes.io/x":""}}}')
    with pytest.raises(Forbidden, match='node "n1" is not allowed to modify taints'):
        await nodes.patch(NODE, "", "n1", MERGE, b'{"spec":{"taints":[]}}')


async def test_a_kubelet_touches_its_own_pods_only(registry: Registry) -> None:
    pods = registry.resource("", "v1", "pods")
    await pods.create(CTX, "team", pod("near", nodeName="n1"))
    await pods.create(CTX, "team", pod("far", nodeName="n2"))
    status = b'{"status":{"phase":"Running"}}'
    assert load(await pods.patch(NODE, "team", "near", MERGE, status, subresource="status"))["status"]["phase"]
    with pytest.raises(Forbidden, match=r'node "n1" can only update pod status for pods with spec\.nodeName'):
        await pods.patch(NODE, "team", "far", MERGE, status, subresource="status")
    with pytest.raises(Forbidden, match=r'node "n1" can only delete pods with spec\.nodeName set to itself'):
        await pods.delete(NODE, "team", "far", DeleteOptions())
    assert (await pods.delete(NODE, "team", "near", DeleteOptions(grace_period_seconds=0))).deleted
    with pytest.raises(Forbidden, match='node "n1" can only create mirror pods'):
        await pods.create(NODE, "team", pod("mine", nodeName="n1"))


async def test_a_kubelet_renews_its_own_lease_only(registry: Registry) -> None:
    leases = registry.resource("coordination.k8s.io", "v1", "leases")
    await registry.resource("", "v1", "namespaces").create(CTX, "", {"metadata": {"name": "kube-node-lease"}})
    assert await leases.create(NODE, "kube-node-lease", {"metadata": {"name": "n1"}, "spec": {}})
    with pytest.raises(Forbidden, match="can only access node lease with the same name as the requesting node"):
        await leases.create(NODE, "kube-node-lease", {"metadata": {"name": "n2"}, "spec": {}})
    with pytest.raises(Forbidden, match='can only access leases in the "kube-node-lease" system namespace'):
        await leases.create(NODE, "team", {"metadata": {"name": "n1"}, "spec": {}})


def test_tokens_are_mounted_where_nothing_else_is() -> None:
    taken = {"name": "b", "volumeMounts": [{"name": "own", "mountPath": TOKEN_PATH}]}
    spec: Obj = {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, taken]}
    mount_token(spec, "kube-api-access-x")
    mount = {"name": "kube-api-access-x", "readOnly": True, "mountPath": TOKEN_PATH}
    assert spec["initContainers"] == [{"name": "i", "volumeMounts": [mount]}]
    assert spec["containers"] == [{"name": "a", "volumeMounts": [mount]}, taken]
    assert [volume["name"] for volume in spec["volumes"]] == ["kube-api-access-x"]


@pytest.mark.parametrize(
    ("account", "own", "expected"),
    [
        pytest.param(None, None, True, id="default"),
        pytest.param(False, None, False, id="the account says no"),
        pytest.param(False, True, True, id="the pod says yes"),
        pytest.param(None, False, False, id="the pod says no"),
    ],
)
async def test_who_wants_a_token(registry: Registry, account: bool | None, own: bool | None, expected: bool) -> None:
    registry.admission[:] = [ServiceAccount(registry, token_volumes=True)]
    robot: Obj = {"metadata": {"name": "robot"}}
    if account is not None:
        robot["automountServiceAccountToken"] = account
    await registry.resource("", "v1", "serviceaccounts").create(CTX, "team", robot)
    spec: Obj = {"serviceAccountName": "robot"} | ({} if own is None else {"automountServiceAccountToken": own})
    made = load(await registry.resource("", "v1", "pods").create(CTX, "team", pod(**spec)))
    assert bool(made["spec"].get("volumes")) is expected


def storage_class(name: str, created: str = "2026-01-01T00:00:00Z", default: str = "true") -> Obj:
    mark = {"storageclass.kubernetes.io/is-default-class": default}
    return {"metadata": {"name": name, "creationTimestamp": created, "annotations": mark}}


@pytest.mark.parametrize(
    ("classes", "chosen"),
    [
        pytest.param([], "", id="none"),
        pytest.param([storage_class("a", default="false")], "", id="not marked"),
        pytest.param([storage_class("b"), storage_class("a")], "a", id="by name"),
        pytest.param([storage_class("a"), storage_class("b", "2026-02-01T00:00:00Z")], "b", id="the newest"),
    ],
)
def test_choosing_a_default_class(classes: list[Obj], chosen: str) -> None:
    assert choose_default(classes, ("storageclass.kubernetes.io/is-default-class",)) == chosen


async def test_claims_and_ingresses_get_the_default_class(registry: Registry) -> None:
    classes = registry.resource("storage.k8s.io", "v1", "storageclasses")
    await classes.create(CTX, "", {**storage_class("fast"), "provisioner": "a.b/c"})
    mark = {"ingressclass.kubernetes.io/is-default-class": "true"}
    ingress_class = {"metadata": {"name": "web", "annotations": mark}, "spec": {"controller": "a.b/c"}}
    await registry.resource("networking.k8s.io", "v1", "ingressclasses").create(CTX, "", ingress_class)
    await classes.sync()
    claims = registry.resource("", "v1", "persistentvolumeclaims")
    wants = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    made = load(await claims.create(CTX, "team", {"metadata": {"name": "a"}, "spec": dict(wants)}))
    assert made["spec"]["storageClassName"] == "fast"
    chosen = {"metadata": {"name": "b"}, "spec": {**wants, "storageClassName": ""}}
    assert load(await claims.create(CTX, "team", chosen))["spec"]["storageClassName"] == ""
    backend = {"defaultBackend": {"service": {"name": "w", "port": {"number": 80}}}}
    ingresses = registry.resource("networking.k8s.io", "v1", "ingresses")
    made = load(await ingresses.create(CTX, "team", {"metadata": {"name": "a"}, "spec": backend}))
    assert made["spec"]["ingressClassName"] == "web"


async def test_runtime_classes_shape_their_pods(registry: Registry) -> None:
    classes, pods = registry.resource("node.k8s.io", "v1", "runtimeclasses"), registry.resource("", "v1", "pods")
    found = {
        "metadata": {"name": "vm"},
        "handler": "h",
        "overhead": {"podFixed": {"cpu": "10m"}},
        "scheduling": {"nodeSelector": {"a": "b"}},
    }
    await classes.create(CTX, "", found)
    made = load(await pods.create(CTX, "team", pod(runtimeClassName="vm")))["spec"]
    assert made["overhead"] == {"cpu": "10m"} and made["nodeSelector"] == {"a": "b"}
    with pytest.raises(Forbidden, match='pod rejected: RuntimeClass "ghost" not found'):
        await pods.create(CTX, "team", pod("b", runtimeClassName="ghost"))
    with pytest.raises(Forbidden, match="Overhead doesn't match"):
        await pods.create(CTX, "team", pod("c", runtimeClassName="vm", overhead={"cpu": "1"}))
    with pytest.raises(Forbidden, match="conflict"):
        await pods.create(CTX, "team", pod("d", runtimeClassName="vm", nodeSelector={"a": "c"}))
