"""How access modes and volume modes of Kubernetes are asked for in CSI. Pure.

Owns upstream's mapping: ReadWriteOnce means one node, of which drivers that know the difference are told that several
pods may write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from csi_controllers.driver import About, Can
from proto.csi.v1 import csi_pb2 as pb

_Mode = pb.VolumeCapability.AccessMode
_PLAIN: Final = {
    "ReadWriteOnce": _Mode.SINGLE_NODE_WRITER,
    "ReadOnlyMany": _Mode.MULTI_NODE_READER_ONLY,
    "ReadWriteMany": _Mode.MULTI_NODE_MULTI_WRITER,
    "ReadWriteOncePod": _Mode.SINGLE_NODE_WRITER,
}
_EXACT: Final = {
    **_PLAIN,
    "ReadWriteOnce": _Mode.SINGLE_NODE_MULTI_WRITER,
    "ReadWriteOncePod": _Mode.SINGLE_NODE_SINGLE_WRITER,
}


class UnsupportedModes(Exception):
    """No CSI access mode stands for these."""


def capability(
    mode: str, about: About, *, block: bool, fstype: str = "", options: Iterable[str] = ()
) -> pb.VolumeCapability:
    """`mode` is an access mode of Kubernetes. Raises UnsupportedModes."""
    known = _EXACT if Can.SINGLE_NODE_MULTI_WRITER in about.can else _PLAIN
    if mode not in known:
        raise UnsupportedModes(f"unsupported access mode {mode!r}")
    access = pb.VolumeCapability.AccessMode(mode=known[mode])
    if block:
        return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=access)
    mount = pb.VolumeCapability.MountVolume(fs_type=fstype, mount_flags=options)
    return pb.VolumeCapability(mount=mount, access_mode=access)


def strongest(modes: Sequence[str]) -> str:
    """The one of a volume's access modes under which it is attached. Raises UnsupportedModes."""
    for mode in ("ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod", "ReadOnlyMany"):
        if mode in modes:
            return mode
    raise UnsupportedModes("the volume has no access mode")
