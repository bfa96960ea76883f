"""Who a container's process is: names looked up inside its root file system.

Reads /etc/passwd and /etc/group of the image without ever leaving it (links are resolved as if chrooted).
Called when a container is created.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from linux.syscall import open_in_root
from runtime.faults import BadConfig

_LIMIT = 1 << 20


@dataclass(frozen=True)
class User:
    """Identity of a process."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


def read_in_root(root: str, path: str) -> str:
    """Text of a file below `root`; empty when there is none."""
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        return file.read(_LIMIT).decode("utf-8", "replace")


def plan_user(
    passwd: str,
    group: str,
    *,
    image_user: str,
    uid: int | None,
    gid: int | None,
    username: str,
    supplemental: Sequence[int] = (),
    strict: bool = False,
) -> User:
    """The process's identity from the request, else from the image's USER. Pure; raises BadConfig for unknown names."""
    users = [line.split(":") for line in passwd.splitlines() if line.count(":") >= 3]
    groups = [line.split(":") for line in group.splitlines() if line.count(":") >= 3]
    wanted, group_part = "", ""
    if uid is not None:
        wanted = str(uid)
    elif username:
        wanted = username
    else:
        wanted, _, group_part = image_user.partition(":")
    entry = None
    if wanted.isdigit():
        number = int(wanted)
        entry = next((fields for fields in users if fields[2] == wanted), None)
    elif wanted:
        entry = next((fields for fields in users if fields[0] == wanted), None)
        if entry is None or not entry[2].isdigit():
            raise BadConfig(f"unable to find user {wanted}: no matching entries in passwd file")
        number = int(entry[2])
    else:
        number = 0
        entry = next((fields for fields in users if fields[2] == "0"), None)
    primary = int(entry[3]) if entry is not None and entry[3].isdigit() else 0
    if gid is not None:
        primary = gid
    elif group_part:
        primary = _group(groups, group_part)
    extra: list[int] = []
    # Groups of the image's user, except when the primary group was chosen by USER's group part (as Docker does).
    if not strict and entry is not None and not group_part:
        extra += [int(fields[2]) for fields in groups if fields[2].isdigit() and entry[0] in fields[3].split(",")]
    extra += supplemental
    return User(number, primary, tuple(dict.fromkeys(extra)))


def _group(groups: list[list[str]], name: str) -> int:
    if name.isdigit():
        return int(name)
    for fields in groups:
        if fields[0] == name and fields[2].isdigit():
            return int(fields[2])
    raise BadConfig(f"unable to find group {name}: no matching entries in group file")
