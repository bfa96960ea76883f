"""Custom objects and their owners: collection in every mode, versions that change, namespaces, events."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from api import resources
from api.models import apiextensions_v1, core_v1, policy_v1
from api.resources import Resource
from client.client import Client, PatchType
from controller_manager.garbage_collector.controller import GarbageCollector
from machinery.clock import RealClock
from machinery.errors import AlreadyExists, MethodNotAllowed, NotFound
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster
from tests.integration.controller_manager.test_workloads import NS

CRDS = resources.of(apiextensions_v1.CustomResourceDefinition)
BUDGETS = resources.of(policy_v1.PodDisruptionBudget)
EVENTS = resources.of(core_v1.Event)
NAMESPACES = resources.of(core_v1.Namespace)
GROUP = "gc.example.com"


def kind(version: str = "v1", plural: str = "parts", *, namespaced: bool = True) -> Resource:
    return Resource(GROUP, version, plural, plural[:-1].capitalize(), namespaced=namespaced)


PARTS, WHOLES = kind(), kind(plural="wholes", namespaced=False)


async def defined(client: Client, resource: Resource, *versions: str, **spec: Any) -> None:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = [
        {"name": name, "served": True, "storage": name == versions[0], "schema": {"openAPIV3Schema": schema}}
        for name in versions
    ]
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": {"plural": resource.plural, "kind": resource.kind},
            "versions": served,
        },
    }
    await client.create(definition)

    async def there() -> bool:
        try:
            await client.list(resource)
        except (NotFound, MethodNotAllowed):
            return False
        return True

    await eventually(there, "there")


async def made(client: Client, name: str, *owners: Any, resource: Resource = PARTS, ns: str = NS, **meta: Any) -> Any:
    references = [
        {
            "apiVersion": each["apiVersion"],
            "kind": each["kind"],
            "name": each["metadata"]["name"],
            "uid": each["metadata"]["uid"],
            "blockOwnerDeletion": True,
        }
        for each in owners
    ]
    metadata = {"name": name, "ownerReferences": references, **meta}
    if resource.namespaced:
        metadata["namespace"] = ns
    body = {"apiVersion": resource.group_version, "kind": resource.kind, "metadata": metadata}
    return await client.create(body, resource=resource)


async def names(client: Client, resource: Resource = PARTS, ns: str = NS) -> set[str]:
    found = await client.list(resource, ns if resource.namespaced else None)
    return {each["metadata"]["name"] for each in found.items}


async def until(client: Client, wanted: set[str], resource: Resource = PARTS, ns: str = NS) -> None:
    async def done() -> bool:
        return await names(client, resource, ns) == wanted

    await eventually(done, "done")


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        pytest.param("Background", set(), id="background"),
        pytest.param("Foreground", set(), id="foreground"),
        pytest.param("Orphan", {"child", "grandchild"}, id="orphan"),
    ],
)
async def test_deleting_an_owner(policy: str, left: set[str]) -> None:
    async with running_cluster(nodes=0) as cluster:
        client = cluster.client
        await defined(client, PARTS, "v1")
        owner = await made(client, "owner")
        child = await made(client, "child", owner)
        await made(client, "grandchild", child)
        await client.delete(PARTS, "owner", NS, propagation_policy=policy)
        await until(client, left)
        if left:
            kept = await client.get(PARTS, "child", NS)
            assert not kept["metadata"].get("ownerReferences")


async def test_foreground_waits_for_what_blocks_and_circles_are_no_obstacle() -> None:
    async with running_cluster(nodes=0) as cluster:
        client = cluster.client
        await defined(client, PARTS, "v1")
        owner = await made(client, "owner")
        await made(client, "held", owner, finalizers=["example.com/hold"])
        await client.delete(PARTS, "owner", NS, propagation_policy="Foreground")

        async def marked() -> bool:
            held = await client.get(PARTS, "held", NS)
            return "deletionTimestamp" in held["metadata"]

        await eventually(marked, "marked")
        waiting = await client.get(PARTS, "owner", NS)
        assert waiting["metadata"]["finalizers"] == ["foregroundDeletion"]
        await client.patch(PARTS, "held", {"metadata": {"finalizers": None}}, NS, type=PatchType.MERGE)
        await until(client, set())

        one = await made(client, "one")
        two = await made(client, "two", one)
        reference = {key: two["metadata"][key] for key in ("name", "uid")}
        circle = [{**reference, "apiVersion": PARTS.group_version, "kind": PARTS.kind, "blockOwnerDeletion": True}]
        await client.patch(PARTS, "one", {"metadata": {"ownerReferences": circle}}, NS, type=PatchType.MERGE)
        await client.delete(PARTS, "one", NS, propagation_policy="Foreground")
        await until(client, set())


async def test_owners_in_other_namespaces_and_of_no_namespace() -> None:
    async with running_cluster(nodes=0) as cluster:
        client = cluster.client
        await defined(client, PARTS, "v1")
        await defined(client, WHOLES, "v1")
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "far"}})
        far = await made(client, "far", ns="far")
        whole = await made(client, "whole", resource=WHOLES)
        await made(client, "proper", whole)
        await made(client, "improper", far)
        await made(client, "odd", far, resource=WHOLES)
        await until(client, {"proper"})
        assert await names(client, WHOLES) == {"whole", "odd"}

        async def told() -> bool:
            found = [
                each
                for ns in (NS, "default")
                for each in (await client.list(EVENTS, ns)).items
                if each["reason"] == "OwnerRefInvalidNamespace"
            ]
            about = {each["involvedObject"]["name"] for each in found}
            texts = all("does not exist in namespace" in each["message"] for each in found)
            return about == {"improper", "odd"} and texts

        await eventually(told, "told")
        await client.delete(WHOLES, "whole")
        await until(client, set())


async def test_owners_are_known_after_their_version_has_changed() -> None:
    async with running_cluster(nodes=0) as cluster:
        client = cluster.client
        await defined(client, PARTS, "v1", "v2")
        newer = kind("v2")
        owner = await made(client, "owner")
        await made(client, "child", owner)
        live = await client.get(CRDS, f"parts.{GROUP}")
        for each in live["spec"]["versions"]:
            each["storage"], each["served"] = each["name"] == "v2", each["name"] == "v2"
        await client.update(live)

        async def switched() -> bool:
            try:
                await client.list(PARTS, NS)
            except (NotFound, MethodNotAllowed):
                return True
            return False

        await eventually(switched, "switched")
        await client.delete(newer, "owner", NS, propagation_policy="Foreground")
        await until(client, set(), newer)


async def test_a_namespace_waits_for_custom_objects_that_are_held() -> None:
    async with running_cluster(nodes=0) as cluster:
        client = cluster.client
        await defined(client, PARTS, "v1")
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gone"}})
        await made(client, "held", ns="gone", finalizers=["example.com/hold"])
        await made(client, "free", ns="gone")
        await client.delete(NAMESPACES, "gone")

        async def told() -> bool:
            found = await client.get(NAMESPACES, "gone")
            by_type = {each["type"]: each for each in found["status"].get("conditions", ())}
            remains = by_type.get("NamespaceContentRemaining", {})
            held = by_type.get("NamespaceFinalizersRemaining", {})
            return bool(
                remains.get("message") == f"Some resources are remaining: parts.{GROUP} has 1 resource instances"
                and held.get("message")
                == "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
            )

        await eventually(told, "told")
        await client.patch(PARTS, "held", {"metadata": {"finalizers": None}}, "gone", type=PatchType.MERGE)

        async def gone() -> bool:
            try:
                await client.get(NAMESPACES, "gone")
            except NotFound:
                return True
            return False

        await eventually(gone, "gone")


async def test_a_definition_that_goes_takes_its_watch_along() -> None:
    async with running_cluster(nodes=0) as cluster:
        client = cluster.client
        await defined(client, PARTS, "v1")
        await made(client, "one")
        await client.delete(CRDS, f"parts.{GROUP}")
        collector = _collector(cluster)

        async def dropped() -> bool:
            return PARTS not in {informer.resource for informer in collector._informers.all()}

        await eventually(dropped, "dropped")
        await asyncio.sleep(0)


def _collector(cluster: Cluster) -> Any:
    return next(each for each in cluster.manager.running if each.name == "garbage-collector")


async def test_an_owner_whose_end_no_watch_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds are watched a moment after they are defined (here: never), so dependents are looked at again."""
    monkeypatch.setattr(GarbageCollector, "_define", lambda *_: None)
    brief = kind(plural="briefs")

    def owned(name: str, uid: str) -> dict[str, Any]:
        reference = {"apiVersion": brief.group_version, "kind": brief.kind, "name": "owner", "uid": uid}
        metadata = {"name": name, "namespace": NS, "ownerReferences": [reference]}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}

    async with running_cluster(clock=RealClock(20), controllers=["garbage-collector-controller"]) as cluster:
        client = cluster.client
        await defined(client, brief, "v1")
        owner = await made(client, "owner", resource=brief)
        await client.create(owned("left", owner["metadata"]["uid"]))
        await client.create(owned("orphan", "no-such-uid"))

        async def are(*wanted: str) -> bool:
            found = (await client.list(resources.of(core_v1.ConfigMap), NS)).items
            return {each["metadata"]["name"] for each in found} & {"left", "orphan"} == set(wanted)

        await eventually(lambda: are("left"), "both to be looked at")
        await client.delete(brief, "owner", NS)
        await eventually(are, "the dependent to go")


