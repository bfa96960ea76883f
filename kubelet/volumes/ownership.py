"""A volume's files become the pod's fsGroup's. Called by PodVolumes and `csi`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from linux import ownership


def own(path: Path, group: int, policy: str | None) -> None:
    """Give a volume to the pod's fsGroup; with the policy OnRootMismatch only if its top is not the group's yet.
    Raises OSError."""
    if policy == "OnRootMismatch":
        found = os.stat(path)
        if found.st_gid == group and found.st_mode & 0o2070 == 0o2070:
            return
    ownership.give_to_group(path, group)


async def give_to_pod(path: Path, group: int, policy: str | None) -> None:
    """The same beside the loop: there may be many files. Raises OSError."""
    await asyncio.to_thread(own, path, group, policy)
