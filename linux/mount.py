"""Mounts: bind, overlay, tmpfs, lazy unmounts, and what is mounted below a folder.

Owns mount flags and the format of mountinfo. Blocking system calls. Called by the runtime, the kubelet's volumes and
the command line's clean-up.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from linux import syscall

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 4096, 16384, 1 << 17, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
_OPTION_LIMIT = 4000  # mount(2) takes one page of options


def mount(source: str | None, target: str, fstype: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2), with the target in the error."""
    syscall.mount(source, target, fstype, flags, data)


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2), lazily by default; never follows a symbolic link at the target."""
    syscall.umount2(target, flags | UMOUNT_NOFOLLOW)


def bind(source: str, target: str, *, readonly: bool = False, recursive: bool = False) -> None:
    """Bind-mount; a read-only bind takes a second call because the kernel ignores the flag in the first."""
    mount(source, target, None, MS_BIND | (MS_REC if recursive else 0))
    if readonly:
        make_read_only(target)


def make_read_only(target: str) -> None:
    """Let a bind mount be read-only from now on; other mounts of the same folder stay as they are."""
    mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def tmpfs(target: str, *, size: str | None = None, mode: int = 0o755, flags: int = 0) -> None:
    """Mount a tmpfs."""
    mount("tmpfs", target, "tmpfs", flags, f"mode={mode:o}" + (f",size={size}" if size else ""))


def overlay(target: str, lowers: Sequence[str], upper: str | None = None, work: str | None = None) -> None:
    """Mount an overlay, topmost lower first; read-only without `upper`.

    Layer paths are digests and a deep image would overflow the one page of options, so long lists are passed as
    /proc/self/fd links, which the kernel resolves during the call.
    """
    tail = f",upperdir={upper},workdir={work}" if upper else ""
    options = "lowerdir=" + ":".join(path.replace(":", "\\:") for path in lowers) + tail
    if len(options) <= _OPTION_LIMIT:
        mount("overlay", target, "overlay", 0, options)
        return
    fds: list[int] = []
    try:
        fds.extend(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in lowers)
        options = "lowerdir=" + ":".join(f"/proc/self/fd/{fd}" for fd in fds) + tail
        mount("overlay", target, "overlay", 0, options)
    finally:
        for fd in fds:
            os.close(fd)


def parse_mountinfo(lines: Iterable[str]) -> list[tuple[str, str, str, str]]:
    """(mount point, root within the file system, type, super options) of each line of mountinfo."""
    found = []
    for line in lines:
        left, separator, right = line.rstrip("\n").partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if separator and len(fields) >= 5 and len(rest) >= 3:
            found.append((_unescape(fields[4]), _unescape(fields[3]), rest[0], rest[2]))
    return found


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text) if "\\" in text else text


def mounts_below(folder: str, mountinfo: str = "/proc/self/mountinfo") -> list[str]:
    """Mount points at or below `folder`, deepest and latest first (a safe order to unmount)."""
    prefix = os.path.realpath(folder)
    with Path(mountinfo).open(encoding="utf-8", errors="surrogateescape") as lines:
        points = [entry[0] for entry in parse_mountinfo(lines)]
    below = [point for point in points if point == prefix or point.startswith(prefix.rstrip("/") + "/")]
    return sorted(below, key=lambda point: point.count("/"), reverse=True)


def mounts_of(device: int, folder: str, mountinfo: str = "/proc/self/mountinfo") -> list[str]:
    """Mount points at or below `folder` of the file system on a device (st_rdev), deepest first.

    By what the kernel says of mounts, not by looking at them: a file system that was shut down cannot be looked at.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    with Path(mountinfo).open(encoding="utf-8", errors="surrogateescape") as lines:
        fields = [line.split(" ", 5) for line in lines]
    points = {_unescape(each[4]) for each in fields if len(each) > 5 and each[2] == number}
    return [point for point in mounts_below(folder, mountinfo) if point in points]


def unmount_below(folder: str) -> list[str]:
    """Lazily unmount everything at or below `folder`; returns what was unmounted."""
    done = []
    for point in mounts_below(folder):
        try:
            umount(point)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
        else:
            done.append(point)
    return done


def is_mount_point(path: str) -> bool:
    """Whether something is mounted exactly at `path`."""
    return os.path.realpath(path) in set(mounts_below(path)[-1:])
