"""`up --block-volumes`: what volumes are made of, which processes there are, and what they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.resources import by_kind
from block_storage import app as driver
from block_storage.capabilities import DRIVER, FILESYSTEMS, ZONE
from cli import block_volumes, pki, processes
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths, NodeConfig
from cloud import app as cloud
from cloud.model import ZONE_LABEL
from csi_controllers import app as controllers
from linux import loop

PATHS = ClusterPaths(Path("/state/demo"))


def config(**more: str) -> ClusterConfig:
    return ClusterConfig(name="demo", index=3, block_volumes="loop", block_filesystem="xfs", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("loops", "capabilities", "wanted"),
    [
        pytest.param(True, True, ("loop", "ext4"), id="all there"),
        pytest.param(True, False, ("loop", "xfs"), id="ext4 could not grow"),
        pytest.param(False, True, ("folder", ""), id="no loop devices"),
    ],
)
def test_what_volumes_are_made_of(
    monkeypatch: pytest.MonkeyPatch, loops: bool, capabilities: bool, wanted: tuple[str, str]
) -> None:
    class Machine:
        def can(self, name: str) -> bool:
            return capabilities

    monkeypatch.setattr(loop, "available", lambda: loops)
    monkeypatch.setattr(block_volumes, "probe", Machine)
    monkeypatch.setattr(Path, "read_text", lambda self: "nodev\tproc\n\text4\n\txfs\n")
    made = ClusterConfig(name="demo", index=3)
    block_volumes.choose(made, cloud=True)
    assert (made.block_volumes, made.block_filesystem) == wanted
    assert bool(block_volumes.programs(made)) == (wanted[0] == "loop")
    monkeypatch.setattr(loop, "available", lambda: not loops)
    block_volumes.choose(made, cloud=True)
    assert made.block_volumes == wanted[0], "a cluster's volumes stay what they are"


def test_there_are_none_without_a_cloud() -> None:
    with pytest.raises(CommandError, match="wants a cloud"):
        block_volumes.choose(ClusterConfig(name="demo", index=3), cloud=False)


def test_the_processes_and_their_flags() -> None:
    labels = "a=b,topology.kubernetes.io/zone=local-b"
    node = NodeConfig("worker-1", 1, cpu="1500m", labels=labels)
    plain = {spec.name for spec in processes.control_plane(ClusterConfig(name="demo", index=3), PATHS, "etcd")}
    specs = {spec.name: spec for spec in processes.control_plane(config(), PATHS, "etcd")}
    assert specs.keys() - plain == {"block-driver", "csi-controllers"}
    assert cloud.parser().parse_args(specs["cloud"].argv).volumes == "loop"
    assert driver.parser().parse_args(specs["block-driver"].argv).cloud
    assert controllers.parser().parse_args(specs["csi-controllers"].argv).csi_address.startswith("unix:")
    own = processes.worker(config(), PATHS, node, "x")[-1]
    told = driver.parser().parse_args(own.argv)
    assert (told.node_id, told.zone, told.max_volumes, told.filesystem) == ("worker-1", "local-b", 8, "xfs")
    kubelet = next(each for each in processes.worker(config(), PATHS, node, "x") if each.component == "kubelet")
    root = next(flag.partition("=")[2] for flag in kubelet.argv if flag.startswith("--root="))
    assert str(told.registration).startswith(f"{root}/plugins_registry/")
    assert ("csi-controllers", False) in pki._accounts(config())
    assert not any(
        "block" in each.name for each in processes.worker(ClusterConfig(name="d", index=3), PATHS, node, "x")
    )


def test_sockets_have_names_that_the_kernel_takes() -> None:
    paths = ClusterPaths(Path("/var/lib/nanokube") / ("c" * 20))
    own = processes.worker(config(), paths, NodeConfig("n" * 20, 1), "x")[-1]
    told = driver.parser().parse_args(own.argv)
    assert max(len(str(each)) for each in (told.endpoint, told.registration, paths.block_socket)) <= 107


def test_the_objects_lie_where_they_belong_and_agree_with_the_driver() -> None:
    placed = list(block_volumes.objects(config()))
    for path, obj in placed:
        group, _, version = obj["apiVersion"].rpartition("/")
        resource = by_kind(group, version, obj["kind"])
        assert resource is not None
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        scope = f"/namespaces/{obj['metadata']['namespace']}" if resource.namespaced else ""
        assert path == f"{root}{scope}/{resource.plural}"
    found = {obj["kind"]: obj for _, obj in placed}
    assert found["CSIDriver"]["metadata"]["name"] == found["StorageClass"]["provisioner"] == DRIVER
    assert found["StorageClass"]["parameters"]["csi.storage.k8s.io/fstype"] in FILESYSTEMS
    assert set(block_volumes.FILESYSTEMS) == set(FILESYSTEMS)
    assert ZONE_LABEL == ZONE
