"""Lifecycle hooks postStart and preStop. Called by `pod.worker`."""

from __future__ import annotations

from api.models import core_v1
from kubelet.cri import Cri
from kubelet.probes.handlers import Target, Verdict, http_get, run_exec
from machinery.clock import Clock

HOOK_SECONDS = 3600.0  # a postStart hook has no limit of its own; this one only bounds the wait


async def run_hook(
    cri: Cri, clock: Clock, handler: core_v1.LifecycleHandler, target: Target, limit: float = HOOK_SECONDS
) -> Verdict:
    """Carry out one hook within `limit` real seconds."""
    if handler.exec is not None:
        command = handler.exec.command or []
        verdict = await run_exec(cri, target.container_id, command, max(limit, 1.0))
        if verdict.ok:
            return verdict
        return Verdict(False, f"Exec lifecycle hook ([{' '.join(command)}]) failed: {verdict.message}", verdict.error)
    if handler.httpGet is not None:
        return await http_get(handler.httpGet, target, limit)
    if handler.sleep is not None:
        await clock.sleep(min(handler.sleep.seconds, limit * clock.scale))
    return Verdict(True)
