"""PreBind's wait for the volume controllers, in virtual time; volume limits under preemption."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from api.models import core_v1, storage_v1
from api.volumes import BIND_COMPLETED, Claim, Volume
from machinery.clock import VirtualClock
from machinery.errors import Conflict
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.registry import default_framework
from scheduler.plugins.volume_binding import VolumeBinding
from tests.unit.scheduler.objects import node, pod

KEY = ("default", "data")


class Writer:
    """Writes that succeed, with a later version."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock

    async def set_aside(self, volume: Volume) -> Volume:
        return volume

    async def select_node(self, claim: Claim) -> Claim:
        return renewed(claim, "2")


def renewed(claim: Claim, version: str, *, volume: str = "", node: str | None = "n1") -> Claim:
    marks = {"volume.kubernetes.io/selected-node": node} if node else {}
    if volume:
        marks[BIND_COMPLETED] = "yes"
    assert claim.metadata is not None and claim.spec is not None
    replace = msgspec.structs.replace
    return replace(
        claim,
        metadata=replace(claim.metadata, resourceVersion=version, annotations=marks),
        spec=replace(claim.spec, volumeName=volume or None),
    )


def waiting_claim() -> Claim:
    meta = {"name": "data", "namespace": "default", "uid": "c", "resourceVersion": "1"}
    spec = {"storageClassName": "late", "resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"]}
    return msgspec.convert({"metadata": meta, "spec": spec}, Claim)


def user(name: str = "web", claim: str = "data", priority: int = 0) -> PodInfo:
    source = core_v1.PersistentVolumeClaimVolumeSource(claimName=claim)
    return PodInfo(pod(name, volumes=[core_v1.Volume(name="v", persistentVolumeClaim=source)], priority=priority))


def cluster() -> ClusterSnapshot:
    snapshot = ClusterSnapshot()
    snapshot.set_node(node("n1"))
    late = {"metadata": {"name": "late"}, "provisioner": "p", "volumeBindingMode": "WaitForFirstConsumer"}
    snapshot.volumes.classes["late"] = msgspec.convert(late, storage_v1.StorageClass)
    return snapshot


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def begun(clock: VirtualClock, snapshot: ClusterSnapshot) -> asyncio.Task[None]:
    """A pod whose claim is to be provisioned, up to the wait."""
    snapshot.volumes.set_claim(KEY, waiting_claim())
    plugin = VolumeBinding(Writer(clock), timeout=600.0)
    assert plugin.reserve(user(), "n1", snapshot) == ""
    assert plugin.pre_bind_pre_flight(user(), "n1")
    task = asyncio.ensure_future(plugin.pre_bind(user(), "n1", snapshot))
    await settle()
    assert not task.done()
    return task


async def test_the_wait_ends_when_claim_and_volume_know_each_other() -> None:
    clock, snapshot = VirtualClock(), cluster()
    task = await begun(clock, snapshot)
    catalog = snapshot.volumes
    catalog.set_claim(KEY, renewed(waiting_claim(), "2"))
    await settle()
    assert not task.done()
    volume = msgspec.convert({"metadata": {"name": "v", "resourceVersion": "3"}, "spec": {}}, Volume)
    catalog.set_volume("v", volume)
    catalog.set_claim(KEY, renewed(waiting_claim(), "4", volume="v"))
    await settle()
    assert task.done() and task.exception() is None
    assert not catalog.listeners


async def test_the_wait_is_bounded() -> None:
    clock, snapshot = VirtualClock(), cluster()
    task = await begun(clock, snapshot)
    snapshot.volumes.set_claim(KEY, renewed(waiting_claim(), "2"))
    await clock.advance(599.0)
    await settle()
    assert not task.done()
    await clock.advance(2.0)
    await settle()
    with pytest.raises(Conflict, match="binding volumes: context deadline exceeded"):
        task.result()


async def test_a_node_taken_back_ends_the_wait_at_once() -> None:
    clock, snapshot = VirtualClock(), cluster()
    task = await begun(clock, snapshot)
    snapshot.volumes.set_claim(KEY, renewed(waiting_claim(), "2"))
    await settle()
    snapshot.volumes.set_claim(KEY, renewed(waiting_claim(), "3", node=None))
    await settle()
    with pytest.raises(Conflict, match='provisioning failed for PVC "data"'):
        task.result()


def test_room_for_a_volume_can_be_made_by_preemption() -> None:
    snapshot = cluster()
    limits = [{"name": "p", "nodeID": "n1", "allocatable": {"count": 1}}]
    snapshot.volumes.csi_nodes["n1"] = msgspec.convert(
        {"metadata": {"name": "n1"}, "spec": {"drivers": limits}}, storage_v1.CSINode
    )
    for name in ("data", "other"):
        claim = waiting_claim()
        assert claim.metadata is not None
        claim.metadata.name = name
        snapshot.volumes.set_claim(("default", name), claim)
    snapshot.add_pod(user("holder", "other"), "n1")
    framework = default_framework()
    low = framework.schedule(user("low"), snapshot).error
    assert low is not None and low.reasons == {"node(s) exceed max volume count": 1}
    high = framework.schedule(user("high", priority=10), snapshot).error
    assert high is not None
    assert (high.post.nominated_node, [each.name for each in high.post.victims]) == ("n1", ["holder"])
