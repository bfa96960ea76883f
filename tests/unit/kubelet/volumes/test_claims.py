"""From a pod's claim to a folder of this node, and why not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from api.models import core_v1
from api.volumes import NODE_LOCAL, PROVISIONED_BY, Claim, Volume
from kubelet.volumes.claims import ClaimVolumes, on_this_node
from kubelet.volumes.objects import ObjectReader
from kubelet.volumes.ownership import own
from kubelet.volumes.payload import VolumeError

HOST = "kubernetes.io/hostname"


class Reader:
    def __init__(self, claim: Claim | None, volume: Volume | None) -> None:
        self._answers = claim, volume

    async def claim(self, namespace: str, name: str) -> Claim | None:
        return self._answers[0]

    async def volume(self, name: str) -> Volume | None:
        return self._answers[1]


def pod(*, device: bool = False, read_only: bool = False) -> core_v1.Pod:
    use: dict[str, Any] = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    if device:
        use = {"volumeDevices": [{"name": "data", "devicePath": "/dev/x"}]}
    return msgspec.convert(
        {
            "metadata": {"name": "web", "namespace": "default", "uid": "p"},
            "spec": {
                "containers": [{"name": "main", **use}],
                "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": read_only}},
                ],
            },
        },
        core_v1.Pod,
    )


def claim(phase: str = "Bound", **meta: Any) -> Claim:
    return msgspec.convert(
        {
            "metadata": {"name": "data", "namespace": "default", "uid": "c", **meta},
            "spec": {"volumeName": "pv"},
            "status": {"phase": phase},
        },
        Claim,
    )


def volume(source: Mapping[str, Any], *, node: str = "n1", uid: str = "c", ours: bool = False, **spec: Any) -> Volume:
    expression = {"key": HOST, "operator": "In", "values": [node]}
    return msgspec.convert(
        {
            "metadata": {"name": "pv", "annotations": {PROVISIONED_BY: NODE_LOCAL} if ours else {}},
            "spec": {
                **source,
                "claimRef": {"namespace": "default", "name": "data", "uid": uid},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
                **spec,
            },
        },
        Volume,
    )


async def find(claim: Claim | None, volume: Volume | None, pod_: core_v1.Pod | None = None) -> Any:
    used = pod_ or pod()
    reader = cast("ObjectReader", Reader(claim, volume))
    assert used.spec is not None and used.spec.volumes is not None
    return on_this_node(await ClaimVolumes(reader, lambda: {HOST: "n1"}).find(used, used.spec.volumes[0]))


PROCESS = (
    "Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], failed to process "
    "volumes=[data]: "
)
PVC = PROCESS + "error processing PVC default/data: "


@pytest.mark.parametrize(
    ("claim_", "volume_", "text"),
    [
        pytest.param(
            None, None, PVC + 'failed to fetch PVC from API server: persistentvolumeclaims "data" not found', id="none"
        ),
        pytest.param(claim("Pending"), None, PVC + "PVC is not bound", id="pending"),
        pytest.param(
            claim(deletionTimestamp="2026-01-01T00:00:00Z"), None, PVC + "PVC is being deleted", id="deleting"
        ),
        pytest.param(
            claim(),
            None,
            PROCESS + 'failed to fetch PV pv from API server: persistentvolumes "pv" not found',
            id="no volume",
        ),
        pytest.param(
            claim(),
            volume({"local": {"path": "/"}}, uid="other"),
            PROCESS + "found PV object pv but its pv.Spec.ClaimRef.UID other does not point to claim.UID c",
            id="another's",
        ),
        pytest.param(
            claim(),
            volume({"local": {"path": "/"}}, node="n2"),
            'MountVolume.NodeAffinity check failed for volume "pv" : no matching NodeSelectorTerms',
            id="elsewhere",
        ),
        pytest.param(
            claim(),
            volume({"local": {"path": "/no/such/folder"}}),
            'MountVolume.NewMounter initialization failed for volume "pv" : path "/no/such/folder" does not exist',
            id="no folder",
        ),
        pytest.param(
            claim(),
            volume({"local": {"path": "/"}}, volumeMode="Block"),
            PROCESS + "volume data has volumeMode Block, but is specified in volumeMounts",
            id="block",
        ),
        pytest.param(
            claim(),
            volume({"nfs": {"server": "s", "path": "/"}}),
            'MountVolume.SetUp failed for volume "pv" : no volume plugin matched',
            id="nfs",
        ),
    ],
)
async def test_what_cannot_be_mounted_is_said_in_upstreams_words(
    claim_: Claim | None, volume_: Volume | None, text: str
) -> None:
    with pytest.raises(VolumeError) as caught:
        await find(claim_, volume_)
    assert str(caught.value) == text


async def test_a_block_volume_must_be_a_device() -> None:
    with pytest.raises(VolumeError, match="/ is not a block device"):
        await find(claim(), volume({"local": {"path": "/"}}, volumeMode="Block"), pod(device=True))
    with pytest.raises(VolumeError, match="no volume plugin matched"):
        await find(claim(), volume({"hostPath": {"path": "/"}}, volumeMode="Block"), pod(device=True))


async def test_host_paths_and_local_folders_are_where_they_are(tmp_path: Path) -> None:
    found = await find(claim(), volume({"hostPath": {"path": "/srv/x", "type": "Directory"}}), pod(read_only=True))
    assert (found.path, found.host_type, found.read_only) == (Path("/srv/x"), "Directory", True)
    found = await find(claim(), volume({"local": {"path": str(tmp_path)}}))
    assert (found.path, found.host_type, found.read_only) == (tmp_path, None, False)


async def test_our_own_volume_begins_with_its_first_pod_and_keeps_its_data(tmp_path: Path) -> None:
    path = tmp_path / "volumes" / "pvc-1"
    await find(claim(), volume({"local": {"path": str(path)}}, ours=True))
    assert path.stat().st_mode & 0o777 == 0o777
    (path / "kept").write_text("x")
    await find(claim(), volume({"local": {"path": str(path)}}, ours=True))
    assert (path / "kept").read_text() == "x"
    assert os.listdir(path.parent) == ["pvc-1"]


def test_the_group_owns_everything_but_what_links_lead_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("")
    top = tmp_path / "top"
    (top / "deep").mkdir(parents=True)
    (top / "deep" / "file").write_text("")
    (top / "link").symlink_to(outside)
    before = outside.stat().st_gid
    own(top, 1234, None)
    for path in (top, top / "deep", top / "deep" / "file"):
        assert path.stat().st_gid == 1234
    assert top.stat().st_mode & 0o7777 == 0o2775
    assert (top / "deep" / "file").stat().st_mode & 0o060 == 0o060
    assert outside.stat().st_gid == before


def test_an_owned_top_is_enough_where_the_policy_says_so(tmp_path: Path) -> None:
    own(tmp_path, 1234, None)
    (tmp_path / "later").write_text("")
    os.chown(tmp_path / "later", -1, 0)
    own(tmp_path, 1234, "OnRootMismatch")
    assert (tmp_path / "later").stat().st_gid == 0
    own(tmp_path, 1234, "Always")
    assert (tmp_path / "later").stat().st_gid == 1234
