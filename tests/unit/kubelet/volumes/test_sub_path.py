"""subPath: what a container puts into its volume never leads a mount out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelet.env import EnvError, expand_sub_path
from kubelet.volumes.payload import VolumeError
from kubelet.volumes.sub_path import bind_sub_path
from linux import mount


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid():
        pytest.skip("mounting needs root")
    made = tmp_path / "volume"
    made.mkdir()
    yield made
    mount.unmount_below(str(tmp_path))


def test_a_folder_is_made_and_bound(volume: Path, tmp_path: Path) -> None:
    volume.chmod(0o770)
    place = bind_sub_path(volume, "a/b", tmp_path / "place" / "0")
    (place / "file").write_text("x")
    assert (volume / "a" / "b" / "file").read_text() == "x"
    assert (volume / "a").stat().st_mode & 0o777 == 0o770


def test_a_file_is_bound_and_binding_again_replaces(volume: Path, tmp_path: Path) -> None:
    (volume / "one").write_text("1")
    (volume / "two").write_text("2")
    place = tmp_path / "place"
    assert bind_sub_path(volume, "one", place).read_text() == "1"
    assert bind_sub_path(volume, "two", place).read_text() == "2"


def test_a_link_inside_the_volume_is_followed(volume: Path, tmp_path: Path) -> None:
    (volume / "real").mkdir()
    (volume / "real" / "file").write_text("x")
    (volume / "link").symlink_to("real")
    assert (bind_sub_path(volume, "link", tmp_path / "place") / "file").read_text() == "x"


@pytest.mark.parametrize("target", ["/etc", "../outside", "/proc/self/root"])
@pytest.mark.parametrize("sub", ["link", "link/deeper"])
def test_a_link_out_of_the_volume_is_refused(volume: Path, tmp_path: Path, target: str, sub: str) -> None:
    (tmp_path / "outside").mkdir()
    (volume / "link").symlink_to(target)
    with pytest.raises(OSError, match="link"):
        bind_sub_path(volume, sub, tmp_path / "place")
    assert not (tmp_path / "outside" / "deeper").exists()


@pytest.mark.parametrize(
    ("sub", "why"),
    [("/etc", "must not be an absolute path"), ("a/../../b", "must not contain '..'")],
)
def test_paths_that_say_it_openly_are_refused(volume: Path, tmp_path: Path, sub: str, why: str) -> None:
    with pytest.raises(VolumeError, match=why):
        bind_sub_path(volume, sub, tmp_path / "place")


def test_a_mounted_path_stays_what_it_was_when_its_name_changes(volume: Path, tmp_path: Path) -> None:
    place = bind_sub_path(volume, "data", tmp_path / "place")
    (volume / "data").rmdir()
    (volume / "data").symlink_to("/etc")
    assert not (place / "passwd").exists()


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [("$(POD)/x", {"POD": "web"}, "web/x"), ("$$(POD)", {}, "$(POD)"), ("plain", {}, "plain")],
)
def test_expressions(text: str, values: dict[str, str], expected: str) -> None:
    assert expand_sub_path(text, values) == expected


@pytest.mark.parametrize("values", [{}, {"B": ""}])
def test_an_expression_needs_its_variables(values: dict[str, str]) -> None:
    with pytest.raises(EnvError, match='missing value for "A", "B"'):
        expand_sub_path("$(B)/$(A)", values)
