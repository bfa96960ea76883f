"""Volume files are switched all at once."""

from __future__ import annotations

from pathlib import Path

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
