"""A node as the API server sees it."""

from __future__ import annotations

from api.models import coordination_v1, core_v1
from tests.integration.kubelet.conftest import NODE, Site, until


async def test_registers_ready_with_capacity_and_a_taint_for_the_lifecycle_controller(site: Site) -> None:
    node = await site.client.get(core_v1.Node, NODE)
    assert node.status is not None and node.spec is not None and node.metadata is not None
    assert node.metadata.labels is not None and node.metadata.labels["kubernetes.io/hostname"] == NODE
    assert [(taint.key, taint.effect) for taint in node.spec.taints or ()] == [
        ("node.kubernetes.io/not-ready", "NoSchedule")
    ]
    conditions = {each.type: (each.status, each.reason) for each in node.status.conditions or ()}
    assert conditions == {
        "MemoryPressure": ("False", "KubeletHasSufficientMemory"),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure"),
        "PIDPressure": ("False", "KubeletHasSufficientPID"),
        "Ready": ("True", "KubeletReady"),
    }
    assert node.status.capacity is not None and node.status.allocatable is not None
    assert node.status.capacity["memory"] == "2Gi" and node.status.allocatable["memory"] == "1948Mi"
    assert site.runtime.pod_cidr == "10.88.0.0/24"


async def test_renews_a_lease_owned_by_the_node(fast_site: Site) -> None:
    site = fast_site

    async def lease() -> coordination_v1.Lease | None:
        leases = await site.client.list(coordination_v1.Lease, "kube-node-lease")
        return leases.items[0] if leases.items else None

    first = await until(lease, "a lease")
    assert first.spec is not None and first.metadata is not None
    assert (first.spec.holderIdentity, first.spec.leaseDurationSeconds) == (NODE, 40)
    assert [owner.kind for owner in first.metadata.ownerReferences or ()] == ["Node"]
    renewed = first.spec.renewTime

    async def again() -> bool:
        found = await lease()
        return found is not None and found.spec is not None and found.spec.renewTime != renewed

    await until(again, "a renewal")


async def test_a_runtime_that_is_down_for_long_makes_the_node_unready(fast_site: Site) -> None:
    site = fast_site
    site.runtime.fail_next("Status", "UNAVAILABLE", "gone", times=1000)

    async def ready() -> tuple[str, str] | None:
        node = await site.client.get(core_v1.Node, NODE)
        found = [each for each in (node.status.conditions if node.status else None) or () if each.type == "Ready"]
        return (found[0].status, found[0].message or "") if found else None

    async def unready() -> bool:
        return await ready() == ("False", "container runtime is down: gone")

    await until(unready, "NotReady")
    site.runtime._failures.clear()

    async def back() -> bool:
        return await ready() == ("True", "kubelet is posting ready status")

    await until(back, "Ready")


async def test_comes_back_when_its_object_is_deleted(site: Site) -> None:
    await site.client.delete(core_v1.Node, NODE)

    async def back() -> bool:
        return any(
            node.metadata and node.metadata.name == NODE for node in (await site.client.list(core_v1.Node)).items
        )

    await until(back, "registration")
