"""Namespaces pinned at paths: made, entered and removed without external commands.

A namespace lives as long as a bind mount of it; the mount is made in the mount namespace of the caller, so every
process that shares it sees the pin. Blocking calls of well under a millisecond; each uses a short-lived thread because
unshare and setns act on threads. Called by the machine builder and by the runtime's sandboxes.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from linux import syscall
from linux.mount import MS_BIND, umount

T = TypeVar("T")

KINDS = {"net": syscall.CLONE_NEWNET, "ipc": syscall.CLONE_NEWIPC, "uts": syscall.CLONE_NEWUTS}


def _in_thread(fn: Callable[[], T]) -> T:
    """Run `fn` in a thread of its own: what it does to its namespaces dies with the thread."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(fn())
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=body, name="namespace")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def pin(paths: Mapping[str, str], inside: Callable[[], None] | None = None) -> None:
    """Make one new namespace per kind ("net", "ipc", "uts") and pin each at its path; run `inside` within all of them.

    All or nothing: on failure no pin is left.
    """
    for path in paths.values():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("x"):
            pass

    def body() -> None:
        flags = 0
        for kind in paths:
            flags |= KINDS[kind]
        syscall.unshare(flags)
        for kind, path in paths.items():
            syscall.mount(f"/proc/thread-self/ns/{kind}", path, None, MS_BIND, None)
        if inside is not None:
            inside()

    try:
        _in_thread(body)
    except BaseException:
        for path in paths.values():
            delete(path)
        raise


def create(path: str, inside: Callable[[], None] | None = None) -> None:
    """Make a network namespace pinned at `path` (parents are made; the path must not exist) with loopback up."""
    from linux.netlink import Netlink

    def setup() -> None:
        with Netlink() as nl:
            nl.set_up("lo")
        if inside is not None:
            inside()

    pin({"net": path}, setup)


def is_pinned(path: str) -> bool:
    """Whether a namespace is mounted at `path` (seen from this mount namespace)."""
    try:
        return os.stat(path).st_dev != os.stat(Path(path).parent).st_dev
    except FileNotFoundError:
        return False


def delete(path: str) -> None:
    """Unpin: the namespace goes when its last process and descriptor do. Nothing there is fine."""
    for _ in range(16):  # a crash between two attempts can stack pins
        try:
            umount(path)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
            break
    Path(path).unlink(missing_ok=True)


def enter(path: str, kind: str = "net") -> None:
    """Move the calling thread into the namespace at `path`. In a single-threaded process: the whole process."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscall.setns(fd, KINDS[kind])
    finally:
        os.close(fd)


def run_in(path: str, fn: Callable[[], T]) -> T:
    """Run `fn` in a thread inside the network namespace at `path` and return what it returns."""

    def body() -> T:
        enter(path)
        return fn()

    return _in_thread(body)
