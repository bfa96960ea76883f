"""What is done to a disk on its machine: file systems, mounts, sizes.

Owns the system calls and the programs (mkfs, resize2fs) for one attached disk: a block device, or a folder where the
machine offers no loop devices. All functions block and raise OSError.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from linux import loop, mount

_PROGRAM_TIMEOUT: Final = 300.0
_BLANK: Final = 1 << 20  # bytes at the beginning in which every file system leaves a trace
_EXT_SUPER: Final = 1024
_EXT_MAGIC: Final = b"\x53\xef"
_FLAGS: Final = {
    "ro": mount.MS_RDONLY,
    "nosuid": mount.MS_NOSUID,
    "nodev": mount.MS_NODEV,
    "noexec": mount.MS_NOEXEC,
    "sync": 16,
    "dirsync": 128,
    "noatime": 1024,
    "nodiratime": 2048,
    "relatime": 1 << 21,
    "strictatime": 1 << 24,
    "lazytime": 1 << 25,
}
_DEFAULTS: Final = frozenset(("", "defaults", "rw", "suid", "dev", "exec", "async", "atime", "diratime"))


def is_folder(disk: str) -> bool:
    return Path(disk).is_dir()


def filesystem(device: str) -> str:
    """What is on a device: ext4, xfs, "" when it is blank, "unknown" when it is none of these."""
    with Path(device).open("rb") as file:
        head = file.read(_BLANK)
    if head.startswith(b"XFSB"):
        return "xfs"
    if head[_EXT_SUPER + 56 : _EXT_SUPER + 58] == _EXT_MAGIC:
        return "ext4"
    return "unknown" if any(head) else ""


def make_filesystem(device: str, kind: str) -> None:
    """On a blank device."""
    quick = {
        "ext4": ["-q", "-F", "-m0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"],
        "xfs": ["-q", "-K"],
    }
    _run([f"mkfs.{kind}", *quick[kind], device])


def mount_filesystem(device: str, target: str, kind: str, options: Iterable[str], *, read_only: bool) -> None:
    """Mount it, after it has grown to the size of its device where that can be done only now."""
    flags, data = parse_options(options)
    if kind == "ext4" and not read_only and _ext_size(device) < loop.size(device):
        _run(["e2fsck", "-f", "-p", device], fine=(0, 1))
        _run(["resize2fs", device])
    if kind == "xfs":
        data.append("nouuid")  # the same disk may not have left its former machine quite
    flags |= mount.MS_RDONLY if read_only else 0
    mount.mount(device, target, kind, flags, ",".join(data) or None)
    if kind == "xfs" and not flags & mount.MS_RDONLY:
        loop.grow_xfs(target, loop.size(device))


def grow_idle(device: str, target: str, options: Iterable[str], *, read_only: bool) -> None:
    """Let an ext4 that is mounted at `target` and nowhere else fill its device, by unmounting it for a moment.

    So it grows where the kernel does not let us grow it while it is mounted. Whoever uses it keeps it as it is.
    """
    if read_only or filesystem(device) != "ext4" or _ext_size(device) >= loop.size(device):
        return
    if mount.mounts_of(Path(device).stat().st_rdev, "/") != [os.path.realpath(target)]:
        return
    try:
        mount.umount(target, 0)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return
        raise
    mount_filesystem(device, target, "ext4", options, read_only=False)


def parse_options(options: Iterable[str]) -> tuple[int, list[str]]:
    """mount(2)'s flags and data for options as mount(8) takes them."""
    flags, data = 0, []
    for option in (part.strip() for text in options for part in text.split(",")):
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif option not in _DEFAULTS:
            data.append(option)
    return flags, data


def grow(device: str, mount_point: str, kind: str) -> None:
    """Let a mounted file system fill its device. Raises PermissionError where that cannot be done while it is mounted.

    Of ext4 the kernel demands CAP_SYS_RESOURCE for it, which not every container has.
    """
    if kind == "xfs":
        loop.grow_xfs(mount_point, loop.size(device))
    elif _ext_size(device) < loop.size(device):
        try:
            _run(["resize2fs", device])
        except OSError as error:
            if "Permission denied" in str(error):
                raise PermissionError(str(error)) from error
            raise


def _ext_size(device: str) -> int:
    """Bytes of an ext4 file system, by its superblock."""
    with Path(device).open("rb") as file:
        file.seek(_EXT_SUPER)
        block = file.read(1024)
    (low,), (shift,), (high,) = (struct.unpack_from("<I", block, offset) for offset in (4, 24, 336))
    return int(low | high << 32) << (10 + int(shift))


def bind(source: str, target: str, *, read_only: bool) -> None:
    mount.bind(source, target, readonly=read_only)


def unmount(target: str) -> None:
    """Everything that is mounted exactly there; nothing is fine."""
    while mount.is_mount_point(target):
        mount.umount(target)


def shows(disk: str, target: str) -> bool:
    """Whether what is mounted at `target` is this disk: its file system, the device itself, or the folder.

    The dead file system of a disk that was pulled is not, though the same disk may be back behind another device.
    """
    own = Path(disk).stat()
    try:
        found = Path(target).stat()
    except OSError:
        return False
    if stat.S_ISDIR(own.st_mode):
        return os.path.samestat(found, own)
    return own.st_rdev in (found.st_dev, found.st_rdev)


def is_read_only(target: str) -> bool:
    return bool(os.statvfs(target).f_flag & os.ST_RDONLY)


def usage(path: str) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(available, total, used) of bytes and of inodes."""
    found = os.statvfs(path)
    size = found.f_frsize
    total, free = found.f_blocks * size, found.f_bfree * size
    return (
        (found.f_bavail * size, total, total - free),
        (found.f_favail, found.f_files, found.f_files - found.f_ffree),
    )


def _run(argv: list[str], fine: tuple[int, ...] = (0,)) -> None:
    program = shutil.which(argv[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise FileNotFoundError(f"{argv[0]} is not installed")
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_PROGRAM_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{argv[0]} did not end") from error
    if done.returncode not in fine:
        raise OSError(f"{argv[0]} failed ({done.returncode}): {' | '.join(done.stdout.split(chr(10))[-4:])[:500]}")
