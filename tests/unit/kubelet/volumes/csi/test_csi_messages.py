"""What a driver is asked for, by what the volume and its CSIDriver say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.models import core_v1, storage_v1
from api.volumes import Volume
from kubelet.volumes.csi import messages
from kubelet.volumes.csi.messages import CsiVolume, Mode

DRIVER, HANDLE = "d.example", "h-1"


def volume(source: dict[str, Any] | None = None, **spec: Any) -> Volume:
    csi = {"driver": DRIVER, "volumeHandle": HANDLE, **(source or {})}
    return msgspec.convert({"metadata": {"name": "pv-1"}, "spec": {"csi": csi, **spec}}, Volume)


def driver(**spec: Any) -> storage_v1.CSIDriver:
    return msgspec.convert({"metadata": {"name": DRIVER}, "spec": spec}, storage_v1.CSIDriver)


def pod(**spec: Any) -> core_v1.Pod:
    meta = {"name": "web", "namespace": "ns", "uid": "u-1"}
    return msgspec.convert({"metadata": meta, "spec": {"containers": [], **spec}}, core_v1.Pod)


def test_a_persistent_volume_is_told_whole() -> None:
    secret = {"namespace": "store", "name": "key"}
    found = messages.persistent(
        volume(
            {"fsType": "xfs", "volumeAttributes": {"a": "b"}, "nodeStageSecretRef": secret},
            accessModes=["ReadWriteOnce"],
            mountOptions=["ro"],
        ),
        read_only=True,
    )
    assert found == CsiVolume(
        DRIVER,
        HANDLE,
        "pv-1",
        modes=("ReadWriteOnce",),
        fs_type="xfs",
        mount_options=("ro",),
        read_only=True,
        attributes={"a": "b"},
        stage_secret=("store", "key"),
    )
    assert found.unique == f"kubernetes.io/csi/{DRIVER}^{HANDLE}"


def test_the_handle_of_an_inline_volume_is_made_of_pod_and_volume() -> None:
    source = core_v1.CSIVolumeSource(driver=DRIVER, nodePublishSecretRef=core_v1.LocalObjectReference(name="k"))
    found = messages.inline(pod(), core_v1.Volume(name="data", csi=source))
    assert found.handle == "csi-7a075fb358279980b660d575168af6c25ee140b5f3a73a8a16e21f8e4f1e9ad8"  # sha256 of u-1data
    assert (found.persistent, found.publish_secret) == (False, ("ns", "k"))


@pytest.mark.parametrize(
    ("modes", "tells_apart", "wanted"),
    [
        pytest.param([], False, Mode.SINGLE_NODE_WRITER, id="none"),
        pytest.param(["ReadWriteOnce"], False, Mode.SINGLE_NODE_WRITER, id="RWO"),
        pytest.param(["ReadWriteOnce"], True, Mode.SINGLE_NODE_MULTI_WRITER, id="RWO-apart"),
        pytest.param(["ReadWriteOncePod"], False, Mode.SINGLE_NODE_WRITER, id="RWOP"),
        pytest.param(["ReadWriteOncePod"], True, Mode.SINGLE_NODE_SINGLE_WRITER, id="RWOP-apart"),
        pytest.param(["ReadOnlyMany"], True, Mode.MULTI_NODE_READER_ONLY, id="ROX"),
        pytest.param(["ReadWriteMany", "ReadWriteOnce"], True, Mode.MULTI_NODE_MULTI_WRITER, id="the-first-counts"),
    ],
)
def test_access_modes(modes: list[str], tells_apart: bool, wanted: int) -> None:
    found = messages.persistent(volume(accessModes=modes), read_only=False)
    told = messages.capability(found, tells_writers_apart=tells_apart)
    assert told.access_mode.mode == wanted
    assert told.WhichOneof("access_type") == "mount"


def test_block_volumes_are_no_file_systems() -> None:
    found = messages.persistent(volume({"fsType": "ext4"}, volumeMode="Block"), read_only=False)
    assert messages.capability(found, tells_writers_apart=False).WhichOneof("access_type") == "block"


def test_a_driver_may_set_the_group_itself() -> None:
    found = messages.persistent(volume(mountOptions=["a"]), read_only=False)
    told = messages.capability(found, tells_writers_apart=False, group=7).mount
    assert (told.volume_mount_group, list(told.mount_flags)) == ("7", ["a"])


RWO, RWX = ["ReadWriteOnce"], ["ReadWriteMany"]


@pytest.mark.parametrize(
    ("policy", "fs_type", "modes", "read_only", "wanted"),
    [
        pytest.param(None, "ext4", RWO, False, True, id="default"),
        pytest.param("ReadWriteOnceWithFSType", "ext4", ["ReadWriteOncePod"], False, True, id="one-pod"),
        pytest.param("ReadWriteOnceWithFSType", "", RWO, False, False, id="no-type"),
        pytest.param("ReadWriteOnceWithFSType", "ext4", RWX, False, False, id="shared"),
        pytest.param("File", "", RWX, False, True, id="file"),
        pytest.param("File", "", RWX, True, False, id="read-only"),
        pytest.param("None", "ext4", RWO, False, False, id="never"),
    ],
)
def test_whose_files_change_group(
    policy: str | None, fs_type: str, modes: list[str], read_only: bool, wanted: bool
) -> None:
    found = messages.persistent(volume({"fsType": fs_type}, accessModes=modes), read_only=read_only)
    assert messages.changes_group(found, driver(fsGroupPolicy=policy) if policy else None) is wanted


def test_inline_volumes_with_a_type_change_group() -> None:
    source = core_v1.CSIVolumeSource(driver=DRIVER, fsType="ext4")
    assert messages.changes_group(messages.inline(pod(), core_v1.Volume(name="data", csi=source)), driver())


@pytest.mark.parametrize(
    ("persistent", "its_object", "problem"),
    [
        pytest.param(True, None, "", id="unknown"),
        pytest.param(
            False, None, 'volume mode "Ephemeral" not supported by driver d.example (no CSIDriver object)', id="inline"
        ),
        pytest.param(True, driver(), "", id="default"),
        pytest.param(
            False,
            driver(volumeLifecycleModes=["Persistent"]),
            'volume mode "Ephemeral" not supported by driver d.example (only supports ["Persistent"])',
            id="persistent-only",
        ),
        pytest.param(False, driver(volumeLifecycleModes=["Persistent", "Ephemeral"]), "", id="both"),
    ],
)
def test_lifecycle_modes(persistent: bool, its_object: storage_v1.CSIDriver | None, problem: str) -> None:
    assert messages.mode_problem(CsiVolume(DRIVER, HANDLE, "v", persistent), its_object) == problem


def test_a_driver_that_does_not_ask_learns_nothing_of_the_pod() -> None:
    found = messages.persistent(volume(), read_only=False)
    assert messages.pod_facts(pod(), found, driver(podInfoOnMount=False)) == {}
    told = messages.pod_facts(pod(serviceAccountName="robot"), found, driver(podInfoOnMount=True))
    assert told["csi.storage.k8s.io/serviceAccount.name"] == "robot"
    assert told["csi.storage.k8s.io/ephemeral"] == "false"
