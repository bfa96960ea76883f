"""The node service of the tests' driver does what the block driver does, as far as a kubelet can tell."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import grpc.aio
import pytest

from linux import mount
from machinery import grpc as transport
from proto.csi.v1 import csi_pb2 as pb
from proto.csi.v1 import csi_pb2_grpc
from tests.harness.block_storage import running_driver
from tests.harness.csi_driver import FakeDriver

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
MODE = pb.VolumeCapability.AccessMode(mode=pb.VolumeCapability.AccessMode.SINGLE_NODE_WRITER)
CAPABILITY = pb.VolumeCapability(mount=pb.VolumeCapability.MountVolume(), access_mode=MODE)


@dataclass
class Site:
    """A driver with one attached volume."""

    node: csi_pb2_grpc.NodeAsyncStub
    volume: str
    staging: str
    target: str

    async def stage(self, volume: str = "") -> None:
        Path(self.staging).mkdir(parents=True, exist_ok=True)
        await self.node.NodeStageVolume(
            pb.NodeStageVolumeRequest(
                volume_id=volume or self.volume, staging_target_path=self.staging, volume_capability=CAPABILITY
            )
        )

    async def publish(self) -> None:
        Path(self.target).parent.mkdir(parents=True, exist_ok=True)
        await self.node.NodePublishVolume(
            pb.NodePublishVolumeRequest(
                volume_id=self.volume,
                staging_target_path=self.staging,
                target_path=self.target,
                volume_capability=CAPABILITY,
            )
        )

    async def unpublish(self) -> None:
        await self.node.NodeUnpublishVolume(
            pb.NodeUnpublishVolumeRequest(volume_id=self.volume, target_path=self.target)
        )

    async def unstage(self) -> None:
        await self.node.NodeUnstageVolume(
            pb.NodeUnstageVolumeRequest(volume_id=self.volume, staging_target_path=self.staging)
        )


@pytest.fixture(params=["fake", "real"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    with TemporaryDirectory(prefix="nk-node-") as name:  # short: Unix sockets have short names
        folder = Path(name)
        staging, target = str(folder / "staging"), str(folder / "pods" / "mount")
        try:
            if request.param == "fake":
                async with FakeDriver(folder / "d").serve() as socket, transport.channel(f"unix:{socket}") as channel:
                    yield Site(csi_pb2_grpc.NodeStub(channel), "vol-1", staging, target)
                return
            async with running_driver("folder") as driver:
                wanted = pb.CreateVolumeRequest(
                    name="data",
                    capacity_range=pb.CapacityRange(required_bytes=1 << 30),
                    volume_capabilities=[CAPABILITY],
                )
                made = (await driver.controller.CreateVolume(wanted)).volume.volume_id
                await driver.controller.ControllerPublishVolume(
                    pb.ControllerPublishVolumeRequest(volume_id=made, node_id="node-1", volume_capability=CAPABILITY)
                )
                yield Site(driver.nodes["node-1"], made, staging, target)
                mount.unmount_below(name)
        finally:
            mount.unmount_below(name)


async def test_a_volume_is_staged_once_published_once_and_taken_back(site: Site) -> None:
    for _ in range(2):  # each step may be repeated
        await site.stage()
    for _ in range(2):
        await site.publish()
    (Path(site.target) / "file").write_text("kept")
    assert mount.is_mount_point(site.target) and mount.is_mount_point(site.staging)
    for _ in range(2):
        await site.unpublish()
    assert not Path(site.target).exists(), "the driver takes away what it made"
    for _ in range(2):
        await site.unstage()
    assert not mount.is_mount_point(site.staging)
    await site.stage()
    await site.publish()
    assert (Path(site.target) / "file").read_text() == "kept"


async def test_what_was_never_there_is_taken_back_all_the_same(site: Site) -> None:
    await site.unpublish()
    await site.unstage()


async def test_nothing_is_published_that_is_not_staged(site: Site) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await site.publish()
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details()


async def test_what_is_missing_is_named(site: Site) -> None:
    for request in (
        pb.NodeStageVolumeRequest(volume_id=site.volume, staging_target_path="/s"),
        pb.NodeStageVolumeRequest(volume_id=site.volume, volume_capability=CAPABILITY),
        pb.NodeStageVolumeRequest(staging_target_path="/s", volume_capability=CAPABILITY),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await site.node.NodeStageVolume(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_it_can_stage_and_expand_and_tells_where_it_is(site: Site) -> None:
    kinds = pb.NodeServiceCapability.RPC
    told = (await site.node.NodeGetCapabilities(pb.NodeGetCapabilitiesRequest())).capabilities
    assert {each.rpc.type for each in told} >= {kinds.STAGE_UNSTAGE_VOLUME, kinds.EXPAND_VOLUME}
    info = await site.node.NodeGetInfo(pb.NodeGetInfoRequest())
    assert info.node_id and info.max_volumes_per_node and info.accessible_topology.segments
