"""Loop devices: files that the kernel shows as disks, and pulling such a disk out from under its file system.

Owns the ioctls of <linux/loop.h> and the shutdown of a mounted file system. Blocking calls; the kernel remembers which
file is which device, nothing is kept here. Called by the cloud's volumes, the block driver and the command line's
clean-up.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CONTROL: Final = "/dev/loop-control"
MAJOR: Final = 7
_CTL_GET_FREE, _CONFIGURE, _CLR_FD, _SET_CAPACITY, _GET_STATUS, _SET_STATUS = (
    0x4C82,
    0x4C0A,
    0x4C01,
    0x4C07,
    0x4C05,
    0x4C04,
)
_INFO = struct.Struct("<QQQQQIIII64s64s32s2Q")  # struct loop_info64
_SIZE_LIMIT, _FLAGS_INDEX = 4, 8  # of lo_sizelimit and lo_flags in that struct
_SECTOR: Final = 512
_AUTOCLEAR: Final = 4
_CONFIG = struct.Struct(f"<II{_INFO.size}s64x")  # struct loop_config
_SHUTDOWN: Final = 0x8004587D  # FS_IOC_SHUTDOWN; ext4 and xfs call it by names of their own
_FLUSH: Final = struct.pack("<I", 0)  # what is in the page cache is written first
_GROW_XFS: Final = 0x4010586E  # XFS_IOC_FSGROWFSDATA
_INODE_PERCENT: Final = 25  # mkfs.xfs's own
_RACES: Final = 16  # others may take the device that was free a moment ago


def available() -> bool:
    """Whether this machine has loop devices and lets us use them: one is made and taken down again."""
    try:
        scratch = os.memfd_create("loop", os.MFD_CLOEXEC)
    except OSError:
        return False
    try:
        os.ftruncate(scratch, 1 << 20)
        detach(_configure(scratch))
    except OSError:
        return False
    finally:
        os.close(scratch)
    return True


def attach(file: str) -> str:
    """The device (`/dev/loopN`) that shows this file; a new one unless there is one. Raises OSError."""
    known = find(file)
    if known:
        return known
    fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        return _configure(fd)
    finally:
        os.close(fd)


def _configure(fd: int) -> str:
    for attempt in range(_RACES):
        device = _free()
        try:
            with _opened(device) as loop:
                fcntl.ioctl(loop, _CONFIGURE, _CONFIG.pack(fd, 0, bytes(_INFO.size)))
        except OSError as error:
            if error.errno == errno.EBUSY and attempt + 1 < _RACES:
                continue
            raise
        return device
    raise AssertionError("unreachable: the last attempt raises")


def _free() -> str:
    with _opened(CONTROL) as control:
        number = fcntl.ioctl(control, _CTL_GET_FREE)
    device = f"/dev/loop{number}"
    if not Path(device).exists():  # a /dev that nobody keeps: containers and minimal machines
        with contextlib.suppress(FileExistsError):
            os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(MAJOR, number))
    return device


def find(file: str) -> str:
    """The device that shows this file, "" when there is none."""
    try:
        wanted = Path(file).stat()
    except FileNotFoundError:
        return ""
    for device, backing in _devices():
        if backing == (wanted.st_dev, wanted.st_ino):
            return device
    return ""


def _devices() -> Iterator[tuple[str, tuple[int, int]]]:
    """Every device in use, and (st_dev, st_ino) of the file it shows.

    Not those that were taken down and are kept by an open file alone: whoever wants the file again wants another one.
    """
    for entry in sorted(Path("/sys/block").glob("loop*")):
        if not (entry / "loop").exists():
            continue
        device = f"/dev/{entry.name}"
        try:
            with _opened(device) as loop:
                found = _INFO.unpack(fcntl.ioctl(loop, _GET_STATUS, bytes(_INFO.size)))
        except OSError:
            continue  # taken down meanwhile, or a device of somebody else's that we may not open
        if not found[_FLAGS_INDEX] & _AUTOCLEAR:
            yield device, (found[0], found[1])


def detach_below(folder: str) -> list[str]:
    """Take down every device whose file is in `folder`; what was taken down."""
    files = [entry for entry in Path(folder).rglob("*") if entry.is_file() and not entry.is_symlink()]
    known = {(found.st_dev, found.st_ino) for found in map(Path.stat, files)} if files else set()
    done = [device for device, backing in _devices() if backing in known] if known else []
    for device in done:
        detach(device)
    return done


def detach(device: str) -> None:
    """Take a device down; one that is still mounted goes when it is no longer. Nothing there is fine."""
    try:
        with _opened(device) as loop:
            fcntl.ioctl(loop, _CLR_FD)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENOENT):
            raise


def is_mounted(device: str) -> bool:
    """Whether a file system on it is mounted, be it where nobody sees it: in another namespace, or lazily unmounted."""
    try:
        with _opened(device, os.O_RDONLY | os.O_EXCL):
            return False
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return True


def cut_off(device: str) -> None:
    """Let a device end after its first sector, once what was written has reached the file: whoever has it open is lost.

    A device that is held open outlives its removal; it must not write into a file that is somebody else's by then.
    """
    with _opened(device) as loop:
        os.fsync(loop)
        info = list(_INFO.unpack(fcntl.ioctl(loop, _GET_STATUS, bytes(_INFO.size))))
        info[_SIZE_LIMIT] = _SECTOR
        fcntl.ioctl(loop, _SET_STATUS, _INFO.pack(*info))


def refresh_size(device: str) -> None:
    """Show the size that the file has now."""
    with _opened(device) as loop:
        fcntl.ioctl(loop, _SET_CAPACITY)


def size(device: str) -> int:
    """Bytes of a device or file."""
    with _opened(device, os.O_RDONLY) as fd:
        return os.lseek(fd, 0, os.SEEK_END)


def shut_down(mount_point: str) -> None:
    """End a mounted file system as if its disk were pulled, after what was written has reached the disk.

    Whoever still has a file open gets EIO. Raises OSError where the file system knows no such end.
    """
    with _opened(mount_point, os.O_RDONLY) as fd:
        fcntl.ioctl(fd, _SHUTDOWN, _FLUSH)


def grow_xfs(mount_point: str, size_bytes: int) -> None:
    """Let a mounted xfs fill `size_bytes` of its device; smaller than it is: no change. Raises OSError."""
    now = os.statvfs(mount_point)
    if size_bytes // now.f_frsize <= now.f_blocks:
        return
    with _opened(mount_point, os.O_RDONLY) as fd:
        fcntl.ioctl(fd, _GROW_XFS, struct.pack("<QII", size_bytes // now.f_frsize, _INODE_PERCENT, 0))


@contextlib.contextmanager
def _opened(path: str, flags: int = os.O_RDWR) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
