"""What the runtime writes down about sandboxes and containers, so that the next process can go on.

Owns the layout of `--root`: `sandboxes/<id>/` and `containers/<id>/`, each with `record.json` (our state) and
`config.pb` (the CRI config as received). Written by rename, read once at start. Small local writes, done in the loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

CREATED, STARTING, RUNNING, EXITED = "created", "starting", "running", "exited"


class SandboxRecord(msgspec.Struct, omit_defaults=True):
    """State of a sandbox."""

    id: str
    created_at: int
    ready: bool = False
    ip: str = ""
    host_network: bool = False
    link: str = ""
    cgroup_parent: str = ""
    handler: str = ""
    pause_id: str = ""  # container that holds the pid namespace, when it is shared


class ContainerRecord(msgspec.Struct, omit_defaults=True):
    """State of a container. Times are ns since the epoch, 0 when it has not happened."""

    id: str
    sandbox_id: str
    created_at: int
    state: str = CREATED
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    pid: int = 0
    pid_started: int = 0
    conmon: int = 0
    conmon_started: int = 0
    image_id: str = ""
    image_ref: str = ""
    cgroup: str = ""
    log_path: str = ""
    uid: int = 0
    gid: int = 0
    groups: list[int] = []
    stop_signal: int = 15
    internal: bool = False  # the runtime's own (pause), never listed


R = TypeVar("R", SandboxRecord, ContainerRecord)


def write_atomically(path: Path, raw: bytes) -> None:
    """Replace a file's content in one step."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(raw)
    temporary.rename(path)


def save(folder: Path, record: SandboxRecord | ContainerRecord) -> None:
    """Write a record into its folder."""
    write_atomically(folder / "record.json", msgspec.json.encode(record))


def load_all(folder: Path, kind: type[R]) -> Iterator[tuple[Path, R | None, bytes]]:
    """(folder, record, config) of everything written down; the record is None when it was never finished."""
    if not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        try:
            record = msgspec.json.decode((entry / "record.json").read_bytes(), type=kind)
            config = (entry / "config.pb").read_bytes()
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            yield entry, None, b""
            continue
        yield entry, record, config


def boot_id() -> str:
    """Changes with every boot of the machine; processes of another boot are gone."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def next_free(taken: set[str], wanted: int) -> str:
    """A fresh id of 64 hex digits. `wanted` is its number of random bytes."""
    while True:
        identity = os.urandom(wanted).hex()
        if identity not in taken:
            return identity
