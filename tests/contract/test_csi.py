"""What the Container Storage Interface demands of a driver: required fields, idempotency, codes, and data that stays.

The cases follow the specification's tables of errors and what the field's csi-sanity tries.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from cloud.model import Health
from linux import loop, mount
from linux.probe import probe
from proto.csi.v1 import csi_pb2 as pb
from tests.harness.apiserver import eventually
from tests.harness.block_storage import Driver, running_driver

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
GIB = 1 << 30
ZONE = "topology.kubernetes.io/zone"
Mode = pb.VolumeCapability.AccessMode


def capability(mode: Any = Mode.SINGLE_NODE_WRITER, *, block: bool = False, fs: str = "") -> pb.VolumeCapability:
    access = pb.VolumeCapability.AccessMode(mode=mode)
    if block:
        return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=access)
    return pb.VolumeCapability(mount=pb.VolumeCapability.MountVolume(fs_type=fs), access_mode=access)


def in_zones(*zones: str) -> pb.TopologyRequirement:
    topologies = [pb.Topology(segments={ZONE: zone}) for zone in zones]
    return pb.TopologyRequirement(requisite=topologies, preferred=topologies)


async def code(answer: Awaitable[Any]) -> str:
    """The code that a call ends with."""
    try:
        await answer
    except grpc.aio.AioRpcError as error:
        assert error.details(), "a refusal says why"
        return str(error.code().name)
    return "OK"


class Volume:
    """One volume through its life."""

    def __init__(self, driver: Driver, volume_id: str, capability_: pb.VolumeCapability) -> None:
        self.driver = driver
        self.id = volume_id
        self.capability = capability_

    def staging(self, node: str) -> str:
        return str(self.driver.folder / "machines" / node / "staging" / self.id)

    def target(self, node: str, pod: str = "pod") -> str:
        return str(self.driver.folder / "machines" / node / pod / self.id)

    async def publish(self, node: str) -> None:
        request = pb.ControllerPublishVolumeRequest(volume_id=self.id, node_id=node, volume_capability=self.capability)
        await self.driver.controller.ControllerPublishVolume(request)

    async def unpublish(self, node: str = "", **more: Any) -> None:
        request = pb.ControllerUnpublishVolumeRequest(volume_id=self.id, node_id=node)
        await self.driver.controller.ControllerUnpublishVolume(request, **more)

    async def stage(self, node: str) -> None:
        if not mount.is_mount_point(self.staging(node)):
            Path(self.staging(node)).mkdir(parents=True, exist_ok=True)
        request = pb.NodeStageVolumeRequest(
            volume_id=self.id, staging_target_path=self.staging(node), volume_capability=self.capability
        )
        await self.driver.nodes[node].NodeStageVolume(request)

    async def mount(self, node: str, pod: str = "pod", *, readonly: bool = False) -> Path:
        request = pb.NodePublishVolumeRequest(
            volume_id=self.id,
            staging_target_path=self.staging(node),
            target_path=self.target(node, pod),
            volume_capability=self.capability,
            readonly=readonly,
        )
        await self.driver.nodes[node].NodePublishVolume(request)
        return Path(self.target(node, pod))

    async def unmount(self, node: str, pod: str = "pod") -> None:
        request = pb.NodeUnpublishVolumeRequest(volume_id=self.id, target_path=self.target(node, pod))
        await self.driver.nodes[node].NodeUnpublishVolume(request)

    async def unstage(self, node: str) -> None:
        request = pb.NodeUnstageVolumeRequest(volume_id=self.id, staging_target_path=self.staging(node))
        await self.driver.nodes[node].NodeUnstageVolume(request)

    async def use(self, node: str) -> Path:
        await self.publish(node)
        await self.stage(node)
        return await self.mount(node)

    async def leave(self, node: str) -> None:
        await self.unmount(node)
        await self.unstage(node)
        await self.unpublish(node)

    async def expand(self, size: int) -> pb.ControllerExpandVolumeResponse:
        wanted = pb.CapacityRange(required_bytes=size)
        request = pb.ControllerExpandVolumeRequest(
            volume_id=self.id, capacity_range=wanted, volume_capability=self.capability
        )
        return await self.driver.controller.ControllerExpandVolume(request)

    async def delete(self) -> None:
        await self.driver.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=self.id))


async def create(driver: Driver, name: str = "data", size: int = GIB, **more: Any) -> Volume:
    capability_ = more.pop("capability", capability())
    answer = await driver.controller.CreateVolume(
        pb.CreateVolumeRequest(
            name=name,
            capacity_range=pb.CapacityRange(required_bytes=size),
            volume_capabilities=[capability_],
            **more,
        )
    )
    return Volume(driver, answer.volume.volume_id, capability_)


@pytest.fixture(params=["folder", "ext4", "xfs"])
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    kind = "folder" if request.param == "folder" else "loop"
    if kind == "loop" and not loop.available():
        pytest.skip("this machine has no loop devices")
    async with running_driver(kind, filesystem="ext4" if kind == "folder" else request.param) as made:
        yield made


@pytest.fixture
async def plain() -> AsyncIterator[Driver]:
    """For what does not depend on the kind of disk."""
    async with running_driver("folder") as made:
        yield made


async def test_who_it_is(plain: Driver) -> None:
    info = await plain.identity.GetPluginInfo(pb.GetPluginInfoRequest())
    assert info.name == "block.csi.nanokube.io"
    assert info.vendor_version
    assert (await plain.identity.Probe(pb.ProbeRequest())).ready.value
    can = (await plain.identity.GetPluginCapabilities(pb.GetPluginCapabilitiesRequest())).capabilities
    service = pb.PluginCapability.Service
    assert {each.service.type for each in can} >= {service.CONTROLLER_SERVICE, service.VOLUME_ACCESSIBILITY_CONSTRAINTS}
    node = await plain.nodes["node-3"].NodeGetInfo(pb.NodeGetInfoRequest())
    assert (node.node_id, node.max_volumes_per_node) == ("node-3", 16)
    assert dict(node.accessible_topology.segments) == {ZONE: "local-b"}


CREATE = {"name": "a", "volume_capabilities": [capability()]}


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        pytest.param({**CREATE, "name": ""}, "INVALID_ARGUMENT", id="no-name"),
        pytest.param({**CREATE, "volume_capabilities": []}, "INVALID_ARGUMENT", id="no-capability"),
        pytest.param(
            {**CREATE, "volume_capabilities": [pb.VolumeCapability()]}, "INVALID_ARGUMENT", id="empty-capability"
        ),
        pytest.param(
            {**CREATE, "volume_capabilities": [capability(Mode.MULTI_NODE_MULTI_WRITER)]},
            "INVALID_ARGUMENT",
            id="shared",
        ),
        pytest.param({**CREATE, "volume_capabilities": [capability(fs="fat")]}, "INVALID_ARGUMENT", id="fs"),
        pytest.param({**CREATE, "parameters": {"speed": "high"}}, "INVALID_ARGUMENT", id="parameter"),
        pytest.param({**CREATE, "parameters": {"type": "floppy"}}, "INVALID_ARGUMENT", id="type"),
        pytest.param(
            {**CREATE, "capacity_range": pb.CapacityRange(required_bytes=-1)}, "INVALID_ARGUMENT", id="negative"
        ),
        pytest.param({**CREATE, "capacity_range": pb.CapacityRange(required_bytes=1 << 60)}, "OUT_OF_RANGE", id="huge"),
        pytest.param({**CREATE, "capacity_range": pb.CapacityRange(limit_bytes=5)}, "OUT_OF_RANGE", id="tiny"),
        pytest.param({**CREATE, "accessibility_requirements": in_zones("mars")}, "INVALID_ARGUMENT", id="zone"),
        pytest.param(
            {
                **CREATE,
                "accessibility_requirements": pb.TopologyRequirement(requisite=[pb.Topology(segments={"rack": "1"})]),
            },
            "RESOURCE_EXHAUSTED",
            id="no-zone",
        ),
        pytest.param(
            {
                **CREATE,
                "volume_content_source": pb.VolumeContentSource(
                    snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id="s")
                ),
            },
            "INVALID_ARGUMENT",
            id="snapshot",
        ),
    ],
)
async def test_volumes_that_cannot_be_made(plain: Driver, request_: dict[str, Any], wanted: str) -> None:
    assert await code(plain.controller.CreateVolume(pb.CreateVolumeRequest(**request_))) == wanted
    assert not plain.volumes.core.state.volumes


async def test_creating_is_idempotent_by_name(plain: Driver) -> None:
    first = await create(plain, size=GIB + 1, accessibility_requirements=in_zones("local-b", "local-a"))
    assert (await create(plain, size=GIB + 1, accessibility_requirements=in_zones("local-b"))).id == first.id
    assert (await create(plain, size=GIB)).id == first.id, "what is bigger than asked for will do"
    assert await code(create(plain, size=9 * GIB)) == "ALREADY_EXISTS"
    assert await code(create(plain, accessibility_requirements=in_zones("local-c"))) == "ALREADY_EXISTS"
    assert await code(create(plain, parameters={"type": "ssd"})) == "ALREADY_EXISTS"
    found = await plain.controller.ControllerGetVolume(pb.ControllerGetVolumeRequest(volume_id=first.id))
    assert (found.volume.capacity_bytes, found.volume.accessible_topology[0].segments[ZONE]) == (2 * GIB, "local-b")
    names = ["x" * 128, "ünïcode: слова/и\ttabs"]
    made = [(await create(plain, name)).id for name in names]
    assert [(await create(plain, name)).id for name in names] == made
    for volume_id in (first.id, *made, first.id, "vol-unknown"):
        await Volume(plain, volume_id, first.capability).delete()
    assert not plain.volumes.core.state.volumes


async def test_required_fields(plain: Driver) -> None:
    c, n, some = plain.controller, plain.nodes["node-1"], capability()
    bad = "INVALID_ARGUMENT"
    publish, stage = pb.ControllerPublishVolumeRequest, pb.NodeStageVolumeRequest
    for answer in (
        c.DeleteVolume(pb.DeleteVolumeRequest()),
        c.ControllerPublishVolume(publish(node_id="n", volume_capability=some)),
        c.ControllerPublishVolume(publish(volume_id="v", volume_capability=some)),
        c.ControllerPublishVolume(publish(volume_id="v", node_id="n")),
        c.ControllerUnpublishVolume(pb.ControllerUnpublishVolumeRequest()),
        c.ValidateVolumeCapabilities(pb.ValidateVolumeCapabilitiesRequest(volume_capabilities=[some])),
        c.ValidateVolumeCapabilities(pb.ValidateVolumeCapabilitiesRequest(volume_id="v")),
        c.ControllerExpandVolume(pb.ControllerExpandVolumeRequest(capacity_range=pb.CapacityRange(required_bytes=1))),
        c.ControllerExpandVolume(pb.ControllerExpandVolumeRequest(volume_id="v")),
        c.ControllerGetVolume(pb.ControllerGetVolumeRequest()),
        c.ListVolumes(pb.ListVolumesRequest(max_entries=-1)),
        n.NodeStageVolume(stage(staging_target_path="/s", volume_capability=some)),
        n.NodeStageVolume(stage(volume_id="v", volume_capability=some)),
        n.NodeStageVolume(stage(volume_id="v", staging_target_path="/s")),
        n.NodeStageVolume(stage(volume_id="../v", staging_target_path="/s", volume_capability=some)),
        n.NodeUnstageVolume(pb.NodeUnstageVolumeRequest(staging_target_path="/s")),
        n.NodeUnstageVolume(pb.NodeUnstageVolumeRequest(volume_id="v")),
        n.NodePublishVolume(pb.NodePublishVolumeRequest(target_path="/t", volume_capability=some)),
        n.NodePublishVolume(pb.NodePublishVolumeRequest(volume_id="v", volume_capability=some)),
        n.NodePublishVolume(pb.NodePublishVolumeRequest(volume_id="v", target_path="/t")),
        n.NodeUnpublishVolume(pb.NodeUnpublishVolumeRequest(target_path="/t")),
        n.NodeUnpublishVolume(pb.NodeUnpublishVolumeRequest(volume_id="v")),
        n.NodeGetVolumeStats(pb.NodeGetVolumeStatsRequest(volume_id="v")),
        n.NodeGetVolumeStats(pb.NodeGetVolumeStatsRequest(volume_path="/t")),
        n.NodeExpandVolume(pb.NodeExpandVolumeRequest(volume_id="v")),
        n.NodeExpandVolume(pb.NodeExpandVolumeRequest(volume_path="/t")),
    ):
        assert await code(answer) == bad
    long, odd = "v" * 5000, "v\0"
    for answer in (
        n.NodeStageVolume(stage(volume_id=odd, staging_target_path="/s", volume_capability=some)),
        n.NodeUnstageVolume(pb.NodeUnstageVolumeRequest(volume_id="v", staging_target_path=odd)),
        n.NodeUnpublishVolume(pb.NodeUnpublishVolumeRequest(volume_id="w", target_path=odd)),
    ):
        assert await code(answer) == bad
    request = stage(volume_id=long, staging_target_path="/s", volume_capability=some)
    assert await code(n.NodeStageVolume(request)) == "FAILED_PRECONDITION"
    assert await code(c.GetCapacity(pb.GetCapacityRequest())) == "UNIMPLEMENTED"
    assert await code(c.ControllerModifyVolume(pb.ControllerModifyVolumeRequest())) == "UNIMPLEMENTED"


async def test_what_is_not_there(plain: Driver) -> None:
    ghost = Volume(plain, "vol-ghost", capability())
    for answer in (
        ghost.publish("node-1"),
        ghost.expand(GIB),
        plain.controller.ControllerGetVolume(pb.ControllerGetVolumeRequest(volume_id=ghost.id)),
        plain.controller.ValidateVolumeCapabilities(
            pb.ValidateVolumeCapabilitiesRequest(volume_id=ghost.id, volume_capabilities=[ghost.capability])
        ),
        plain.nodes["node-1"].NodeGetVolumeStats(pb.NodeGetVolumeStatsRequest(volume_id=ghost.id, volume_path="/x")),
        plain.nodes["node-1"].NodeExpandVolume(pb.NodeExpandVolumeRequest(volume_id=ghost.id, volume_path="/x")),
        (await create(plain)).publish("node-9"),
    ):
        assert await code(answer) == "NOT_FOUND"
    for answer in (ghost.delete(), ghost.unpublish("node-1"), ghost.unmount("node-1"), ghost.unstage("node-1")):
        assert await code(answer) == "OK"


async def test_capabilities_are_confirmed_or_not(plain: Driver) -> None:
    made = await create(plain)

    async def confirmed(*wanted: pb.VolumeCapability) -> bool:
        request = pb.ValidateVolumeCapabilitiesRequest(volume_id=made.id, volume_capabilities=wanted)
        answer = await plain.controller.ValidateVolumeCapabilities(request)
        assert answer.HasField("confirmed") != bool(answer.message)
        return answer.HasField("confirmed")

    assert await confirmed(capability(), capability(Mode.SINGLE_NODE_READER_ONLY))
    assert not await confirmed(capability(), capability(Mode.MULTI_NODE_READER_ONLY))


async def test_volumes_are_listed_in_pages(plain: Driver) -> None:
    made = sorted([(await create(plain, f"v{number}")).id for number in range(5)])
    await Volume(plain, made[0], capability()).publish("node-1")
    seen, token, pages = [], "", 0
    while not pages or token:
        answer = await plain.controller.ListVolumes(pb.ListVolumesRequest(max_entries=2, starting_token=token))
        seen += [(each.volume.volume_id, list(each.status.published_node_ids)) for each in answer.entries]
        token, pages = answer.next_token, pages + 1
    assert seen == [(made[0], ["node-1"]), *((each, []) for each in made[1:])]
    assert pages == 3
    request = pb.ListVolumesRequest(starting_token="nonsense")
    assert await code(plain.controller.ListVolumes(request)) == "ABORTED"


async def test_one_node_at_a_time(plain: Driver) -> None:
    made = await create(plain)
    assert await code(made.stage("node-1")) == "FAILED_PRECONDITION"  # not attached
    await made.publish("node-1")
    await made.publish("node-1")
    assert await code(made.publish("node-2")) == "FAILED_PRECONDITION"
    assert await code(made.publish("node-3")) == "FAILED_PRECONDITION"
    assert await code(made.stage("node-2")) == "FAILED_PRECONDITION"
    assert await code(made.delete()) == "FAILED_PRECONDITION"
    await made.unpublish("node-2")  # it is not there
    assert await code(made.publish("node-2")) == "FAILED_PRECONDITION"
    await made.unpublish()
    await made.unpublish("node-1")
    assert await code(made.publish("node-3")) == "INVALID_ARGUMENT"  # another zone
    await made.publish("node-2")
    await made.unpublish("node-2")
    await made.delete()


async def test_a_node_takes_so_many_and_no_more(plain: Driver) -> None:
    volumes = [await create(plain, f"v{number}") for number in range(17)]
    for each in volumes[:16]:
        await each.publish("node-1")
    assert await code(volumes[16].publish("node-1")) == "RESOURCE_EXHAUSTED"
    await volumes[16].publish("node-2")


async def test_the_life_of_a_mount(driver: Driver) -> None:
    made = await create(driver)
    await made.publish("node-1")
    assert await code(made.mount("node-1")) == "FAILED_PRECONDITION"  # not staged
    for _ in range(2):
        await made.stage("node-1")
    for _ in range(2):
        path = await made.mount("node-1")
    (path / "file").write_text("hello")
    assert await code(made.mount("node-1", readonly=True)) == "ALREADY_EXISTS"
    other = await made.mount("node-1", "second-pod", readonly=True)
    assert (other / "file").read_text() == "hello"
    with pytest.raises(OSError, match="Read-only"):
        (other / "more").write_text("x")
    stats = pb.NodeGetVolumeStatsRequest(volume_id=made.id, volume_path=str(path))
    usage = (await driver.nodes["node-1"].NodeGetVolumeStats(stats)).usage
    assert [each.unit for each in usage] == [pb.VolumeUsage.BYTES, pb.VolumeUsage.INODES]
    assert all(0 <= each.used <= each.total and each.available >= 0 for each in usage)
    for _ in range(2):
        await made.unmount("node-1", "second-pod")
        await made.unmount("node-1")
    assert not path.exists()
    for _ in range(2):
        await made.unstage("node-1")
    await made.unpublish("node-1")
    assert (await made.use("node-2") / "file").read_text() == "hello"
    await made.leave("node-2")
    await made.delete()


async def test_a_volume_in_use_is_not_torn_from_a_working_node(driver: Driver) -> None:
    made = await create(driver)
    path = await made.use("node-1")
    (path / "file").write_text("kept")
    assert await code(made.unpublish("node-1", timeout=1)) == "DEADLINE_EXCEEDED"
    assert (path / "file").read_text() == "kept"
    await made.unmount("node-1")
    await made.unstage("node-1")
    await made.unpublish("node-1")


async def test_a_volume_leaves_a_dead_node_and_its_writers_fail(driver: Driver) -> None:
    made = await create(driver)
    path = await made.use("node-1")
    (path / "file").write_text("saved")
    with (path / "open").open("w") as writer:
        driver.machines.there["node-1"] = Health("g", healthy=False)
        await eventually(lambda: not driver.volumes._machines.seen["node-1"].healthy)
        await made.unpublish("node-1")
        assert not mount.is_mount_point(str(path))
        moved = await made.use("node-2")
        assert (moved / "file").read_text() == "saved"
        if loop.find(str(driver.folder / "volumes" / made.id)):
            with pytest.raises(OSError, match="Input/output"):
                writer.write("x" * 100_000)
                os.fsync(writer.fileno())
    await made.leave("node-2")


async def test_a_volume_that_is_pulled_from_a_working_node_is_dead_there_and_alive_elsewhere(driver: Driver) -> None:
    made = await create(driver)
    path = await made.use("node-1")
    (path / "file").write_text("saved")
    engine = driver.volumes
    engine.core.detach(engine.core.find(made.id), "", engine.now(), force=True)
    engine.wake()
    await eventually(lambda: engine.core.find(made.id).state == "available")
    assert mount.is_mount_point(str(path)), "were it unmounted, the pod would write into an empty folder"
    with pytest.raises(OSError, match=r"Input/output|Read-only"):
        (path / "lost").write_text("x")
    moved = await made.use("node-2")
    assert (moved / "file").read_text() == "saved"
    assert not (moved / "lost").exists()
    await made.leave("node-2")
    await made.publish("node-1")
    if loop.find(str(driver.folder / "volumes" / made.id)):
        assert await code(made.mount("node-1", "late")) == "FAILED_PRECONDITION"  # what is staged is dead
    else:
        await made.unmount("node-1")
        await made.unstage("node-1")
    again = await made.use("node-1")
    assert (again / "file").read_text() == "saved"
    await made.leave("node-1")


async def test_growing(driver: Driver) -> None:
    made = await create(driver)
    path = await made.use("node-1")
    is_real = loop.find(str(driver.folder / "volumes" / made.id)) != ""

    async def expand_node() -> pb.NodeExpandVolumeResponse:
        wanted = pb.CapacityRange(required_bytes=3 * GIB)
        request = pb.NodeExpandVolumeRequest(volume_id=made.id, volume_path=str(path), capacity_range=wanted)
        return await driver.nodes["node-1"].NodeExpandVolume(request)

    def capacity() -> int:
        return os.statvfs(path).f_blocks * os.statvfs(path).f_frsize

    before = capacity()
    assert not is_real or before < GIB
    if is_real:
        assert await code(expand_node()) == "OUT_OF_RANGE"  # the device has not grown yet
    for _ in range(2):
        answer = await made.expand(3 * GIB)
        assert (answer.capacity_bytes, answer.node_expansion_required) == (3 * GIB, True)
    assert await code(made.expand(1 << 60)) == "OUT_OF_RANGE"
    assert (await made.expand(GIB)).capacity_bytes == 3 * GIB
    outcome = await code(expand_node())
    if outcome != "OK":  # ext4 on a machine that lacks a capability: when nobody uses it, staged though it is
        assert (outcome, probe().can("SYS_RESOURCE")) == ("FAILED_PRECONDITION", False)
        other = await made.mount("node-1", "second-pod")
        assert capacity() < 2 * before, "who uses it is not disturbed"
        (other / "file").write_text("kept")
        await made.unmount("node-1", "second-pod")
        await made.unmount("node-1")
        path = await made.mount("node-1")
        assert (path / "file").read_text() == "kept"
    assert (await expand_node()).capacity_bytes == 3 * GIB
    assert not is_real or capacity() > 2 * before
    await made.leave("node-1")


async def test_other_uses_of_a_staged_volume(driver: Driver) -> None:
    made = await create(driver)
    await made.use("node-1")
    made.capability = capability(fs="xfs", mode=Mode.SINGLE_NODE_READER_ONLY)
    if not loop.find(str(driver.folder / "volumes" / made.id)):
        return
    assert await code(made.stage("node-1")) == "ALREADY_EXISTS"
    await made.unmount("node-1")
    await made.unstage("node-1")
    for fs in ("ext4", "xfs"):
        made.capability = capability(fs=fs)
        outcome = await code(made.stage("node-1"))
        if outcome != "OK":
            assert outcome == "FAILED_PRECONDITION", "a volume with data is never made anew"
        await made.unstage("node-1")
    await made.unpublish("node-1")


async def test_raw_devices(driver: Driver) -> None:
    made = await create(driver, capability=capability(block=True))
    await made.publish("node-1")
    if not loop.find(str(driver.folder / "volumes" / made.id)):
        assert await code(made.stage("node-1")) == "INVALID_ARGUMENT"
        return
    await made.stage("node-1")
    for _ in range(2):
        path = await made.mount("node-1")
    assert path.is_block_device()
    with path.open("r+b") as device:
        device.write(b"raw")
    stats = pb.NodeGetVolumeStatsRequest(volume_id=made.id, volume_path=str(path))
    assert (await driver.nodes["node-1"].NodeGetVolumeStats(stats)).usage[0].total == GIB
    assert not (await made.expand(2 * GIB)).node_expansion_required
    with path.open("r+b", buffering=0) as device:  # and while somebody holds it open, it is pulled
        engine = driver.volumes
        engine.core.detach(engine.core.find(made.id), "", engine.now(), force=True)
        engine.wake()
        await eventually(lambda: engine.core.find(made.id).state == "available")
        with pytest.raises(OSError, match=r"."):
            device.seek(GIB // 2)
            device.write(b"lost")
            os.fsync(device)
    await made.unmount("node-1")
    assert not path.exists()
    await made.unstage("node-1")
    await made.unpublish("node-1")
    await made.publish("node-2")
    await made.stage("node-2")
    path = await made.mount("node-2")
    with path.open("rb") as device:
        assert device.read(3) == b"raw"
    await made.leave("node-2")
