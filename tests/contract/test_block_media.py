"""What every kind of disk promises: what is written stays, the machine sees what it was given, busy is busy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from block_storage import disks
from cloud.volumes_media import DEVICES, FakeMedia, Farewell, FolderMedia, LoopMedia, Media
from linux import loop, mount

SIZE = 64 << 20
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")


class Site:
    """Disks of one kind, and how a machine uses them."""

    def __init__(self, media: Media, root: Path) -> None:
        self.media = media
        self.root = root

    def device(self, machine: str, volume: str = "vol-1") -> Path:
        return self.root / "machines" / machine / DEVICES / volume

    def sees(self, machine: str) -> bool:
        if isinstance(self.media, FakeMedia):
            return ("vol-1", machine) in self.media.plugged
        return self.device(machine).exists()

    def use(self, machine: str) -> None:
        """Mount it; the data need not be a file system, a bind of the device keeps it as busy."""
        if isinstance(self.media, FakeMedia):
            self.media.mounted.add(("vol-1", machine))
            return
        source, target = self.device(machine).resolve(), self.root / "machines" / machine / "target"
        if source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        mount.bind(str(source), str(target))

    def uses(self, machine: str) -> bool:
        if isinstance(self.media, FakeMedia):
            return ("vol-1", machine) in self.media.mounted
        return mount.is_mount_point(str(self.root / "machines" / machine / "target"))


@pytest.fixture(params=["fake", "folder", "loop"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    folders = tmp_path / "volumes", tmp_path / "machines"
    if request.param == "loop" and not loop.available():
        pytest.skip("this machine has no loop devices")
    kinds: dict[str, Media] = {"fake": FakeMedia(), "folder": FolderMedia(*folders), "loop": LoopMedia(*folders)}
    try:
        yield Site(kinds[request.param], tmp_path)
    finally:
        mount.unmount_below(str(tmp_path))
        loop.detach_below(str(folders[0]))


def test_everything_may_be_done_twice(site: Site) -> None:
    for _ in range(2):
        site.media.shape("vol-1", SIZE)
    for _ in range(2):
        site.media.plug("vol-1", "m1")
        assert site.sees("m1")
    site.media.shape("vol-1", 2 * SIZE)
    for _ in range(2):
        assert site.media.unplug("vol-1", "m1", "ask")
        assert not site.sees("m1")
    for _ in range(2):
        site.media.remove("vol-1")


@pytest.mark.parametrize("how", ["pull", "bury"])
def test_a_busy_disk_stays_until_it_is_taken(site: Site, how: Farewell) -> None:
    site.media.shape("vol-1", SIZE)
    site.media.plug("vol-1", "m1")
    site.use("m1")
    assert not site.media.unplug("vol-1", "m1", "ask")
    assert site.sees("m1")
    assert site.media.unplug("vol-1", "m1", how)
    assert not site.sees("m1")
    if not isinstance(site.media, FakeMedia):
        assert site.uses("m1") == (how == "pull"), "what a working machine has mounted is its own to unmount"
    site.media.plug("vol-1", "m2")
    assert (site.sees("m1"), site.sees("m2")) == (False, True)
    assert site.media.unplug("vol-1", "m2", "ask")
    site.media.remove("vol-1")


@pytest.mark.parametrize("site", ["folder", "loop"], indirect=True)
def test_data_moves_with_the_disk(site: Site) -> None:
    site.media.shape("vol-1", SIZE)
    for number in range(3):
        name = f"m{number}"
        site.media.plug("vol-1", name)
        device = site.device(name).resolve()
        file = device / "file" if device.is_dir() else device
        if number:
            with file.open("rb") as reader:
                assert reader.read(5) == b"hello"
        else:
            with file.open("wb" if device.is_dir() else "r+b") as writer:
                writer.write(b"hello")
        assert site.media.unplug("vol-1", name, "ask")
    site.media.remove("vol-1")


@pytest.mark.parametrize("site", ["loop"], indirect=True)
def test_a_loop_device_has_the_size_of_its_disk(site: Site) -> None:
    site.media.shape("vol-1", SIZE)
    site.media.plug("vol-1", "m1")
    assert loop.size(str(site.device("m1"))) == SIZE
    site.media.shape("vol-1", 2 * SIZE)
    assert loop.size(str(site.device("m1"))) == 2 * SIZE
    assert loop.detach_below(str(site.root / "volumes"))
    assert not loop.find(str(site.root / "volumes" / "vol-1"))


@pytest.mark.parametrize("site", ["loop"], indirect=True)
@pytest.mark.parametrize("how", ["pull", "bury"])
def test_a_file_system_that_nobody_sees_any_more_still_holds_its_disk(site: Site, how: Farewell) -> None:
    """It was unmounted lazily, or a dying process has it in a namespace of its own: its last word is yet to come."""
    site.media.shape("vol-1", SIZE)
    site.media.plug("vol-1", "m1")
    target = site.root / "machines" / "m1" / "target"
    target.mkdir()
    device = str(site.device("m1").resolve())
    disks.make_filesystem(device, "ext4")
    mount.mount(device, str(target), "ext4")
    with (target / "open").open("wb") as held:
        mount.umount(str(target))
        held.write(b"written late")
        held.flush()
        assert not site.media.unplug("vol-1", "m1", "ask")
        assert site.sees("m1")
        assert site.media.unplug("vol-1", "m1", how)
    site.media.plug("vol-1", "m2")
    assert site.media.unplug("vol-1", "m2", "ask")
