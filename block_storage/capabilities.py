"""What volumes of the driver can be used for, and how big they are. Pure.

Owns the refusals of capabilities, capacities and topologies that are common to several calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from block_storage.answers import CsiError, invalid
from proto.csi.v1 import csi_pb2 as pb

DRIVER: Final = "block.csi.nanokube.io"
ZONE: Final = "topology.kubernetes.io/zone"
FILESYSTEMS: Final = ("ext4", "xfs")
GIB: Final = 1 << 30
_Mode = pb.VolumeCapability.AccessMode
MODES: Final = frozenset(
    (
        _Mode.SINGLE_NODE_WRITER,
        _Mode.SINGLE_NODE_READER_ONLY,
        _Mode.SINGLE_NODE_SINGLE_WRITER,
        _Mode.SINGLE_NODE_MULTI_WRITER,
    )
)


def problem(capability: pb.VolumeCapability) -> str:
    """Why a volume cannot be used like this; "" when it can."""
    kind = capability.WhichOneof("access_type")
    if kind is None:
        return "an access type is missing in the volume capability"
    mode = capability.access_mode.mode
    if mode == _Mode.UNKNOWN:
        return "an access mode is missing in the volume capability"
    if mode not in MODES:
        return f"access mode {_Mode.Mode.Name(mode)} is not supported: a volume is on one node at a time"
    if kind == "mount" and capability.mount.fs_type not in ("", *FILESYSTEMS):
        return f"file system {capability.mount.fs_type!r} is not supported (known: {', '.join(FILESYSTEMS)})"
    return ""


def check(capabilities: Iterable[pb.VolumeCapability]) -> None:
    """Raises INVALID_ARGUMENT."""
    for each in capabilities:
        why = problem(each)
        if why:
            raise invalid(why)


def is_read_only(capability: pb.VolumeCapability) -> bool:
    return capability.access_mode.mode == _Mode.SINGLE_NODE_READER_ONLY


def size_for(wanted: pb.CapacityRange, largest: int) -> int:
    """Bytes of a volume in whole GiB. Raises INVALID_ARGUMENT, or OUT_OF_RANGE when no size will do."""
    if wanted.required_bytes < 0 or wanted.limit_bytes < 0:
        raise invalid("a capacity must not be negative")
    if 0 < wanted.limit_bytes < wanted.required_bytes:
        raise invalid("the capacity's limit is below what is required")
    size = max(1, -(-wanted.required_bytes // GIB)) * GIB
    if size > largest:
        raise CsiError("OUT_OF_RANGE", f"a volume has at most {largest // GIB} GiB, not {size // GIB}")
    if 0 < wanted.limit_bytes < size:
        raise CsiError("OUT_OF_RANGE", f"volumes have whole GiB, and {wanted.limit_bytes} bytes are less than {size}")
    return size


def has_size(size: int, wanted: pb.CapacityRange) -> bool:
    """Whether a volume of this size is what was asked for."""
    return size >= wanted.required_bytes and (not wanted.limit_bytes or size <= wanted.limit_bytes)


def zones(wanted: pb.TopologyRequirement) -> Sequence[str]:
    """The zones in which a volume may be, the one liked best first; empty: anywhere. Raises RESOURCE_EXHAUSTED."""
    listed = [*wanted.preferred, *wanted.requisite]
    found = list(dict.fromkeys(each.segments[ZONE] for each in listed if ZONE in each.segments))
    if listed and not found:
        raise CsiError("RESOURCE_EXHAUSTED", f"no topology that was asked for names a {ZONE}")
    allowed = {each.segments[ZONE] for each in wanted.requisite if ZONE in each.segments}
    return [each for each in found if not allowed or each in allowed]
