"""Loop devices and pulled disks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from linux import loop

MIB = 1 << 20
pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not loop.available(), reason="no loop devices")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "disk"
    with file.open("wb") as made:
        made.truncate(4 * MIB)
    yield file
    loop.detach_below(str(tmp_path))


def test_a_file_is_one_device_however_often_it_is_asked_for(disk: Path) -> None:
    assert loop.find(str(disk)) == ""
    device = loop.attach(str(disk))
    assert loop.attach(str(disk)) == loop.find(str(disk)) == device
    assert Path(device).is_block_device()
    loop.detach(device)
    loop.detach(device)
    assert loop.find(str(disk)) == ""


def test_it_grows_with_its_file(disk: Path) -> None:
    device = loop.attach(str(disk))
    os.truncate(disk, 8 * MIB)
    loop.refresh_size(device)
    assert loop.size(device) == 8 * MIB


def test_a_device_that_is_only_held_open_is_not_found_again(disk: Path) -> None:
    first = loop.attach(str(disk))
    holder = os.open(first, os.O_RDONLY)
    try:
        loop.detach(first)
        second = loop.attach(str(disk))
        assert second != first
    finally:
        os.close(holder)
    assert loop.find(str(disk)) == second


def test_a_device_that_was_cut_off_writes_nothing_more(disk: Path) -> None:
    device = loop.attach(str(disk))
    holder = os.open(device, os.O_RDWR)
    try:
        os.pwrite(holder, b"kept", MIB)
        loop.cut_off(device)
        loop.detach(device)
        assert loop.find(str(disk)) == ""
        with pytest.raises(OSError, match=r"."):
            os.pwrite(holder, b"lost", 2 * MIB)
            os.fsync(holder)
    finally:
        os.close(holder)
    content = disk.read_bytes()
    assert content[MIB : MIB + 4] == b"kept"
    assert content[2 * MIB : 2 * MIB + 4] == bytes(4)
    assert len(content) == 4 * MIB


def test_what_is_not_there(tmp_path: Path) -> None:
    assert loop.find(str(tmp_path / "nothing")) == ""
    assert loop.detach_below(str(tmp_path / "nothing")) == []
    with pytest.raises(FileNotFoundError):
        loop.attach(str(tmp_path / "nothing"))
