"""Write a set of files so that a reader sees all of the old ones or all of the new ones.

The layout is upstream's: files live in a dated folder, `..data` points at it and is switched by one rename, and each
visible name is a link through `..data`. Blocking but small; called by `volumes.pod_volumes`.
"""

from __future__ import annotations

import os
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path

from kubelet.volumes.payload import Payload

DATA = "..data"
_SCRATCH = "..data_tmp"


def write_payload(target: Path, files: Payload, group: int | None = None) -> bool:
    """Make `target` hold exactly `files`; returns whether anything changed. Raises OSError."""
    current = _current(target)
    changed = current is None or not _same(current, files)
    if current is None or changed:
        current = _switch(target, files, group)
    _show(target, current.name, files)  # also when nothing changed: an earlier process may have died in between
    return changed


def _switch(target: Path, files: Payload, group: int | None) -> Path:
    """Write the files into a fresh folder and point `..data` at it."""
    stamp = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.")
    fresh = target / f"{stamp}{secrets.randbelow(2**32)}"
    fresh.mkdir()
    fresh.chmod(0o755)
    for name, file in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode | (0o440 if group is not None else 0))
        if group is not None:
            os.chown(path, -1, group)
    scratch = target / _SCRATCH
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(fresh.name)
    scratch.rename(target / DATA)
    return fresh


def _show(target: Path, current: str, files: Payload) -> None:
    """Link the visible names and remove what is left of others."""
    visible = {name.split("/")[0] for name in files}
    for name in visible:
        link = target / name
        if not link.is_symlink():
            link.symlink_to(f"{DATA}/{name}")
    for entry in target.iterdir():
        if not entry.name.startswith("..") and entry.name not in visible:
            entry.unlink()
        elif entry.name.startswith("..") and entry.name not in (DATA, current):
            if entry.is_symlink():
                entry.unlink()
            else:
                shutil.rmtree(entry, ignore_errors=True)


def _current(target: Path) -> Path | None:
    try:
        folder = target / (target / DATA).readlink()
    except OSError:
        return None
    return folder if folder.is_dir() else None


def _same(folder: Path, files: Payload) -> bool:
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if present != set(files):
        return False
    return all((folder / name).read_bytes() == file.content for name, file in files.items())
