"""Mounts, process references and probes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from linux import mount, pidfd
from linux.probe import CAPABILITIES, parse_capabilities, parse_kernel, probe

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")


def test_mountinfo_unescapes_paths() -> None:
    lines = [r"1 2 0:5 / /mnt/a\040b rw shared:1 - ext4 /dev/vda rw,x", "garbage"]
    assert mount.parse_mountinfo(lines) == [("/mnt/a b", "/", "ext4", "rw,x")]


def test_mounts_below_is_deepest_first_and_respects_names(tmp_path: Path) -> None:
    info = tmp_path / "mountinfo"
    points = ["/a", "/a/b", "/ab", "/a/b/c"]
    info.write_text("".join(f"1 2 0:5 / {point} rw - tmpfs tmpfs rw\n" for point in points))
    assert mount.mounts_below("/a", str(info)) == ["/a/b/c", "/a/b", "/a"]


def test_mounts_of_a_device_are_found_without_looking_at_them(tmp_path: Path) -> None:
    info = tmp_path / "mountinfo"
    rows = [("7:1", "/m/a"), ("7:1", "/m/a/b"), ("7:11", "/m/c"), ("7:1", "/elsewhere"), ("0:5", "/m/a/b")]
    info.write_text("".join(f"1 2 {device} / {point} rw - xfs /dev/x rw\n" for device, point in rows))
    assert mount.mounts_of(os.makedev(7, 1), "/m", str(info))[-1] == "/m/a"
    assert set(mount.mounts_of(os.makedev(7, 1), "/m", str(info))) == {"/m/a", "/m/a/b"}


@root_only
@pytest.mark.parametrize("layers", [pytest.param(2, id="shallow"), pytest.param(60, id="options-over-a-page")])
def test_overlay(tmp_path: Path, layers: int) -> None:
    base = Path("/var/lib") / f"nanokube-test-{os.getpid()}"  # overlay needs a real file system below it
    lowers = []
    for number in range(layers):
        folder = base / ("x" * 80 + str(number))
        folder.mkdir(parents=True)
        (folder / "name").write_text(str(number))
        lowers.append(str(folder))
    for part in ("upper", "work", "merged"):
        (base / part).mkdir()
    try:
        mount.overlay(str(base / "merged"), lowers, str(base / "upper"), str(base / "work"))
        assert mount.is_mount_point(str(base / "merged"))
        assert (base / "merged/name").read_text() == "0"
        (base / "merged/new").write_text("x")
        assert (base / "upper/new").exists()
    finally:
        assert mount.unmount_below(str(base)) == [str(base / "merged")]
        subprocess.run(["rm", "-rf", str(base)], check=True)


@root_only
def test_readonly_bind(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    mount.bind(str(tmp_path / "a"), str(tmp_path / "b"), readonly=True)
    try:
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "b/x").write_text("x")
    finally:
        mount.umount(str(tmp_path / "b"))


async def test_exit_is_seen_by_pidfd() -> None:
    process = subprocess.Popen(["sleep", "60"])  # noqa: ASYNC220 - the point is a process that asyncio does not own
    ref = pidfd.ProcessRef.of(process.pid)
    assert ref is not None
    assert ref.alive()
    fd = ref.open()
    assert fd is not None
    assert ref.send(signal.SIGTERM)
    async with asyncio.timeout(5):
        await pidfd.wait(fd)
    os.close(fd)
    assert not ref.alive()
    process.wait()
    assert not ref.send(signal.SIGTERM)
    assert ref.open() is None


def test_recycled_pid_is_another_process() -> None:
    assert not pidfd.ProcessRef(os.getpid(), 1).alive()
    assert pidfd.ProcessRef(os.getpid(), 1).open() is None


def test_capabilities() -> None:
    assert parse_capabilities("CapBnd:\t0000000000000005\n") == {"CHOWN", "DAC_READ_SEARCH"}
    assert parse_capabilities("nothing") == frozenset()
    assert len(CAPABILITIES) == 41
    assert CAPABILITIES[21] == "SYS_ADMIN"


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        pytest.param("6.1.0-13-amd64", (6, 1), id="debian"),
        pytest.param("5.15+x", (5, 15), id="suffix"),
        pytest.param("7", (7, 0), id="bare"),
    ],
)
def test_kernel(release: str, expected: tuple[int, int]) -> None:
    assert parse_kernel(release) == expected


def test_probe_answers() -> None:
    machine = probe()
    assert machine.cpus > 0
    assert machine.memory_bytes > 1 << 20
