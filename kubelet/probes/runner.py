"""Runs the probes of running containers: timers and thresholds. `handlers` makes the single tries.

Owns one task per probe. Never changes anything: results go to the pod's machine, failures become events.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from api.models import core_v1
from kubelet.cri import Cri
from kubelet.pod.events import ProbeResult
from kubelet.probes.handlers import Target, Verdict, target_of, try_probe
from machinery import log
from machinery.clock import Clock
from machinery.log import kv

_log = log.get(__name__)

TRIES_ON_ERROR = 3
Report = Callable[[ProbeResult], None]
Tell = Callable[[str, str, str, str], None]  # type, reason, message, container


@dataclass(slots=True)
class Threshold:
    """Counts equal verdicts in a row; pure."""

    success: int
    failure: int
    last: bool | None = None
    run: int = 0

    def count(self, ok: bool) -> bool | None:
        """The verdict that is now established, None while below its threshold."""
        self.run = self.run + 1 if ok == self.last else 1
        self.last = ok
        return ok if self.run >= (self.success if ok else self.failure) else None


@dataclass(slots=True)
class _Running:
    container_id: str
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)


class ProbeRunner:
    """The probes of one pod's containers."""

    def __init__(
        self, cri: Cri, clock: Clock, tasks: asyncio.TaskGroup, report: Report, tell: Tell, *, adopted: bool = False
    ) -> None:
        self._cri = cri
        self._clock = clock
        self._tasks = tasks
        self._report = report
        self._tell = tell
        self._adopted = adopted
        self._running: dict[str, _Running] = {}

    def start(
        self, container: core_v1.Container, container_id: str, ip: str, started_at: int, *, started: bool
    ) -> None:
        """Probe a container that has begun to run; `started`: its startup probe has passed before."""
        if not (container.livenessProbe or container.readinessProbe or container.startupProbe):
            return
        self.stop(container.name)
        running = _Running(container_id)
        self._running[container.name] = running
        target = target_of(container, container_id, ip)
        moment = datetime.fromtimestamp(started_at / 1e9, UTC) if started_at else self._clock.now()
        if container.startupProbe is not None and not started:
            running.tasks["startup"] = self._tasks.create_task(
                self._begin(container, container.startupProbe, target, moment)
            )
        else:
            self._steady(container, target, moment)

    async def _begin(
        self, container: core_v1.Container, probe: core_v1.Probe, target: Target, moment: datetime
    ) -> None:
        """The startup probe holds the others off."""
        if await self._guarded(container, "startup", probe, target, moment):
            self._steady(container, target, moment)

    def _steady(self, container: core_v1.Container, target: Target, moment: datetime) -> None:
        """The probes that run as long as the container does."""
        running = self._running.get(container.name)
        if running is None:
            return
        for kind, probe in (("readiness", container.readinessProbe), ("liveness", container.livenessProbe)):
            if probe is not None:
                running.tasks[kind] = self._tasks.create_task(self._keep(container, kind, probe, target, moment))

    async def _keep(
        self, container: core_v1.Container, kind: str, probe: core_v1.Probe, target: Target, moment: datetime
    ) -> None:
        await self._guarded(container, kind, probe, target, moment)

    async def _guarded(
        self, container: core_v1.Container, kind: str, probe: core_v1.Probe, target: Target, moment: datetime
    ) -> bool:
        try:
            return await self._probe(container, kind, probe, target, moment)
        except Exception:  # noqa: BLE001  one probe's trouble must not end the kubelet
            _log.exception("Failed to probe", extra=kv(container=container.name, probe=kind))
            return False

    def stop(self, name: str, *, keep_readiness: bool = False) -> None:
        """Stop probing one container, or all with ""."""
        for each in [name] if name else list(self._running):
            running = self._running.get(each)
            if running is None:
                continue
            for kind, task in list(running.tasks.items()):
                if keep_readiness and kind == "readiness":
                    continue
                task.cancel()
                del running.tasks[kind]
            if not running.tasks:
                del self._running[each]

    async def _probe(
        self, container: core_v1.Container, kind: str, probe: core_v1.Probe, target: Target, moment: datetime
    ) -> bool:
        """Probe until there is nothing left to find out; True when a startup probe has passed."""
        threshold = Threshold(probe.successThreshold or 1, probe.failureThreshold or 3)
        delay = (probe.initialDelaySeconds or 0) - self._clock.elapsed(moment)
        period = float(probe.periodSeconds or 10)
        if self._adopted:  # a restarted kubelet must not probe all its pods at once
            delay = max(delay, random.random() * period)
        if delay > 0:
            await self._clock.sleep(delay)
        told: bool | None = None
        while True:
            verdict = await self._try(probe, target)
            if not verdict.ok:
                how = "errored" if verdict.error else "failed"
                message = f"{kind.capitalize()} probe {how}: {verdict.message}"
                self._tell("Warning", "Unhealthy", message, container.name)
            established = None if verdict.error else threshold.count(verdict.ok)
            if established is not None and established != told:
                told = established
                self._report(ProbeResult(container.name, target.container_id, kind, established, verdict.message))
                if kind == "startup" and established:
                    return True
                if kind != "readiness" and not established:
                    return False  # the container will be killed; the next one gets probes of its own
            await self._clock.sleep(period)

    async def _try(self, probe: core_v1.Probe, target: Target) -> Verdict:
        verdict = Verdict(True)
        for _ in range(TRIES_ON_ERROR):
            verdict = await try_probe(self._cri, probe, target)
            if not verdict.error:
                break
        return verdict
