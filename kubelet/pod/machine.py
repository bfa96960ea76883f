"""The life of one pod on this node as a state machine: events in, instructions out; no I/O, no clock, no tasks.

Called by `pod.worker`, which carries the instructions out and feeds their results back. Level-based: after every event
the whole situation (`pod.knowledge`) is looked at again, so a lost or repeated event does no harm. Invariants, checked
by the tests: never two live instances of a container; no container without a sandbox and volumes; after the end nothing
is started.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from kubelet.backoff import format_duration
from kubelet.pod import events as ev
from kubelet.pod import resize
from kubelet.pod.config import grace_of
from kubelet.pod.knowledge import PodKnowledge
from kubelet.pod.slot import Kind, Op, Slot
from kubelet.pod.timeline import Now
from kubelet.records import ContainerRecord


class PodMachine(PodKnowledge):
    """What is to be done next for one pod, as far as is known."""

    def handle(self, event: ev.Event, now: Now) -> list[ev.Instruction]:
        """Take in one event; returns what is to be done."""
        self._out = []
        self.learn(event, now)
        self._plan(now)
        return self._out

    def _plan(self, now: Now) -> None:
        wake = self._wake
        self._wake = math.inf
        if self.deleting or self.gone:
            self._plan_end(now)
        elif self.verdict is not None or self.frozen:
            own = grace_of(self.spec)
            self._plan_stop(now, own if self._verdict_grace is None else min(self._verdict_grace, own))
        else:
            self._plan_alive(now)
        if self._wake != wake and self._wake != math.inf:
            self._out.append(ev.WakeAt(self._wake))

    def _plan_alive(self, now: Now) -> None:
        limit = self.spec.activeDeadlineSeconds
        if limit is not None and not self.over:
            ends = now.at(int(self.start_time.timestamp() * 1e9)) + limit
            if now.mono >= ends:
                self.verdict = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
                self._emit("Normal", self.verdict[0], self.verdict[1])
                return self._plan_stop(now, grace_of(self.spec))
            self._wake_at(ends)
        mains = [slot for slot in self.slots.values() if slot.kind is Kind.MAIN]
        inits = [slot for slot in self.slots.values() if slot.kind is Kind.INIT]
        self.over = all(slot.finished() for slot in mains) or any(
            slot.finished() and not slot.succeeded() for slot in inits
        )
        if self.over:
            return self._plan_stop(now, grace_of(self.spec))
        if self.resize.wanted:
            self.resize.wanted = False
            self._out.append(ev.AskResize())
        if not self.volumes_ready and not self._volumes_busy:
            if now.mono >= self._volume_retry:
                self._volumes_busy = True
                self._out.append(ev.SetUpVolumes())
            else:
                self._wake_at(self._volume_retry)
        if not self.volumes_ready and self.sandbox is None:
            return None  # as upstream: a pod whose volumes cannot be had gets no network and pulls nothing
        may_start = self._keep_sandbox(now) and self.volumes_ready
        for slot in self._startable():
            self._drive(slot, now, may_start=may_start)
        self._finish_resize()
        return None

    def _keep_sandbox(self, now: Now) -> bool:
        """Whether a usable sandbox exists; starts one where it does not."""
        sandbox = self.sandbox
        if sandbox is not None and sandbox.ready:
            return True
        if self.busy:
            return False
        live = [slot for slot in self.slots.values() if slot.running or slot.op in (Op.START, Op.KILL)]
        if sandbox is not None and self._changed_told != sandbox.id:
            self._changed_told = sandbox.id
            if live or any(slot.current for slot in self.slots.values()):
                self._emit("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
        if live:
            for slot in live:
                if slot.running and slot.op is Op.IDLE:
                    self._kill(slot, now, grace_of(self.spec), f"Stopping container {slot.name}", pre_stop=False)
            return False
        if now.mono < self._sandbox_retry:
            self._wake_at(self._sandbox_retry)
            return False
        self.busy = True
        replaces = tuple(sorted({*self.old_sandboxes, *((sandbox.id,) if sandbox else ())}))
        self._out.append(ev.StartSandbox(self.sandbox_attempt + 1, replaces))
        return False

    def _startable(self) -> Iterator[Slot]:
        """The containers that are to run now: init containers one after the other, then all others.

        Ephemeral containers wait for nobody: they are there to find out why others do not start.
        """
        yield from [slot for slot in self.slots.values() if slot.kind is Kind.EPHEMERAL]
        here = self.sandbox.id if self.sandbox else ""
        begun = any(
            slot.kind is Kind.MAIN and slot.current is not None and here and slot.current.sandbox_id == here
            for slot in self.slots.values()
        )
        for slot in self.slots.values():
            if slot.kind is Kind.SIDECAR:
                yield slot
                if not slot.started and not begun:
                    return
            elif slot.kind is Kind.INIT:
                if slot.succeeded() or (begun and slot.current is None):
                    continue
                yield slot
                return
            elif slot.kind is Kind.MAIN:
                yield slot

    def _drive(self, slot: Slot, now: Now, *, may_start: bool) -> None:
        """One container that should be running (or has its reasons not to)."""
        if slot.op is not Op.IDLE:
            return
        current = slot.current
        if current is not None and slot.running:
            self._supervise(slot, current, now)
            return
        if not slot.restarts():
            return
        if current is not None and slot.charged != current.id and not self._charge(slot, current, now):
            return
        if slot.flip_at and now.mono >= slot.flip_at:
            slot.flip_at = 0.0
            image = slot.spec.image or ""
            slot.waiting = ("ImagePullBackOff", f'Back-off pulling image "{image}": {slot.pull_failure}')
            self._emit("Normal", "BackOff", f'Back-off pulling image "{image}"', slot.name)
            self._emit("Warning", "Failed", "Error: ImagePullBackOff", slot.name)
        if now.mono < slot.retry_at:
            self._wake_at(min(slot.retry_at, slot.flip_at or math.inf))
            return
        slot.flip_at = 0.0
        if not slot.image_ref:
            slot.op = Op.IMAGE
            self._out.append(ev.EnsureImage(slot.name))
        elif may_start:
            slot.op, slot.actuated = Op.START, slot.spec.resources
            self._out.append(ev.StartContainer(slot.name, slot.next_attempt, slot.image_ref))

    def _charge(self, slot: Slot, ended: ContainerRecord, now: Now) -> bool:
        """Whether the crash back-off lets this restart happen now."""
        failed_at = now.at(ended.finished_at or ended.created_at or now.wall_ns)
        due = slot.crash.due(failed_at)
        if due > now.mono:
            delay = format_duration(slot.crash.delay)
            told = f"back-off {delay} restarting failed container={slot.name} pod={self.label}"
            slot.waiting = ("CrashLoopBackOff", told)
            if slot.announced != ended.id:
                slot.announced = ended.id
                told = f"Back-off restarting failed container {slot.name} in pod {self.label}"
                self._emit("Warning", "BackOff", told, slot.name)
            self._wake_at(due)
            return False
        slot.crash.advance(failed_at, now.mono)
        slot.charged = ended.id
        return True

    def _supervise(self, slot: Slot, current: ContainerRecord, now: Now) -> None:
        grace: float = grace_of(self.spec)
        if slot.unhealthy:
            probe = slot.spec.livenessProbe if "liveness" in slot.unhealthy else slot.spec.startupProbe
            if probe is not None and probe.terminationGracePeriodSeconds is not None:
                grace = probe.terminationGracePeriodSeconds
            self._kill(slot, now, grace, slot.unhealthy)
        elif current.hash and current.hash != slot.hash:
            slot.crash.reset()
            self._kill(slot, now, grace, f"Container {slot.name} definition changed, will be restarted")
        elif self.sandbox is not None and current.sandbox_id not in ("", self.sandbox.id):
            self._kill(slot, now, grace, f"Stopping container {slot.name}", pre_stop=False)
        elif not resize.settled(slot):
            self._resize(slot, current, now)
        elif slot.probing != current.id:
            slot.probing = current.id
            self._out.append(ev.StartProbes(slot.name, current.id, current.started_at))

    def _resize(self, slot: Slot, current: ContainerRecord, now: Now) -> None:
        if resize.needs_restart(slot):
            slot.crash.reset()
            slot.actuated = None  # the next instance is made with what is allocated
            self._kill(slot, now, grace_of(self.spec), f"Container {slot.name} resize requires restart")
        elif now.mono < slot.resize_at:
            self._wake_at(slot.resize_at)
        else:
            slot.op = Op.RESIZE
            self._out.append(ev.ResizeContainer(slot.name, current.id, slot.spec.resources))

    def _kill(self, slot: Slot, now: Now, grace: float, message: str, *, pre_stop: bool = True) -> None:
        assert slot.current is not None
        again = slot.op is Op.KILL
        slot.op, slot.kill_by = Op.KILL, now.mono + grace
        if not again:
            self._emit("Normal", "Killing", message, slot.name)
        if slot.probing:
            self._out.append(ev.StopProbes(slot.name, keep_readiness=self.deleting))
        self._out.append(ev.KillContainer(slot.name, slot.current.id, grace, message, pre_stop))

    # ---- the end ----

    def _plan_stop(self, now: Now, grace: float) -> None:
        """End what runs, then give the network back; the object stays."""
        if not self._silence(now, grace) or self.busy:
            return
        if self.sandbox is not None and self.sandbox.ready:
            if self._stopped_sandbox == self.sandbox.id:
                return
            self._stopped_sandbox = self.sandbox.id
            self.busy = True
            self._out.append(ev.StopSandbox(self.sandbox.id))
        elif not self._volumes_torn and not self._volumes_busy:
            self._volumes_torn, self.volumes_ready = True, False
            self._out.append(ev.TearDownVolumes())

    def _plan_end(self, now: Now) -> None:
        """End what runs within what is left of the grace, remove everything, then the object."""
        left = max(self._grace_left - now.mono, 0.0)
        if not self._silence(now, left) or self.busy:
            return
        if not self.torn_down:
            if not self._tearing:
                self._tearing = True
                self._out.append(ev.TearDown())
            return
        if self.gone:
            self._out.append(ev.Forget())
        elif not self._deleted:
            self._deleted = True
            self._out.append(ev.DeleteFromApi())

    def _silence(self, now: Now, grace: float) -> bool:
        """Kill mains, then sidecars last-started first. True when nothing runs any more."""
        active = [slot for slot in self.slots.values() if slot.running or slot.op in (Op.START, Op.KILL)]
        if not active:
            return True
        mains = [slot for slot in active if slot.kind is not Kind.SIDECAR]
        for slot in mains or active[-1:]:
            if slot.running and slot.op in (Op.IDLE, Op.START):
                self._kill(slot, now, grace, f"Stopping container {slot.name}")
            elif slot.running and slot.op is Op.KILL and self._grace_left < slot.kill_by:
                # the deletion has become more urgent than the kill under way
                self._kill(slot, now, grace, f"Stopping container {slot.name}")
        return False

    def _finish_resize(self) -> None:
        if self.resize.in_progress and all(resize.settled(slot) for slot in self.slots.values()):
            self.resize.in_progress = False
            self._emit("Normal", "ResizeCompleted", resize.event_message("completed", self.pod, self.slots.values()))

    def _wake_at(self, when: float) -> None:
        self._wake = min(self._wake, when)
