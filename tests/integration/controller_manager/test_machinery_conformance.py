"""Quotas, the garbage collector and namespaces, by the behaviours that upstream's conformance tests name.

Over 500 lines because upstream names that many behaviours; all three are asked of one cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api import resources
from api.models import admissionregistration_v1, apps_v1, core_v1
from api.resources import Resource
from client.client import Client, PatchType
from machinery.errors import Conflict, Forbidden, NotFound
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster

Obj = dict[str, Any]
NS = "default"
QUOTAS = resources.of(core_v1.ResourceQuota)
PODS = resources.of(core_v1.Pod)
NAMESPACES = resources.of(core_v1.Namespace)
SERVICES = resources.of(core_v1.Service)
CONTROLLERS = resources.of(core_v1.ReplicationController)
SETS = resources.of(apps_v1.ReplicaSet)
DEPLOYMENTS = resources.of(apps_v1.Deployment)


def conformance(start: str, *texts: str) -> pytest.MarkDecorator:
    return pytest.mark.conformance(*(f"[sig-api-machinery] {start} {text} [Conformance]" for text in texts))


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster(nodes=0) as made:
        yield made


def an_object(kind: str, name: str, spec: Obj | None = None, *, api: str = "v1", ns: str = NS, **rest: Any) -> Obj:
    made: Obj = {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": ns}, **rest}
    if spec is not None:
        made["spec"] = spec
    return made


def a_pod(name: str, ns: str = NS, *, owners: tuple[Obj, ...] = (), requests: Obj | None = None, **spec: Any) -> Obj:
    amounts = {"resources": {"requests": requests, "limits": requests}} if requests else {}
    pod = an_object("Pod", name, {"containers": [{"name": "c", "image": "i", **amounts}], **spec}, ns=ns)
    if owners:
        pod["metadata"]["ownerReferences"] = [reference(each) for each in owners]
    return pod


def reference(owner: Obj) -> Obj:
    named = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"]}
    return {**named, "uid": owner["metadata"]["uid"], "blockOwnerDeletion": True}


async def count(client: Client, resource: Resource, ns: str = NS) -> int:
    return len((await client.list(resource, ns)).items)


async def until_count(client: Client, resource: Resource, wanted: int, ns: str = NS) -> None:
    async def done() -> bool:
        return await count(client, resource, ns) == wanted

    await eventually(done, f"{wanted} {resource.plural}")


# -- quotas -------------------------------------------------------------------------------------------------------


async def a_quota(client: Client, name: str = "q", hard: Obj | None = None, **spec: Any) -> None:
    await client.create(an_object("ResourceQuota", name, {"hard": hard or {"pods": "5"}, **spec}))


async def until_used(client: Client, name: str = "q", **wanted: str) -> None:
    async def done() -> bool:
        used = (await client.get(QUOTAS, name, NS)).get("status", {}).get("used", {})
        return all(
            used.get(key.replace("_", ".").replace("count.", "count/")) == value for key, value in wanted.items()
        )

    await eventually(done, f"quota {name} at {wanted}")


TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
LIVES = [
    pytest.param(
        "should create a ResourceQuota and ensure its status is promptly calculated.",
        "",
        {"pods": "5"},
        None,
        id="none",
    ),
    pytest.param(
        "should create a ResourceQuota and capture the life of a configMap.",
        "configmaps",
        {"configmaps": "10"},
        an_object("ConfigMap", "one", data={"a": "b"}),
        id="configmap",
    ),
    pytest.param(
        "should create a ResourceQuota and capture the life of a secret.",
        "secrets",
        {"secrets": "10"},
        an_object("Secret", "one", data={"a": "Yg=="}),
        id="secret",
    ),
    pytest.param(
        "should create a ResourceQuota and capture the life of a service.",
        "services",
        {"services": "2", "services.nodeports": "1", "services.loadbalancers": "0"},
        an_object("Service", "one", {"type": "NodePort", "ports": [{"port": 80}]}),
        id="service",
    ),
    pytest.param(
        "should create a ResourceQuota and capture the life of a replica set.",
        "count/replicasets.apps",
        {"count/replicasets.apps": "5"},
        an_object(
            "ReplicaSet",
            "one",
            {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE},
            api="apps/v1",
        ),
        id="replicaset",
    ),
    pytest.param(
        "should create a ResourceQuota and capture the life of a replication controller.",
        "replicationcontrollers",
        {"replicationcontrollers": "10"},
        an_object("ReplicationController", "one", {"replicas": 0, "selector": {"a": "b"}, "template": TEMPLATE}),
        id="replication controller",
    ),
]
LIVES = [
    pytest.param(*case.values[1:], id=case.id, marks=conformance("ResourceQuota", str(case.values[0])))
    for case in LIVES
]


@pytest.mark.parametrize(("key", "hard", "obj"), LIVES)
async def test_quotas_follow_the_life_of_objects(cluster: Cluster, key: str, hard: Obj, obj: Obj | None) -> None:
    client = cluster.client

    async def used() -> Obj:
        status = (await client.get(QUOTAS, "q", NS)).get("status", {})
        found: Obj = status.get("used", {}) if status.get("hard") == hard else {}
        return found

    await a_quota(client, hard=hard)
    before = await eventually(used, "a counted quota")
    assert set(before) == set(hard)
    if obj is None:
        return
    await client.create(obj)
    after = await used()  # charged at once
    assert int(after[key]) == int(before[key]) + 1
    if obj["kind"] == "Service":
        assert after["services.nodeports"] == "1"
        with pytest.raises(
            Forbidden, match=r"exceeded quota: q, requested: services=1,services\.nodeports=1, used: services=2"
        ):
            await client.create({**obj, "metadata": {"name": "two", "namespace": NS}})
    await client.delete(resources.by_kind(*resources.split_group_version(obj["apiVersion"]), obj["kind"]), "one", NS)

    async def released() -> bool:
        return bool((await used())[key] == before[key])

    await eventually(released, "a released quota")


@conformance("ResourceQuota", "should create a ResourceQuota and capture the life of a pod.")
async def test_quotas_follow_the_life_of_pods(cluster: Cluster) -> None:
    client = cluster.client
    hard = {"cpu": "1", "memory": "500Mi", "pods": "5", "requests.example.com/dongle": "3"}
    await a_quota(client, hard=hard)
    await until_used(client, pods="0", cpu="0")
    wanted = {"cpu": "500m", "memory": "252Mi", "example.com/dongle": "2"}
    await client.create(a_pod("one", requests=wanted))
    used = (await client.get(QUOTAS, "q", NS))["status"]["used"]
    assert used == {"cpu": "500m", "memory": "252Mi", "pods": "1", "requests.example.com/dongle": "2"}
    for too_much in ({"cpu": "600m", "memory": "100Mi"}, {"cpu": "1m", "memory": "1Mi", "example.com/dongle": "2"}):
        with pytest.raises(Forbidden, match="exceeded quota: q"):
            await client.create(a_pod("two", requests=too_much))
    with pytest.raises(Forbidden, match="failed quota: q: must specify"):
        await client.create(a_pod("two"))
    await client.delete(PODS, "one", NS, grace_period_seconds=0)
    await until_used(client, pods="0", cpu="0")


async def test_concurrent_creations_do_not_oversubscribe(cluster: Cluster) -> None:
    client = cluster.client
    await a_quota(client, hard={"count/configmaps": "7"})
    await until_used(client, count_configmaps="0")
    made = await asyncio.gather(
        *(client.create(an_object("ConfigMap", f"m{number}")) for number in range(30)), return_exceptions=True
    )
    assert sum(not isinstance(each, BaseException) for each in made) == 7
    assert all(isinstance(each, (dict, Forbidden)) for each in made)
    assert (await client.get(QUOTAS, "q", NS))["status"]["used"] == {"count/configmaps": "7"}


@conformance(
    "ResourceQuota",
    "should verify ResourceQuota with terminating scopes.",
    "should verify ResourceQuota with best effort scope.",
)
@pytest.mark.parametrize(
    ("scope", "other", "within", "without"),
    [
        pytest.param("Terminating", "NotTerminating", {"activeDeadlineSeconds": 3600}, {}, id="terminating"),
        pytest.param("BestEffort", "NotBestEffort", {}, {"requests": {"cpu": "1m", "memory": "1Mi"}}, id="best effort"),
    ],
)
async def test_quotas_with_scopes(cluster: Cluster, scope: str, other: str, within: Obj, without: Obj) -> None:
    client = cluster.client
    await a_quota(client, "in", hard={"pods": "1"}, scopes=[scope])
    await a_quota(client, "out", hard={"pods": "1"}, scopes=[other])
    for name in ("in", "out"):
        await until_used(client, name, pods="0")
    for settings, charged, spared in ((within, "in", "out"), (without, "out", "in")):
        await client.create(a_pod("one", **settings))
        await until_used(client, charged, pods="1")
        await until_used(client, spared, pods="0")
        with pytest.raises(Forbidden, match=f"exceeded quota: {charged}"):
            await client.create(a_pod("two", **settings))
        await client.delete(PODS, "one", NS, grace_period_seconds=0)
        await until_used(client, charged, pods="0")


async def test_quotas_by_priority_class_and_of_custom_objects(cluster: Cluster) -> None:
    client = cluster.client
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 9}
    await client.create(priority)
    selector = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}
    await a_quota(client, hard={"pods": "1"}, scopeSelector=selector)
    await until_used(client, pods="0")
    await client.create(a_pod("plain"))
    await client.create(a_pod("high", priorityClassName="high"))
    await until_used(client, pods="1")
    with pytest.raises(Forbidden, match="exceeded quota: q"):
        await client.create(a_pod("higher", priorityClassName="high"))

    from tests.integration.controller_manager.test_custom_collection import PARTS, defined, made

    await defined(client, PARTS, "v1")
    await a_quota(client, "parts", hard={"count/parts.gc.example.com": "1"})

    async def counted() -> bool:
        status = (await client.get(QUOTAS, "parts", NS)).get("status", {})
        return bool(status.get("used") == {"count/parts.gc.example.com": "0"})

    await eventually(counted, "a quota of custom objects")
    await made(client, "one")
    with pytest.raises(Forbidden, match="exceeded quota: parts"):
        await made(client, "two")
    await client.delete(PARTS, "one", NS)
    await eventually(counted, "a released quota of custom objects")


@conformance(
    "ResourceQuota",
    "should be able to update and delete ResourceQuota.",
    "should manage the lifecycle of a ResourceQuota",
    "should apply changes to a resourcequota status",
)
async def test_life_of_quotas(cluster: Cluster) -> None:
    client = cluster.client
    quota = an_object("ResourceQuota", "q", {"hard": {"cpu": "1", "memory": "500Mi"}})
    quota["metadata"]["labels"] = {"suite": "quotas"}
    created = await client.create(quota)
    assert created["spec"]["hard"] == {"cpu": "1", "memory": "500Mi"}
    await until_used(client, cpu="0", memory="0")
    live = await client.get(QUOTAS, "q", NS)
    live["spec"]["hard"] = {"cpu": "2", "memory": "1Gi"}
    assert (await client.update(live))["spec"]["hard"] == {"cpu": "2", "memory": "1Gi"}
    patched = await client.patch(QUOTAS, "q", {"metadata": {"labels": {"patched": "yes"}}}, NS, type=PatchType.MERGE)
    assert patched["metadata"]["labels"] == {"suite": "quotas", "patched": "yes"}

    async def followed() -> bool:
        return bool((await client.get(QUOTAS, "q", NS))["status"]["hard"] == {"cpu": "2", "memory": "1Gi"})

    await eventually(followed, "the status' limits")
    told = {"status": {"hard": {"cpu": "3"}, "used": {"cpu": "1"}}}
    changed = await client.patch(QUOTAS, "q", told, NS, type=PatchType.MERGE, subresource="status")
    assert (changed["status"]["hard"]["cpu"], changed["spec"]["hard"]["cpu"]) == ("3", "2")
    await eventually(followed, "the status as the spec says")
    found = (await client.list(QUOTAS, label_selector="suite=quotas")).items
    assert [each["metadata"]["name"] for each in found] == ["q"]
    await client.delete_collection(QUOTAS, NS, label_selector="suite=quotas")
    await until_count(client, QUOTAS, 0)


# -- the garbage collector ----------------------------------------------------------------------------------------


def a_controller(name: str, replicas: int = 3) -> Obj:
    spec = {"replicas": replicas, "selector": {"a": name}, "template": _template(name)}
    return an_object("ReplicationController", name, spec)


def _template(label: str) -> Obj:
    return {**TEMPLATE, "metadata": {"labels": {"a": label}}}


@conformance(
    "Garbage collector",
    "should delete pods created by rc when not orphaning",
    "should orphan pods created by rc if delete options say so [Serial]",
)
@pytest.mark.parametrize(("policy", "left"), [("Background", 0), ("Orphan", 3)])
async def test_pods_of_a_controller(cluster: Cluster, policy: str, left: int) -> None:
    client = cluster.client
    await client.create(a_controller("rc"))
    await until_count(client, PODS, 3)
    await client.delete(CONTROLLERS, "rc", NS, propagation_policy=policy)
    await until_count(client, CONTROLLERS, 0)
    await until_count(client, PODS, left)
    assert not any(pod["metadata"].get("ownerReferences") for pod in (await client.list(PODS, NS)).items)


@conformance(
    "Garbage collector",
    "should delete RS created by deployment when not orphaning",
    "should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan",
)
@pytest.mark.parametrize(("policy", "left"), [("Background", 0), ("Orphan", 1)])
async def test_sets_of_a_deployment(cluster: Cluster, policy: str, left: int) -> None:
    client = cluster.client
    spec = {"replicas": 2, "selector": {"matchLabels": {"a": "web"}}, "template": _template("web")}
    await client.create(an_object("Deployment", "web", spec, api="apps/v1"))
    await until_count(client, SETS, 1)
    await until_count(client, PODS, 2)
    await client.delete(DEPLOYMENTS, "web", NS, propagation_policy=policy)
    await until_count(client, DEPLOYMENTS, 0)
    await until_count(client, SETS, left)
    await until_count(client, PODS, 2 * left)
    for each in (await client.list(SETS, NS)).items:
        assert not each["metadata"].get("ownerReferences")


@conformance(
    "Garbage collector",
    "should keep the rc around until all its pods are deleted if the deleteOptions says so [Serial]",
)
async def test_a_controller_waits_for_its_pods(cluster: Cluster) -> None:
    client = cluster.client
    await client.create(a_controller("rc"))
    await until_count(client, PODS, 3)
    held = (await client.list(PODS, NS)).items[0]["metadata"]["name"]
    finalizers = {"metadata": {"finalizers": ["example.com/hold"]}}
    await client.patch(PODS, held, finalizers, NS, type=PatchType.MERGE)
    await client.delete(CONTROLLERS, "rc", NS, propagation_policy="Foreground")
    await until_count(client, PODS, 1)
    waiting = await client.get(CONTROLLERS, "rc", NS)
    assert waiting["metadata"]["finalizers"] == ["foregroundDeletion"]
    await client.patch(PODS, held, {"metadata": {"finalizers": None}}, NS, type=PatchType.MERGE)
    await until_count(client, CONTROLLERS, 0)
    await until_count(client, PODS, 0)


@conformance(
    "Garbage collector",
    "should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted "
    "[Serial]",
)
async def test_a_second_owner_keeps_dependents(cluster: Cluster) -> None:
    client = cluster.client
    await client.create(a_controller("going", 4))
    staying = await client.create(a_controller("staying", 0))
    await until_count(client, PODS, 4)
    pods = [each["metadata"] for each in (await client.list(PODS, NS)).items]
    for meta in pods[:2]:
        owners = [*meta["ownerReferences"], reference(staying)]
        owned = {"metadata": {"ownerReferences": owners}}
        await client.patch(PODS, meta["name"], owned, NS, type=PatchType.MERGE)
    await client.delete(CONTROLLERS, "going", NS, propagation_policy="Foreground")
    await until_count(client, CONTROLLERS, 1)
    await until_count(client, PODS, 2)
    for each in (await client.list(PODS, NS)).items:
        assert [owner["name"] for owner in each["metadata"]["ownerReferences"]] == ["staying"]
        assert "deletionTimestamp" not in each["metadata"]


@conformance("Garbage collector", "should not be blocked by dependency circle")
async def test_a_circle_of_pods(cluster: Cluster) -> None:
    client = cluster.client
    one = await client.create(a_pod("one"))
    two = await client.create(a_pod("two", owners=(one,)))
    three = await client.create(a_pod("three", owners=(two,)))
    circle = {"metadata": {"ownerReferences": [reference(three)]}}
    await client.patch(PODS, "one", circle, NS, type=PatchType.MERGE)
    await client.delete(PODS, "one", NS, propagation_policy="Foreground")
    await until_count(client, PODS, 0)


# -- namespaces ---------------------------------------------------------------------------------------------------


async def a_namespace(client: Client, name: str) -> Obj:
    made: Obj = await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    accounts = resources.of(core_v1.ServiceAccount)

    async def ready() -> bool:
        return await count(client, accounts, name) == 1

    await eventually(ready, "the namespace's account")
    return made


async def until_gone(client: Client, name: str) -> None:
    async def gone() -> bool:
        try:
            await client.get(NAMESPACES, name)
        except NotFound:
            return True
        return False

    await eventually(gone, f"the end of namespace {name}")


@conformance(
    "Namespaces [Serial]",
    "should ensure that all pods are removed when a namespace is deleted",
    "should ensure that all services are removed when a namespace is deleted",
)
async def test_a_deleted_namespace_takes_its_objects_along(cluster: Cluster) -> None:
    client = cluster.client
    await a_namespace(client, "gone")
    await client.create(a_pod("one", "gone"))
    await client.create(an_object("Service", "one", {"ports": [{"port": 80}]}, ns="gone"))
    await client.delete(NAMESPACES, "gone")
    await until_gone(client, "gone")
    await a_namespace(client, "gone")
    for resource in (PODS, SERVICES):
        assert await count(client, resource, "gone") == 0


@conformance("OrderedNamespaceDeletion", "namespace deletion should delete pod first")
async def test_pods_go_first(cluster: Cluster) -> None:
    client = cluster.client
    await a_namespace(client, "gone")
    pod = a_pod("held", "gone")
    pod["metadata"]["finalizers"] = ["example.com/hold"]
    await client.create(pod)
    await client.create(an_object("ConfigMap", "kept", ns="gone"))
    await client.delete(NAMESPACES, "gone")

    async def told() -> bool:
        found = await client.get(NAMESPACES, "gone")
        remains = [
            each for each in found["status"].get("conditions", ()) if each["type"] == "NamespaceContentRemaining"
        ]
        marked = await client.get(PODS, "held", "gone")
        texts = [each["message"] for each in remains]
        return "deletionTimestamp" in marked["metadata"] and texts == [
            "Some resources are remaining: pods. has 1 resource instances"
        ]

    await eventually(told, "what remains")
    kept = await client.get(resources.of(core_v1.ConfigMap), "kept", "gone")
    assert "deletionTimestamp" not in kept["metadata"]
    await client.patch(PODS, "held", {"metadata": {"finalizers": None}}, "gone", type=PatchType.MERGE)
    await until_gone(client, "gone")


@conformance(
    "Namespaces [Serial]",
    "should patch a Namespace",
    "should apply an update to a Namespace",
    "should apply changes to a namespace status",
    "should apply a finalizer to a Namespace",
)
async def test_changed_namespaces(cluster: Cluster) -> None:
    client = cluster.client
    await a_namespace(client, "team")
    labelled = {"metadata": {"labels": {"testLabel": "testValue"}}}
    patched = await client.patch(NAMESPACES, "team", labelled, type=PatchType.MERGE)
    assert patched["metadata"]["labels"] == {"kubernetes.io/metadata.name": "team", "testLabel": "testValue"}
    patched["metadata"]["labels"]["updated"] = "yes"
    assert (await client.update(patched))["metadata"]["labels"]["updated"] == "yes"
    with pytest.raises(Conflict):
        await client.update(patched)
    condition = {"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "Patched by an e2e test"}
    status = {"status": {"conditions": [{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}
    told = await client.patch(NAMESPACES, "team", status, type=PatchType.MERGE, subresource="status")
    assert told["status"]["phase"] == "Active"
    assert told["status"]["conditions"][0]["reason"] == "E2E"
    told["status"]["conditions"][0]["reason"] = "Updated"
    assert (await client.update(told, subresource="status"))["status"]["conditions"][0]["reason"] == "Updated"
    live = await client.get(NAMESPACES, "team")
    live["spec"]["finalizers"].append("e2e.example.com/fakeFinalizer")
    finalized = await client.update(live, subresource="finalize")
    assert finalized["spec"]["finalizers"] == ["kubernetes", "e2e.example.com/fakeFinalizer"]
    await client.delete(NAMESPACES, "team")

    async def waits() -> bool:
        found = await client.get(NAMESPACES, "team")
        return bool(found["spec"].get("finalizers") == ["e2e.example.com/fakeFinalizer"])

    await eventually(waits, "the controller's part")
    live = await client.get(NAMESPACES, "team")
    live["spec"]["finalizers"] = []
    await client.update(live, subresource="finalize")
    await until_gone(client, "team")


async def test_policies_learn_which_of_their_fields_do_not_exist(cluster: Cluster) -> None:
    client = cluster.client
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]}
    policy: Obj = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "p"},
        "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "object.replicas > 1"}]},
    }
    made = await client.create(policy)
    policies = resources.of(admissionregistration_v1.ValidatingAdmissionPolicy)

    async def told(generation: int) -> Obj:
        status = (await client.get(policies, "p")).get("status") or {}
        found: Obj = status if status.get("observedGeneration") == generation else {}
        return found

    status = await eventually(lambda: told(1), "a checked policy")
    [warning] = status["typeChecking"]["expressionWarnings"]
    assert "undefined field 'replicas'" in warning["warning"]
    made["spec"]["validations"][0]["expression"] = "object.spec.replicas > 1"
    made["metadata"].pop("resourceVersion")
    await client.patch(policies, "p", {"spec": made["spec"]}, type=PatchType.MERGE)
    status = await eventually(lambda: told(2), "a policy that is checked again")
    assert status["typeChecking"] == {}
