"""Owners, namespaces and what every namespace gets, against a real API server (in process, memory store)."""

from __future__ import annotations

from typing import Any

import pytest

from api import resources
from api.models import core_v1, meta_v1
from client.client import Client
from controller_manager.environment import Options
from machinery.errors import NotFound
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster
from tests.integration.controller_manager.test_workloads import DEPLOYMENTS, NS, PODS, SETS, settled, web

MAPS = resources.of(core_v1.ConfigMap)
NAMESPACES = resources.of(core_v1.Namespace)


async def config_map(client: Client, name: str, *owners: dict[str, Any], namespace: str = NS, **meta: Any) -> Any:
    references = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": each["metadata"]["name"],
            "uid": each["metadata"]["uid"],
            "blockOwnerDeletion": True,
        }
        for each in owners
    ]
    metadata = {"name": name, "namespace": namespace, "ownerReferences": references, **meta}
    return await client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})


async def exists(client: Client, resource: resources.Resource, name: str, namespace: str = NS) -> bool:
    try:
        await client.get(resource, name, namespace)
    except NotFound:
        return False
    return True


async def left(cluster: Cluster) -> tuple[int, int, int]:
    counts = [len((await cluster.client.list(each, NS)).items) for each in (DEPLOYMENTS, SETS, PODS)]
    return counts[0], counts[1], counts[2]


@pytest.mark.parametrize(
    ("policy", "remaining"),
    [
        pytest.param("Background", (0, 0, 0), id="background"),
        pytest.param("Foreground", (0, 0, 0), id="foreground"),
        pytest.param("Orphan", (0, 1, 3), id="orphan"),
    ],
)
async def test_deleting_a_deployment(policy: str, remaining: tuple[int, int, int]) -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(web(3))
        await settled(cluster, 3)
        await cluster.client.delete(DEPLOYMENTS, "web", NS, propagation_policy=policy)

        async def done() -> bool:
            return await left(cluster) == remaining

        await eventually(done, f"{remaining} after {policy} deletion")
        if policy == "Orphan":
            (rs,) = (await cluster.client.list(SETS, NS)).items
            assert not rs["metadata"].get("ownerReferences")
            await cluster.client.create(web(3))
            await settled(cluster, 3)
            (again,) = (await cluster.client.list(SETS, NS)).items
            assert again["metadata"]["uid"] == rs["metadata"]["uid"], "the new Deployment adopts the orphan"
            assert again["metadata"]["ownerReferences"]


async def test_only_what_is_known_to_be_gone_takes_its_dependents_along() -> None:
    async with running_cluster() as cluster:
        binding = {"apiVersion": "v1", "kind": "Binding", "name": "who-knows", "uid": "no-such-uid"}
        await config_map(cluster.client, "kept", ownerReferences=[binding])  # nobody can ask for a Binding
        gone = {"metadata": {"name": "gone", "uid": "no-such-uid-either"}}
        await config_map(cluster.client, "collected", gone)

        async def collected() -> bool:
            return not await exists(cluster.client, MAPS, "collected")

        await eventually(collected, "the dependent of what is gone to go")
        assert await exists(cluster.client, MAPS, "kept")


async def test_foreground_waits_for_a_blocking_dependent() -> None:
    async with running_cluster() as cluster:
        client = cluster.client
        owner = await config_map(client, "owner")
        await config_map(client, "child", owner, finalizers=["example.com/hold"])
        await client.delete(MAPS, "owner", NS, propagation_policy="Foreground")

        async def child_marked() -> bool:
            return "deletionTimestamp" in (await client.get(MAPS, "child", NS))["metadata"]

        await eventually(child_marked, "the dependent to be marked")
        assert await exists(client, MAPS, "owner"), "the owner waits"
        await client.patch(MAPS, "child", {"metadata": {"finalizers": None}}, NS)

        async def both_gone() -> bool:
            return not await exists(client, MAPS, "owner") and not await exists(client, MAPS, "child")

        await eventually(both_gone, "owner and dependent to go")