async def test_budgets_count_by_the_scale_of_custom_owners() -> None:
    async with running_cluster(nodes=0) as cluster:
        client = cluster.client
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        paths = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
        await defined(client, PARTS, "v1")
        live = await client.get(CRDS, f"parts.{GROUP}")
        live["spec"]["versions"][0] |= {"subresources": {"scale": paths}, "schema": {"openAPIV3Schema": schema}}
        await client.update(live)
        body = {"apiVersion": PARTS.group_version, "kind": PARTS.kind, "spec": {"replicas": 10}}

        async def owner_made() -> Any:
            meta = {"name": "owner", "namespace": NS}
            with contextlib.suppress(AlreadyExists):
                await client.create({**body, "metadata": meta}, resource=PARTS)
            return await client.get(PARTS, "owner", NS, subresource="scale")

        owner = await eventually(owner_made, "a scale")
        assert owner["spec"]["replicas"] == 10
        reference = {"apiVersion": PARTS.group_version, "kind": PARTS.kind, "name": "owner", "controller": True}
        meta = {
            "name": "one",
            "namespace": NS,
            "labels": {"a": "b"},
            "ownerReferences": [{**reference, "uid": owner["metadata"]["uid"]}],
        }
        spec = {"containers": [{"name": "c", "image": "i"}]}
        await client.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        limits = {"selector": {"matchLabels": {"a": "b"}}, "maxUnavailable": "30%"}
        budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": limits}
        await client.create({**budget, "metadata": {"name": "web", "namespace": NS}})

        async def counted() -> bool:
            status = (await client.get(BUDGETS, "web", NS)).get("status") or {}
            return (status.get("expectedPods"), status.get("desiredHealthy")) == (10, 7)

        await eventually(counted, "a budget that knows the scale")
