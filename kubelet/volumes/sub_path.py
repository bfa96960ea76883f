"""A path inside a volume, bound to a place that only the kubelet can change.

What lies in a volume belongs to its containers, who may swap a folder for a link at any moment. So the path is opened
once by the kernel with the rule that nothing leads out of the volume, and what was opened (not its name) is
bind-mounted to `<pod>/volume-subpaths/...`, from where the container gets it. Blocking but small; called by
`volumes.pod_volumes`.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from kubelet.volumes.payload import VolumeError
from linux import mount, syscall

SUB_PATHS = "volume-subpaths"


def bind_sub_path(volume: Path, sub: str, place: Path) -> Path:
    """`place`, made to be the inside of the volume; missing folders are made. Raises VolumeError, OSError."""
    if sub.startswith("/"):
        raise VolumeError(f"error SubPath `{sub}` must not be an absolute path")
    if ".." in sub.split("/"):
        raise VolumeError(f"unable to provision SubPath `{sub}`: must not contain '..'")
    fd = _open(volume, sub)
    try:
        folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        if place.is_mount() or os.path.lexists(place):  # of the container's last life
            mount.unmount_below(str(place))
        if folder:
            place.mkdir(parents=True, exist_ok=True, mode=0o750)
        else:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            place.touch(mode=0o640)
        mount.bind(f"/proc/self/fd/{fd}", str(place), recursive=True)
    finally:
        os.close(fd)
    return place


def _open(volume: Path, sub: str) -> int:
    """A descriptor (O_PATH) of what the path names; folders that are missing are made with the volume's mode."""
    try:
        return syscall.open_beneath(str(volume), sub, os.O_PATH)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    mode = stat.S_IMODE(volume.stat().st_mode)
    parent = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    done: list[str] = []
    try:
        for part in filter(None, sub.split("/")):
            done.append(part)
            try:
                inner = syscall.open_beneath(str(volume), "/".join(done), os.O_PATH | os.O_DIRECTORY)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                os.mkdir(part, 0o750, dir_fd=parent)
                inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                os.chmod(f"/proc/self/fd/{inner}", mode)
            os.close(parent)
            parent = inner
    except OSError:
        os.close(parent)
        raise
    return parent
