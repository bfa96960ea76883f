"""An emptyDir is complete, whoever was killed while making it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from api.models import core_v1
from kubelet.volumes.pod_volumes import _empty_dir
from linux import mount

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="sets groups and mounts")


@root_only
def test_what_a_killed_kubelet_began_is_completed(tmp_path: Path) -> None:
    (tmp_path / ".cache.new").mkdir(mode=0o700)
    path = tmp_path / "cache"
    _empty_dir(path, core_v1.EmptyDirVolumeSource(), 2000)
    assert (path.stat().st_mode & 0o7777, path.stat().st_gid) == (0o2777, 2000)


@root_only
def test_what_a_container_changed_stays(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    _empty_dir(path, core_v1.EmptyDirVolumeSource(), None)
    assert path.stat().st_mode & 0o7777 == 0o777
    (path / "file").touch()
    path.chmod(0o700)
    _empty_dir(path, core_v1.EmptyDirVolumeSource(), None)
    assert path.stat().st_mode & 0o7777 == 0o700
    assert (path / "file").exists()


@root_only
def test_memory_is_mounted_once_even_when_the_folder_is_there(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    path.mkdir()
    try:
        for _ in range(2):
            _empty_dir(path, core_v1.EmptyDirVolumeSource(medium="Memory", sizeLimit="1Mi"), 2000)
        assert mount.mounts_below(str(path)) == [str(path)]
        assert (path.stat().st_mode & 0o7777, path.stat().st_gid) == (0o2777, 2000)
    finally:
        mount.unmount_below(str(path))
