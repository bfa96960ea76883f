"""Who owns what is below a folder. Blocking; never follows links."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def give_to_group(top: Path, group: int) -> None:
    """Everything below becomes the group's, readable and writable for it; new files inherit it. Raises OSError."""
    for folder, folders, files in os.walk(top, topdown=False):
        for name in (*files, *folders):
            _give(os.path.join(folder, name), group)
    _give(str(top), group)


def _give(path: str, group: int) -> None:
    try:
        mode = os.lstat(path).st_mode
        os.chown(path, -1, group, follow_symlinks=False)
        if stat.S_ISDIR(mode):
            os.chmod(path, stat.S_IMODE(mode) | 0o2770)
        elif stat.S_ISREG(mode):
            os.chmod(path, stat.S_IMODE(mode) | 0o660)
    except FileNotFoundError:
        return  # removed meanwhile by whoever else uses the volume
