"""What is known about one pod on this node, and how it is learned from events; no I/O, no clock, no tasks.

The half of the pod's state machine that looks back: facts of the API server and the runtime, results of what was under
way. Level-based: a lost or repeated event does no harm. Base of `pod.machine`, which decides what is next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from api.models import core_v1
from kubelet.backoff import Backoff
from kubelet.pod import events as ev
from kubelet.pod import resize
from kubelet.pod.config import grace_of
from kubelet.pod.memory import remember
from kubelet.pod.slot import Kind, Op, Slot, slots_of
from kubelet.pod.timeline import Now
from kubelet.records import ContainerRecord, ContainerState, SandboxRecord

START_RETRY = 10.0  # cluster seconds between tries of a container that could not be made or started
PULL_ERROR_SHOWN = 3.0  # how long ErrImagePull is shown before ImagePullBackOff
TERMINAL = ("Succeeded", "Failed")
LOST = "The container could not be located when the pod was deleted.  The container used to be Running"
LOST_CODE = 137


class PodKnowledge:
    """Everything known about one pod (one uid)."""

    def __init__(self, pod: core_v1.Pod, now: Now) -> None:
        meta, spec = pod.metadata, pod.spec
        assert meta is not None and spec is not None
        self.pod = pod
        self.spec = spec
        self.uid = meta.uid or ""
        self.label = f"{meta.name}_{meta.namespace}({self.uid})"
        self.slots = slots_of(spec)
        self.sandbox: SandboxRecord | None = None
        self.sandbox_attempt = -1
        self.old_sandboxes: set[str] = set()
        self.volumes_ready = False
        self.verdict: tuple[str, str] | None = None
        self._verdict_grace: int | None = None
        self.frozen = False  # the API server already holds a final status that we do not touch
        self.over = False  # all containers have ended for good
        self.deleting = False
        self.gone = False
        self.torn_down = False
        self.busy = False  # some sandbox operation is under way
        self.resize = resize.Resize()
        self.start_time = (pod.status.startTime if pod.status else None) or now.wall()
        self._sandbox_backoff = Backoff(initial=1.0, maximum=60.0)
        self._sandbox_retry = 0.0
        self._volume_backoff = Backoff(initial=0.5, maximum=120.0)
        self._volume_retry = 0.0
        self._volumes_busy = False
        self._volumes_torn = False
        self._stopped_sandbox = ""
        self._tearing = False
        self._deleted = False
        self._running_when_doomed: frozenset[str] = frozenset()
        self._changed_told = ""
        self._grace_left = math.inf  # cluster time when the deletion grace ends
        self._wake = math.inf
        self._out: list[ev.Instruction] = []
        if pod.status is not None:
            self.frozen = pod.status.phase in TERMINAL
            self.resize.wanted = remember(self.slots, pod.status)
        if meta.deletionTimestamp is not None:
            self._doom(pod, now)

    # ---- events ----

    def learn(self, event: ev.Event, now: Now) -> None:
        """Take in one event."""
        match event:
            case ev.PodChanged(pod):
                self._change(pod, now)
            case ev.PodGone(grace):
                self.gone = True
                self._shorten(now, max(grace if grace is not None else grace_of(self.spec), 1))
            case ev.Observed():
                self._observe(event, now)
            case ev.Rejected(reason, message, grace):
                if self.verdict is None and not self.over:
                    self.verdict, self._verdict_grace = (reason, message), grace
            case ev.VolumesReady():
                self._volumes_busy, self.volumes_ready = False, True
                self._volume_backoff.reset()
            case ev.VolumesFailed():
                self._volumes_busy = False
                self._volume_backoff.advance(now.mono, now.mono)
                self._volume_retry = now.mono + self._volume_backoff.delay
            case ev.SandboxStarted(sandbox):
                self._sandbox_started(sandbox)
            case ev.SandboxFailed(message):
                self.busy = False
                self._sandbox_backoff.advance(now.mono, now.mono)
                self._sandbox_retry = now.mono + self._sandbox_backoff.delay
                self._emit("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {message}")
            case ev.SandboxStopped(sandbox_id):
                self.busy = False
                if self.sandbox is not None and self.sandbox.id == sandbox_id:
                    self.sandbox = replace(self.sandbox, ready=False)
            case ev.ImageReady(name, image_ref):
                self._image(name, image_ref)
            case ev.ImageFailed(name, reason, message):
                self._image_failed(name, reason, message, now)
            case ev.ContainerStarted(record):
                self._started(record)
            case ev.ContainerFailed(name, reason, message, failed):
                self._start_failed(name, reason, message, failed, now)
            case ev.ContainerKilled(name, record):
                slot = self.slots.get(name)
                if slot is not None:
                    if slot.op is Op.KILL:
                        slot.op = Op.IDLE
                    if record is not None:
                        self._take(slot, record)
            case ev.ProbeResult():
                self._probed(event)
            case ev.ResizeDecided(reason, message):
                self._decided(reason, message)
            case ev.ResizeRetry():
                self.resize.wanted = self.resize.wanted or self.resize.pending is not None
            case ev.ContainerResized():
                self._resized(event, now)
            case ev.TornDown():
                self._tearing, self.torn_down = False, True
                for slot in self.slots.values():
                    slot.op = Op.IDLE  # what was under way was cancelled
            case ev.Woken():
                self._wake = math.inf

    def _change(self, pod: core_v1.Pod, now: Now) -> None:
        meta, spec, status = pod.metadata, pod.spec, pod.status
        if meta is None or spec is None or (meta.uid or "") != self.uid:
            return
        self.pod, self.spec = pod, spec
        for name, fresh in slots_of(spec).items():
            slot = self.slots.get(name)
            if slot is None:
                self.slots[name] = fresh  # an ephemeral container was added
                continue
            held = slot.spec.resources if slot.resizable else fresh.spec.resources
            slot.spec, slot.hash = resize.with_claim(fresh.spec, held), fresh.hash
        self.resize.wanted = any(not resize.same(desired, held) for desired, held in self._claims())
        if not self.resize.wanted:
            self.resize.pending = None  # what could not be had is no longer asked for
        if status is not None and status.phase in TERMINAL and not self.over and self.verdict is None:
            self.frozen = True  # somebody else has ended this pod
        if meta.deletionTimestamp is not None:
            self._doom(pod, now)

    def _doom(self, pod: core_v1.Pod, now: Now) -> None:
        if not self.deleting:
            self._running_when_doomed = frozenset(name for name, slot in self.slots.items() if slot.running)
        self.deleting = True
        grace = pod.metadata.deletionGracePeriodSeconds if pod.metadata else None
        self._shorten(now, grace if grace is not None else grace_of(self.spec))

    def _shorten(self, now: Now, grace: float) -> None:
        self._grace_left = min(self._grace_left, now.mono + grace)

    def _observe(self, event: ev.Observed, now: Now) -> None:
        for sandbox in sorted(event.sandboxes, key=lambda each: each.attempt):
            if self.sandbox is None or sandbox.attempt > self.sandbox.attempt:
                if self.sandbox is not None:
                    self.old_sandboxes.add(self.sandbox.id)
                self.sandbox = sandbox
                self.sandbox_attempt = max(self.sandbox_attempt, sandbox.attempt)
            elif sandbox.id == self.sandbox.id:
                ready = sandbox.ready and self.sandbox.ready  # a sandbox never comes back
                self.sandbox = replace(sandbox, ready=ready, ips=sandbox.ips or self.sandbox.ips)
            else:
                self.old_sandboxes.add(sandbox.id)
        for record in sorted(event.containers, key=lambda each: (each.attempt, each.created_at)):
            slot = self.slots.get(record.name)
            if slot is None:
                continue
            stale = (
                slot.kind is Kind.INIT and record.sandbox_id and self.sandbox and record.sandbox_id != self.sandbox.id
            )
            if stale and record.ended:
                slot.base_attempt = max(slot.base_attempt, record.attempt)
                continue
            self._take(slot, record)
        if event.complete:
            self._miss(event, now)

    def _miss(self, event: ev.Observed, now: Now) -> None:
        """Whatever a complete listing does not name is lost."""
        if self.sandbox is not None and self.sandbox.id not in {each.id for each in event.sandboxes}:
            self.sandbox = None
        named = {record.id for record in event.containers}
        for slot in self.slots.values():
            lost = slot.current
            if lost is None or not lost.running or lost.id in named or slot.op is not Op.IDLE:
                continue
            self._take(
                slot,
                replace(
                    lost,
                    state=ContainerState.EXITED,
                    exit_code=LOST_CODE,
                    reason="ContainerStatusUnknown",
                    message=LOST,
                    finished_at=now.wall_ns,
                ),
            )

    def _take(self, slot: Slot, record: ContainerRecord) -> None:
        """Let a slot learn a fact; containers that nobody can ask for any more are removed."""
        before = {each.id: each for each in (slot.current, slot.previous) if each is not None}
        ended = slot.observe(record)
        kept = {each.id for each in (slot.current, slot.previous) if each is not None}
        for old in before:
            if old not in kept and not before[old].running:
                self._out.append(ev.RemoveContainer(old))
        if record.id not in kept and record.ended:
            self._out.append(ev.RemoveContainer(record.id))
        if slot.probing and (ended or slot.current is None or slot.current.id != slot.probing):
            slot.probing = ""
            self._out.append(ev.StopProbes(slot.name))
        if slot.running and slot.op is not Op.START:
            self._healthy(slot)

    @staticmethod
    def _healthy(slot: Slot) -> None:
        """A running container without a probe has passed it."""
        if slot.spec.startupProbe is None:
            slot.started = True
        if slot.started and slot.spec.readinessProbe is None:
            slot.ready = True

    def _sandbox_started(self, sandbox: SandboxRecord) -> None:
        self.busy = False
        if self.sandbox is not None and self.sandbox.id != sandbox.id:
            self.old_sandboxes.add(self.sandbox.id)
        for slot in self.slots.values():  # a new sandbox starts from its init containers
            done = slot.current
            if slot.kind is Kind.INIT and done is not None and not done.running and done.sandbox_id != sandbox.id:
                slot.base_attempt = done.attempt
                slot.previous, slot.current = done, None
        self.sandbox, self.sandbox_attempt = sandbox, max(self.sandbox_attempt, sandbox.attempt)
        self._sandbox_backoff.reset()

    def _image(self, name: str, image_ref: str) -> None:
        slot = self.slots.get(name)
        if slot is not None and slot.op is Op.IMAGE:
            slot.op, slot.image_ref, slot.pull_failure = Op.IDLE, image_ref, ""
            slot.pull.reset()
            if slot.waiting is not None and slot.waiting[0] in (
                "ErrImagePull",
                "ImagePullBackOff",
                "ErrImageNeverPull",
            ):
                slot.waiting = None

    def _image_failed(self, name: str, reason: str, message: str, now: Now) -> None:
        slot = self.slots.get(name)
        if slot is None or slot.op is not Op.IMAGE:
            return
        slot.op, slot.waiting = Op.IDLE, (reason, message)
        if reason != "ErrImagePull":
            slot.retry_at = now.mono + START_RETRY
            return
        slot.pull.advance(now.mono, now.mono)
        slot.retry_at = now.mono + slot.pull.delay
        slot.pull_failure, slot.flip_at = message, now.mono + PULL_ERROR_SHOWN

    # ---- in-place resize ----

    def _claims(self) -> Iterator[tuple[resize.Claim, resize.Claim]]:
        """(desired, allocated) of every container that can be resized."""
        for container in (*(self.spec.initContainers or ()), *self.spec.containers):
            slot = self.slots.get(container.name)
            if slot is not None and slot.resizable:
                yield container.resources, slot.spec.resources

    def _decided(self, reason: str, message: str) -> None:
        told = self.resize.pending
        self.resize.pending = (reason, message) if reason else None
        if reason:
            if told is None or told[0] != reason:
                text = resize.event_message(reason.lower(), self.pod, self.slots.values(), message)
                self._emit("Warning", f"Resize{reason}", text)
            return
        for container in (*(self.spec.initContainers or ()), *self.spec.containers):
            slot = self.slots.get(container.name)
            if slot is not None and slot.resizable:
                slot.spec, slot.resize_at = resize.with_claim(slot.spec, container.resources), 0.0
        if not all(resize.settled(slot) for slot in self.slots.values()):
            self.resize.in_progress = True
            self._emit("Normal", "ResizeStarted", resize.event_message("started", self.pod, self.slots.values()))

    def _resized(self, result: ev.ContainerResized, now: Now) -> None:
        slot = self.slots.get(result.container)
        if slot is None:
            return
        if slot.op is Op.RESIZE:
            slot.op = Op.IDLE
        if slot.current is None or slot.current.id != result.container_id:
            return
        if result.error:
            if slot.resize_error != result.error:
                text = resize.event_message("error", self.pod, self.slots.values(), result.error)
                self._emit("Warning", "ResizeError", text)
            slot.resize_error, slot.resize_at = result.error, now.mono + resize.RETRY
        else:
            slot.actuated, slot.resize_error, slot.resize_at = result.resources, "", 0.0

    def _started(self, record: ContainerRecord) -> None:
        slot = self.slots.get(record.name)
        if slot is None:
            return
        if slot.op is Op.START:
            slot.op = Op.IDLE
        slot.waiting, slot.image_ref, slot.retry_at = None, "", 0.0
        self._take(slot, record)

    def _start_failed(self, name: str, reason: str, message: str, record: ContainerRecord | None, now: Now) -> None:
        slot = self.slots.get(name)
        if slot is None:
            return
        if slot.op is Op.START:
            slot.op = Op.IDLE
        slot.waiting, slot.image_ref, slot.retry_at = (reason, message), "", now.mono + START_RETRY
        if record is not None:
            self._take(slot, record)

    def _probed(self, result: ev.ProbeResult) -> None:
        slot = self.slots.get(result.container)
        if slot is None or not slot.running or slot.current is None or slot.current.id != result.container_id:
            return
        if result.kind == "startup":
            slot.started = result.ok
            if result.ok:
                self._healthy(slot)
        elif result.kind == "readiness":
            slot.ready = result.ok and slot.started
        if not result.ok and result.kind in ("liveness", "startup"):
            slot.unhealthy = f"Container {slot.name} failed {result.kind} probe, will be restarted"

    # ---- small things ----

    def _emit(self, kind: str, reason: str, message: str, container: str = "") -> None:
        self._out.append(ev.Emit(kind, reason, message, container))

    def slots_begun(self) -> bool:
        """Whether any container was ever made here."""
        return any(slot.current is not None for slot in self.slots.values())

    def half_gone(self) -> bool:
        """A deleted pod of which something has ended, but not everything is put away: upstream tells nobody of that."""
        ended = any(not self.slots[name].running for name in self._running_when_doomed)
        return self.deleting and ended and not (self.torn_down or self.gone)

    def idle(self) -> bool:
        """Nothing is under way: a complete listing may be believed."""
        return not (self.busy or self._tearing) and all(slot.op is Op.IDLE for slot in self.slots.values())