async def test_an_object_goes_only_with_its_last_owner() -> None:
    async with running_cluster() as cluster:
        client = cluster.client
        one, two = await config_map(client, "one"), await config_map(client, "two")
        await config_map(client, "child", one, two)
        await client.delete(MAPS, "one", NS)

        async def dropped() -> bool:
            owners = (await client.get(MAPS, "child", NS))["metadata"]["ownerReferences"]
            return [each["name"] for each in owners] == ["two"]

        await eventually(dropped, "the lost owner to be dropped")
        await client.delete(MAPS, "two", NS)

        async def gone() -> bool:
            return not await exists(client, MAPS, "child")

        await eventually(gone, "the dependent to go with its last owner")


async def test_an_owner_that_never_was_or_is_elsewhere_does_not_count() -> None:
    async with running_cluster() as cluster:
        client = cluster.client
        await client.create(core_v1.Namespace(metadata=meta_v1.ObjectMeta(name="other")))
        elsewhere = await config_map(client, "owner", namespace="other")
        await config_map(client, "across", elsewhere)
        nobody = {"metadata": {"name": "nobody", "uid": "11111111-2222-3333-4444-555555555555"}}
        await config_map(client, "lost", nobody)
        held = await config_map(client, "kept")

        async def gone() -> bool:
            return not await exists(client, MAPS, "lost") and not await exists(client, MAPS, "across")

        await eventually(gone, "dependents of absent owners to go")
        assert await exists(client, MAPS, held["metadata"]["name"])
        assert await exists(client, MAPS, "owner", "other")


async def test_a_deleted_namespace_is_emptied_pods_first() -> None:
    async with running_cluster(nodes=1) as cluster:
        client = cluster.client
        await client.create(core_v1.Namespace(metadata=meta_v1.ObjectMeta(name="shop")))
        deployment = web(2)
        deployment["metadata"]["namespace"] = "shop"

        async def created() -> bool:
            await client.create(deployment)
            return True

        await eventually(created, "the namespace to take a deployment")

        async def pods() -> bool:
            return len((await client.list(PODS, "shop")).items) == 2

        await eventually(pods, "two pods")
        await config_map(client, "held", namespace="shop", finalizers=["example.com/hold"])
        await client.delete(NAMESPACES, "shop")

        async def remains() -> bool:
            conditions = (await client.get(NAMESPACES, "shop"))["status"].get("conditions") or []
            found = {each["type"]: each for each in conditions}
            return bool(
                found["NamespaceContentRemaining"]["message"]
                == "Some resources are remaining: configmaps. has 1 resource instances"
                and found["NamespaceFinalizersRemaining"]["status"] == "True"
            )

        await eventually(remains, "the conditions that name what remains")
        await client.patch(MAPS, "held", {"metadata": {"finalizers": None}}, "shop")

        async def gone() -> bool:
            return not await exists(client, NAMESPACES, "shop", "")

        await eventually(gone, "the namespace to go")


async def test_every_namespace_gets_its_account_and_certificate() -> None:
    accounts = resources.of(core_v1.ServiceAccount)
    async with running_cluster(options=Options(root_ca="PEM")) as cluster:
        client = cluster.client
        await client.create(core_v1.Namespace(metadata=meta_v1.ObjectMeta(name="shop")))

        async def there() -> bool:
            found = await client.get(MAPS, "kube-root-ca.crt", "shop")
            return found["data"] == {"ca.crt": "PEM"} and await exists(client, accounts, "default", "shop")

        await eventually(there, "account and certificate")
        await client.delete(accounts, "default", "shop")
        await client.patch(MAPS, "kube-root-ca.crt", {"data": {"ca.crt": "forged"}}, "shop")
        await eventually(there, "account and certificate again")


async def test_replicas_survive_the_deletion_of_single_pods() -> None:
    async with running_cluster(nodes=2) as cluster:
        await cluster.client.create(web(3))
        await settled(cluster, 3)
        before = [each["metadata"]["name"] for each in (await cluster.client.list(PODS, NS)).items]
        for name in before[:2]:
            await cluster.client.delete(PODS, name, NS)

        async def replaced() -> bool:
            names = {each["metadata"]["name"] for each in (await cluster.client.list(PODS, NS)).items}
            (rs,) = (await cluster.client.list(SETS, NS)).items
            return names & set(before) == {before[2]} and len(names) == rs["status"]["readyReplicas"] == 3

        await eventually(replaced, "two pods made anew, the third kept")
