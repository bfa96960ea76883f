"""Mount options, what is on a device, and sizes that will do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from block_storage import capabilities, disks
from block_storage.answers import CsiError
from linux.mount import MS_NODEV, MS_NOEXEC, MS_RDONLY
from proto.csi.v1 import csi_pb2 as pb

GIB = 1 << 30


@pytest.mark.parametrize(
    ("options", "flags", "data"),
    [
        pytest.param([], 0, [], id="none"),
        pytest.param(["defaults", "rw"], 0, [], id="nothing said"),
        pytest.param(["ro,nodev", "noexec"], MS_RDONLY | MS_NODEV | MS_NOEXEC, [], id="flags"),
        pytest.param(["discard", "ro", "barrier=0"], MS_RDONLY, ["discard", "barrier=0"], id="for the file system"),
        pytest.param([" noatime , ,x=1"], 1024, ["x=1"], id="blanks"),
    ],
)
def test_mount_options(options: list[str], flags: int, data: list[str]) -> None:
    assert disks.parse_options(options) == (flags, data)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        pytest.param(b"", "", id="empty"),
        pytest.param(bytes(4096), "", id="blank"),
        pytest.param(b"XFSB" + bytes(100), "xfs", id="xfs"),
        pytest.param(bytes(1080) + b"\x53\xef" + bytes(100), "ext4", id="ext4"),
        pytest.param(b"precious", "unknown", id="data is never taken for blank"),
        pytest.param(bytes(1 << 19) + b"late", "unknown", id="nor is data behind zeros"),
    ],
)
def test_what_is_on_a_device(tmp_path: Path, content: bytes, kind: str) -> None:
    device = tmp_path / "device"
    device.write_bytes(content)
    assert disks.filesystem(str(device)) == kind


@given(st.integers(0, 1 << 45), st.integers(0, 1 << 45))
def test_a_size_is_what_was_asked_for_or_is_refused(required: int, limit: int) -> None:
    wanted = pb.CapacityRange(required_bytes=required, limit_bytes=limit)
    try:
        size = capabilities.size_for(wanted, 1 << 44)
    except CsiError as error:
        assert error.code in ("OUT_OF_RANGE", "INVALID_ARGUMENT")
        assert required > 1 << 44 or 0 < limit < max(required, 1) + GIB
        return
    assert size % GIB == 0
    assert required <= size < max(required, 1) + GIB
    assert capabilities.has_size(size, wanted)


@pytest.mark.parametrize(
    ("requisite", "preferred", "zones"),
    [
        pytest.param([], [], [], id="anywhere"),
        pytest.param(["a", "b"], ["b", "a"], ["b", "a"], id="as preferred"),
        pytest.param(["a"], ["b", "a"], ["a"], id="only what is requisite"),
        pytest.param([], ["b"], ["b"], id="only a wish"),
    ],
)
def test_zones(requisite: list[str], preferred: list[str], zones: list[str]) -> None:
    def topologies(names: list[str]) -> list[pb.Topology]:
        return [pb.Topology(segments={capabilities.ZONE: name}) for name in names]

    wanted = pb.TopologyRequirement(requisite=topologies(requisite), preferred=topologies(preferred))
    assert list(capabilities.zones(wanted)) == zones
