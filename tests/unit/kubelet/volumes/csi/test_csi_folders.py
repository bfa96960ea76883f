"""Notes beside volumes: what a kubelet that comes later finds, and what it never removes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubelet.volumes.csi import folders as disk
from kubelet.volumes.csi.folders import Folders, Note

NOTE = Note("d.example", "h-1", "pv-1", "n1", "csi-x", "Persistent")


def test_paths_are_upstreams(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    # sha256 of h-1
    digest = "58b6ab1d1f9f45ad2ad3bd8fd4d2d3ec"
    staging = folders.staging("d.example", "h-1", "pv-1", block=False)
    assert staging.parent.parent == tmp_path / "plugins/kubernetes.io/csi/d.example"
    assert len(staging.parent.name) == 2 * len(digest)
    assert staging.name == "globalmount"
    assert folders.target("u", "pv-1") == tmp_path / "pods/u/volumes/kubernetes.io~csi/pv-1/mount"


def test_a_note_has_upstreams_names(tmp_path: Path) -> None:
    disk.write(tmp_path / "v", NOTE)
    text = (tmp_path / "v" / "vol_data.json").read_text()
    for field in ("driverName", "volumeHandle", "specVolID", "nodeName", "attachmentID", "volumeLifecycleMode"):
        assert f'"{field}":' in text
    assert disk.read(tmp_path / "v") == NOTE
    disk.remove(tmp_path / "v")
    disk.remove(tmp_path / "v")
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"driverName": 5}', "null"])
def test_a_note_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "vol_data.json").write_text(text)
    assert disk.read(tmp_path) is None


def test_volumes_and_holds_are_found_again(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    device = folders.device("d.example", "h-1", "pv-1", block=False)
    disk.write(device, NOTE)
    raw = Note("d.example", "h-2", "pv-2")
    disk.write(folders.device("d.example", "h-2", "pv-2", block=True), raw)
    disk.write(folders.pod("u", "pv-1"), NOTE)
    link = folders.pod_device("u", "pv-2")
    link.parent.mkdir(parents=True)
    link.symlink_to(folders.device_target("u", "pv-2"))
    folders.pod("u", "torn").mkdir()
    assert list(folders.devices()) == [
        (device, NOTE, False),
        (folders.device("d.example", "h-2", "pv-2", block=True), raw, True),
    ]
    assert [(held.folder.name, held.note) for held in folders.held("u")] == [
        ("pv-1", NOTE),
        ("torn", None),
        ("pv-2", raw),
    ]
    assert folders.pods() == ["u"]
    assert folders.held("nobody") == []


def test_data_that_lies_where_a_volume_was_is_never_removed(tmp_path: Path) -> None:
    target = tmp_path / "mount"
    target.mkdir()
    (target / "precious").write_text("x")
    with pytest.raises(OSError, match="not empty"):
        disk.remove_target(target)
    assert (target / "precious").exists()
