"""Folders on nodes made on demand, deleted, grown; and the claims of ephemeral volumes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from api import resources
from api.models import core_v1
from api.resources import Resource
from client.client import PatchType
from controller_manager.environment import Options
from tests.integration.controller_manager import volumes as v
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster

CONTROLLERS = [
    "persistentvolume-binder-controller",
    "persistentvolume-expander-controller",
    "ephemeral-volume-controller",
    "node-local-volume-provisioner",
]
OURS = "nanokube.io/node-local"
NODES = resources.of(core_v1.Node)


@contextlib.asynccontextmanager
async def cluster(nodes: int = 2) -> AsyncIterator[Cluster]:
    options = Options(node_volume_folder="/srv/{node}/volumes")
    async with running_cluster(nodes=nodes, controllers=CONTROLLERS, options=options) as made:
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": "kube-system"},
        }
        await made.client.create(account)

        async def default_class() -> bool:
            return any(each["metadata"]["name"] == "standard" for each in (await made.client.list(v.CLASSES)).items)

        await eventually(default_class, "the default class")
        yield made


async def provisioned(c: Cluster, node: str = "n2") -> tuple[v.Obj, v.Obj]:
    await c.client.create(v.claim(class_=None))
    await v.told(c, "PersistentVolumeClaim", "data", "WaitForFirstConsumer")
    await v.select_node(c, "data", node)
    claim = await v.claim_in(c, "Bound")
    return claim, await v.volume_in(c, "Bound", claim["spec"]["volumeName"])


async def finish_removers(c: Cluster, phase: str = "Succeeded") -> v.Obj:
    """Play the kubelet that ran the pod that removes a folder."""

    async def probe() -> v.Obj | None:
        for pod in (await c.client.list(v.PODS, "kube-system")).items:
            if pod["status"].get("phase") not in ("Succeeded", "Failed"):
                name = pod["metadata"]["name"]
                patch = {"status": {"phase": phase}}
                await c.client.patch(v.PODS, name, patch, "kube-system", type=PatchType.MERGE, subresource="status")
                found: v.Obj = pod
                return found
        return None

    pod: v.Obj = await eventually(probe, "a pod that removes")
    return pod


async def drop(c: Cluster, resource: Resource, name: str, namespace: str | None = None) -> None:
    """Delete, and lift the protection that its controller would lift."""
    await c.client.delete(resource, name, namespace)
    for each in (await c.client.list(resource, namespace)).items:
        kept = [one for one in each["metadata"].get("finalizers", ()) if "protection" not in one]
        if each["metadata"]["name"] == name and "deletionTimestamp" in each["metadata"]:
            await c.client.patch(resource, name, {"metadata": {"finalizers": kept or None}}, namespace)


async def test_a_claim_without_class_gets_a_folder_on_the_node_of_its_pod() -> None:
    async with cluster() as c:
        claim, volume = await provisioned(c)
        assert claim["spec"]["storageClassName"] == "standard"
        name = f"pvc-{claim['metadata']['uid']}"
        assert volume["metadata"]["name"] == name
        assert volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"] == OURS
        assert "external-provisioner.volume.kubernetes.io/finalizer" in volume["metadata"]["finalizers"]
        spec = volume["spec"]
        assert spec["local"] == {"path": f"/srv/n2/volumes/{name}"}
        assert (spec["storageClassName"], spec["persistentVolumeReclaimPolicy"]) == ("standard", "Delete")
        assert spec["nodeAffinity"]["required"]["nodeSelectorTerms"] == [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}
        ]
        assert claim["status"]["capacity"] == {"storage": "1Gi"}
        assert await v.told(c, "PersistentVolumeClaim", "data", "ProvisioningSucceeded") == (
            "Normal",
            f"Successfully provisioned volume {name}",
        )
        again = (await v.the_claim(c))["metadata"]["annotations"]
        assert again["volume.kubernetes.io/selected-node"] == "n2"


async def test_the_folder_is_removed_on_its_own_node_before_the_volume_goes() -> None:
    async with cluster() as c:
        _, volume = await provisioned(c)
        name = volume["metadata"]["name"]
        await drop(c, v.CLAIMS, "data", v.NS)
        pod = await finish_removers(c)
        assert pod["spec"]["nodeName"] == "n2"
        assert pod["spec"]["containers"][0]["command"] == ["rm", "-rf", f"/volumes/{name}"]
        assert pod["spec"]["volumes"][0]["hostPath"]["path"] == "/srv/n2/volumes"

        # Somebody else's finalizer may keep the object; the folder is not removed twice for that.
        async def let_go() -> bool:
            found = [each for each in (await c.client.list(v.VOLUMES)).items if each["metadata"]["name"] == name]
            ours = any("external-provisioner" in str(each["metadata"].get("finalizers")) for each in found)
            deleted = all("deletionTimestamp" in each["metadata"] for each in found)
            return deleted and not ours and not (await c.client.list(v.PODS, "kube-system")).items

        await eventually(let_go, "the volume let go and its remover gone")
        for each in (await c.client.list(v.VOLUMES)).items:
            await c.client.patch(v.VOLUMES, each["metadata"]["name"], {"metadata": {"finalizers": None}})
        assert await v.is_gone(c, v.VOLUMES, name)
        assert not (await c.client.list(v.PODS, "kube-system")).items


async def test_a_removal_that_fails_is_told_and_tried_again() -> None:
    async with cluster() as c:
        _, volume = await provisioned(c)
        name = volume["metadata"]["name"]
        await drop(c, v.CLAIMS, "data", v.NS)
        await finish_removers(c, "Failed")
        kind, text = await v.told(c, "PersistentVolume", name, "VolumeFailedDelete")
        assert (kind, text) == ("Warning", f"removing /srv/n2/volumes/{name} on node n2 failed")
        assert (await v.the_volume(c, name))["status"]["phase"] == "Released"


async def test_a_volume_whose_node_is_gone_needs_no_removal() -> None:
    async with cluster() as c:
        _, volume = await provisioned(c)
        c.alive.discard("n2")
        await c.client.delete(NODES, "n2")
        await drop(c, v.CLAIMS, "data", v.NS)

        async def let_go() -> bool:
            for each in (await c.client.list(v.VOLUMES)).items:
                if "external-provisioner" in str(each["metadata"].get("finalizers")):
                    return False
            return True

        await eventually(let_go, "no finalizer of ours")
        assert not (await c.client.list(v.PODS, "kube-system")).items
        assert volume["spec"]["local"]


async def test_a_node_that_is_not_there_is_given_back_to_the_scheduler() -> None:
    async with cluster() as c:
        await c.client.create(v.claim(class_=None))
        await v.told(c, "PersistentVolumeClaim", "data", "WaitForFirstConsumer")
        await v.select_node(c, "data", "n9")
        kind, text = await v.told(c, "PersistentVolumeClaim", "data", "ProvisioningFailed")
        assert kind == "Warning"
        assert text == (
            'failed to provision volume with StorageClass "standard": failed to get target node: node "n9" not found'
        )

        async def given_back() -> bool:
            noted = (await v.the_claim(c))["metadata"]["annotations"]
            return "volume.kubernetes.io/selected-node" not in noted

        await eventually(given_back, "no selected node")


async def test_what_a_folder_cannot_do_is_said() -> None:
    async with cluster() as c:
        await c.client.create(v.claim(class_="standard", accessModes=["ReadWriteMany"]))
        await v.told(c, "PersistentVolumeClaim", "data", "WaitForFirstConsumer")
        await v.select_node(c, "data", "n1")
        _, text = await v.told(c, "PersistentVolumeClaim", "data", "ProvisioningFailed")
        assert text.endswith("only the access modes ReadWriteOnce and ReadWriteOncePod are supported")


async def test_a_class_that_does_not_wait_gets_the_emptiest_allowed_node() -> None:
    async with cluster(nodes=3) as c:
        for name in ("n2", "n3"):
            patch = {"metadata": {"labels": {"disk": "fast"}}}
            await c.client.patch(NODES, name, patch)
        topology = [{"matchLabelExpressions": [{"key": "disk", "values": ["fast"]}]}]
        await c.client.create(v.storage_class("now", OURS, allowedTopologies=topology))
        paths = set()
        for number in range(2):
            await c.client.create(v.claim(f"c{number}", class_="now"))
            claim = await v.claim_in(c, "Bound", f"c{number}")
            paths.add((await v.the_volume(c, claim["spec"]["volumeName"]))["spec"]["local"]["path"].split("/")[2])
        assert paths == {"n2", "n3"}


async def test_a_bound_claim_grows_with_its_volume() -> None:
    async with cluster() as c:
        claim, volume = await provisioned(c)
        patch = {"spec": {"resources": {"requests": {"storage": "3Gi"}}}}
        await c.client.patch(v.CLAIMS, "data", patch, v.NS, type=PatchType.MERGE)

        async def grown() -> bool:
            live = await v.the_claim(c)
            return live["status"]["capacity"] == {"storage": "3Gi"} and "conditions" not in live["status"]

        await eventually(grown, "the claim grown")
        assert (await v.the_volume(c, volume["metadata"]["name"]))["spec"]["capacity"] == {"storage": "3Gi"}
        for reason, text in (
            ("ExternalExpanding", "waiting for an external controller to expand this PVC"),
            ("Resizing", f"External resizer is resizing volume {claim['spec']['volumeName']}"),
            ("VolumeResizeSuccessful", "Resize volume succeeded"),
        ):
            assert await v.told(c, "PersistentVolumeClaim", "data", reason) == ("Normal", text)


async def test_ephemeral_volumes_get_claims_of_their_own() -> None:
    async with cluster() as c:
        await c.client.create(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": v.NS}}
        )
        await c.client.create(v.claim("web-taken", class_=""))
        template = {"metadata": {"labels": {"for": "scratch"}}, "spec": v.claim()["spec"]}
        pod: v.Obj = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "namespace": v.NS},
            "spec": {
                "schedulerName": "nobody",
                "containers": [{"name": "main", "image": "busybox"}],
                "volumes": [
                    {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}},
                    {"name": "taken", "ephemeral": {"volumeClaimTemplate": template}},
                ],
            },
        }
        made = await c.client.create(pod)

        async def there() -> v.Obj:
            return await v.the_claim(c, "web-scratch")

        claim = await eventually(there, "the claim")
        (owner,) = claim["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("Pod", made["metadata"]["uid"], True)
        assert claim["metadata"]["labels"] == {"for": "scratch"}
        assert await v.told(c, "Pod", "web", "FailedBinding") == (
            "Warning",
            "PVC default/web-taken was not created for pod default/web (pod is not owner)",
        )
