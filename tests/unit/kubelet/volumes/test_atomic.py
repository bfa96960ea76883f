"""Volume files are switched all at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet.volumes.atomic import write_payload
from kubelet.volumes.payload import File


def visible(folder: Path) -> dict[str, bytes]:
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith("..")]
    found = {}
    for name in names:
        for path in [folder / name, *(folder / name).rglob("*")]:
            if path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


NAMES = st.sampled_from(["a", "b.txt", "dir/c", "dir/sub/d", "..e".replace("..", "x")])
PAYLOADS = st.dictionaries(NAMES, st.binary(max_size=5), max_size=5)


@given(versions=st.lists(PAYLOADS, min_size=1, max_size=4))
def test_readers_see_exactly_the_last_version(tmp_path_factory: object, versions: list[dict[str, bytes]]) -> None:
    folder = tmp_path_factory.mktemp("volume")  # type: ignore[attr-defined]
    for version in versions:
        write_payload(folder, {name: File(content) for name, content in version.items()})
        assert visible(folder) == version
        assert len([entry for entry in folder.iterdir() if entry.name.startswith("..")]) == 2, "..data and one folder"


def test_unchanged_files_are_not_written_again(tmp_path: Path) -> None:
    files = {"a": File(b"1", 0o400)}
    assert write_payload(tmp_path, files)
    before = (tmp_path / "..data").readlink()
    assert not write_payload(tmp_path, files)
    assert (tmp_path / "..data").readlink() == before
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o400


class Killed(BaseException):
    """The process ended here."""


@pytest.mark.parametrize("calls", range(12))
def test_whoever_is_killed_on_the_way_is_made_good_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    write_payload(tmp_path, {"a": File(b"1"), "old": File(b"1")})
    wanted = {"a": File(b"2"), "new/x": File(b"2"), "new2": File(b"2")}
    left = calls

    def mortal(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return method(*args, **named)

        return call

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        for name in ("write_bytes", "symlink_to", "rename", "unlink", "iterdir"):
            patch.setattr(Path, name, mortal(getattr(Path, name)))
        write_payload(tmp_path, wanted)
    write_payload(tmp_path, wanted)
    assert visible(tmp_path) == {name: file.content for name, file in wanted.items()}
    assert len([entry for entry in tmp_path.iterdir() if entry.name.startswith("..")]) == 2
