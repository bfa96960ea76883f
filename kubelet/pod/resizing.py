"""Gives running containers of a pod other cpu and memory. Called by `pod.worker`; what to give is `pod.resize`'s."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from kubelet.cri import CriError
from kubelet.pod import config as configs
from kubelet.pod import events as ev
from kubelet.pod.container_work import ContainerWork, PodWork
from machinery import quantity


class Resizing(ContainerWork):
    """Works for one pod; results go back as events."""

    def __init__(self, of: PodWork) -> None:
        super().__init__(of)
        self._one = asyncio.Lock()

    async def resize(self, wish: ev.ResizeContainer) -> None:
        """The pod's own limits make way first and close up afterwards; containers one after the other."""
        shared, slot = self._of.shared, self._of.machine.slots[wish.container]
        done = ev.ContainerResized(wish.container, wish.container_id, wish.resources)
        try:
            async with self._one:
                allocated = self._of.allocated
                shared.cgroups.open(allocated)
                try:
                    await self._check_usage(wish)
                    limits = configs.container_resources(allocated, slot.spec, shared.node)
                    await shared.cri.update_container(wish.container_id, limits)
                finally:
                    shared.cgroups.create(allocated)
        except (CriError, OSError, ValueError) as error:
            done = replace(done, error=str(error))
        except Exception as error:
            self._of.post(replace(done, error=str(error)))
            raise RuntimeError(f"resize of {wish.container} in {self._of.name}") from error
        self._of.post(done)

    async def _check_usage(self, wish: ev.ResizeContainer) -> None:
        """A memory limit below what is in use would kill the container instead of resizing it. Raises ValueError."""
        limit = ((wish.resources.limits if wish.resources else None) or {}).get("memory")
        if limit is None:
            return
        used = await self._of.shared.cri.memory_usage(wish.container_id)
        if used > quantity.value(limit):
            raise ValueError(
                f"attempting to set container memory limit ({quantity.value(limit)}) below current usage ({used})"
            )
