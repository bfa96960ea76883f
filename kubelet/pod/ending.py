"""Ends a container: preStop hook, stop within the grace, the record of its end. Called by `pod.worker`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from kubelet.cri import CriError
from kubelet.pod import events as ev
from kubelet.pod.calls import RETRY_FIRST, RETRY_LAST, until_done
from kubelet.pod.container_work import ContainerWork
from kubelet.probes.hooks import run_hook
from kubelet.records import ContainerRecord, ContainerState, container_record
from machinery import log
from machinery.log import kv

_log = log.get(__name__)


class Ending(ContainerWork):
    """Works for one pod; results go back as events."""

    async def kill(self, wish: ev.KillContainer) -> None:
        """preStop, then StopContainer with what is left of the grace; again and again until it is really down."""
        slot = self._of.machine.slots[wish.container]
        clock = self._of.shared.clock
        began = clock.monotonic()
        grace = max(wish.grace, 0.0)
        hook = slot.spec.lifecycle.preStop if slot.spec.lifecycle and wish.pre_stop else None
        if hook is not None and grace > 0:
            limit = clock.real(grace)
            try:
                async with asyncio.timeout(limit):
                    target = self.target(slot.spec, wish.container_id)
                    verdict = await run_hook(self._of.shared.cri, clock, hook, target, limit)
                if not verdict.ok:
                    self._of.tell("Warning", "FailedPreStopHook", "PreStopHook failed", wish.container)
            except TimeoutError:
                _log.info("PreStop hook did not end in time", extra=kv(pod=self._of.name, container=wish.container))
            grace = max(grace - (clock.monotonic() - began), 2.0)  # as upstream: at least two seconds after the hook
        timeout = self.real_grace(grace)
        await until_done(self._of.name, lambda: self._of.shared.cri.stop_container(wish.container_id, timeout))
        record = await self._ended(wish.container_id) or self._lost(wish)
        self._of.post(ev.ContainerKilled(wish.container, record))

    async def _ended(self, container_id: str) -> ContainerRecord | None:
        """The record of a container that was stopped; None when the runtime does not know it (any more)."""
        delay = RETRY_FIRST / 10
        while True:
            try:
                status = await self._of.shared.cri.container_status(container_id)
            except CriError as error:
                if error.not_found:
                    return None
            else:
                record = self._of.read(container_record(status))
                if record.ended:
                    return record
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_LAST)

    def _lost(self, wish: ev.KillContainer) -> ContainerRecord | None:
        current = self._of.machine.slots[wish.container].current
        if current is None or current.id != wish.container_id:
            return None
        return replace(
            current,
            state=ContainerState.EXITED,
            exit_code=137,
            reason="ContainerStatusUnknown",
            message="The container could not be located when the pod was terminated",
            finished_at=int(self._of.shared.clock.now().timestamp() * 1e9),
        )

    async def remove(self, container_id: str) -> None:
        try:
            await self._of.shared.cri.remove_container(container_id)
        except CriError as error:
            if not error.not_found:
                _log.info("Left a dead container", extra=kv(pod=self._of.name, container=container_id, error=error))
