"""The few system calls that Python does not wrap, through ctypes.

Owns the libc handle and errno handling. Raises `OSError` with the call and its subject in the message. Called only by
the other modules of this package.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

_OPENAT2, _RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH, _RESOLVE_IN_ROOT = 437, 0x02, 0x08, 0x10
_PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str, subject: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}", subject)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None) -> None:
    """mount(2)."""
    result = _libc().mount(_bytes(source), _bytes(target), _bytes(fstype), ctypes.c_ulong(flags), _bytes(data))
    _check(result, f"mount {fstype or 'flags'}", target)


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(_libc().umount2(_bytes(target), flags), "unmount", target)


def unshare(flags: int) -> None:
    """unshare(2); affects the calling thread."""
    _check(_libc().unshare(flags), "unshare", hex(flags))


def setns(fd: int, kind: int) -> None:
    """setns(2); affects the calling thread."""
    _check(_libc().setns(fd, kind), "setns", hex(kind))


def sethostname(name: str) -> None:
    """sethostname(2) in the calling thread's UTS namespace."""
    raw = name.encode()
    _check(_libc().sethostname(raw, len(raw)), "sethostname", name)


def set_child_subreaper() -> None:
    """prctl(2): orphans among this process's descendants become its children."""
    _check(_libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl", "child subreaper")


def open_in_root(root: str, path: str, flags: int) -> int:
    """openat2(2) with RESOLVE_IN_ROOT: open `path` as a process chrooted to `root` would, links included."""
    return _openat2(root, path, flags, _RESOLVE_IN_ROOT)


def open_beneath(root: str, path: str, flags: int) -> int:
    """openat2(2) with RESOLVE_BENEATH: a path, or a link in it, that leads out of `root` fails with EXDEV."""
    return _openat2(root, path, flags, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)


def _openat2(root: str, path: str, flags: int, resolve: int) -> int:
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, 0, resolve)
        name = os.fsencode(path.lstrip("/") or ".")
        fd = int(_libc().syscall(_OPENAT2, directory, name, ctypes.byref(how), ctypes.sizeof(how)))
        if fd < 0:
            _check(-1, "open", path)
        return fd
    finally:
        os.close(directory)
