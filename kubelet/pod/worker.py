"""Carries out what a pod's machine decides: instructions become calls of the runtime and of the API server.

Owns the machine of one pod and the tasks that work for it; what is done to single containers is in `starting`,
`resizing` and `ending`. Never decides: every result goes back as an event. Called by `kubelet.node_pods`, which feeds
in what the API server and the runtime say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from api.models import core_v1
from kubelet import dns
from kubelet.cri import CriError
from kubelet.downward import PodFacts
from kubelet.pod import config as configs
from kubelet.pod import events as ev
from kubelet.pod.calls import RETRY_FIRST, RETRY_LAST, forgiving, until_done
from kubelet.pod.ending import Ending
from kubelet.pod.machine import PodMachine
from kubelet.pod.resize import allocated_pod
from kubelet.pod.resizing import Resizing
from kubelet.pod.services import Services
from kubelet.pod.starting import Starting
from kubelet.pod.termination import termination_message
from kubelet.probes.runner import ProbeRunner
from kubelet.records import ContainerRecord, container_record, sandbox_record
from kubelet.status.pod_status import pod_ips, pod_status
from kubelet.volumes.payload import VolumeError, VolumeLimit, VolumeWait
from machinery import log
from machinery.clock import Timer
from machinery.errors import Conflict, NotFound, StatusError
from machinery.log import kv

_log = log.get(__name__)
UNMOUNT_RETRY_LAST = 122.0
FLUSH_SECONDS = 5.0
VOLUME_LIMIT = "VolumeAttachmentLimitExceeded"


class PodWorker:
    """One pod on this node, from its binding to its removal."""

    def __init__(
        self,
        pod: core_v1.Pod,
        shared: Services,
        forget: Callable[[str], None],
        fits: Callable[[core_v1.Pod], tuple[str, str]],
        *,
        adopted: bool,
    ) -> None:
        """`fits` tells why the node has no room for a resized pod: (reason, message), "" where it has."""
        self.shared = shared
        self._fits = fits
        self._starting, self._resizing, self._ending = Starting(self), Resizing(self), Ending(self)
        self.machine = PodMachine(pod, shared.now())
        self.uid = self.machine.uid
        self._forget = forget
        self._work: dict[str, asyncio.Task[None]] = {}
        self._timer: Timer | None = None
        self._closed = False
        self._refreshing = asyncio.Lock()
        self.version = 0  # changes with every event: a listing made before is stale
        self._probes = ProbeRunner(shared.cri, shared.clock, shared.tasks, self.post, self.tell, adopted=adopted)

    @property
    def pod(self) -> core_v1.Pod:
        return self.machine.pod

    @property
    def allocated(self) -> core_v1.Pod:
        """The pod with the resources that the node has agreed to."""
        return allocated_pod(self.machine.pod, self.machine.slots)

    @property
    def name(self) -> str:
        meta = self.pod.metadata
        return f"{meta.namespace}/{meta.name}" if meta else self.uid

    # ---- events in ----

    def post(self, event: ev.Event) -> None:
        """Tell the machine, carry out what it wants, publish what has changed."""
        if self._closed:
            return
        self.version += 1
        try:
            for instruction in self.machine.handle(event, self.shared.now()):
                self._carry_out(instruction)
            if not self._closed:
                self._publish()
        except Exception:  # noqa: BLE001  one pod's trouble must not end the kubelet
            _log.exception("Failed to handle pod event", extra=kv(pod=self.name, event=type(event).__name__))

    def observe(self, sandbox: Any, statuses: Any) -> None:
        """A runtime event about this pod: CRI PodSandboxStatus and ContainerStatuses."""
        records = tuple(self.read(container_record(status)) for status in statuses)
        self.post(ev.Observed((sandbox_record(sandbox),) if sandbox is not None and sandbox.id else (), records))

    def read(self, record: ContainerRecord) -> ContainerRecord:
        """Complete an ended container's record with its termination message."""
        if not record.ended or record.message:
            return record
        return replace(record, message=termination_message(record))

    def _publish(self) -> None:
        machine, shared = self.machine, self.shared
        if machine.frozen or machine.gone or machine.half_gone():
            return
        status = pod_status(machine, shared.node.ip, shared.scheme, shared.clock.now())
        shared.statuses.write(self.uid, status)

    # ---- instructions out ----

    def _carry_out(self, instruction: ev.Instruction) -> None:
        match instruction:
            case ev.Emit(kind, reason, message, container):
                self.tell(kind, reason, message, container)
            case ev.WakeAt(when):
                if self._timer is not None:
                    self._timer.cancel()
                delay = max(when - self.shared.clock.monotonic(), 0.0) + 0.001
                self._timer = self.shared.clock.call_later(delay, self.post, ev.Woken())
            case ev.SetUpVolumes():
                self._start("volumes", self._set_up_volumes())
            case ev.StartSandbox():
                self._start("sandbox", self._start_sandbox(instruction))
            case ev.StopSandbox(sandbox_id):
                self._start("sandbox", self._stop_sandbox(sandbox_id))
            case ev.EnsureImage(name):
                self._start(f"container/{name}", self._starting.ensure_image(name))
            case ev.StartContainer():
                self._start(f"container/{instruction.container}", self._starting.start(instruction))
            case ev.KillContainer():
                self._start(f"container/{instruction.container}", self._ending.kill(instruction))
            case ev.RemoveContainer(container_id):
                self._start(f"remove/{container_id}", self._ending.remove(container_id))
            case ev.TearDownVolumes():
                self._start("volumes", self._tear_down_volumes())
            case ev.AskResize():
                self.post(ev.ResizeDecided(*self._fits(self.pod)))
            case ev.ResizeContainer():
                self._start(f"container/{instruction.container}", self._resizing.resize(instruction))
            case ev.StartProbes(name, container_id, started_at):
                slot = self.machine.slots[name]
                ips = pod_ips(self.machine, self.shared.node.ip)
                self._probes.start(
                    slot.spec, container_id, ips[0] if ips else "127.0.0.1", started_at, started=slot.started
                )
            case ev.StopProbes(name, keep):
                self._probes.stop(name, keep_readiness=keep)
            case ev.TearDown():
                self._start("teardown", self._tear_down())
            case ev.DeleteFromApi():
                self._start("delete", self._delete_from_api())
            case ev.Forget():
                self.close()
                self._forget(self.uid)

    def _start(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        old = self._work.get(key)
        if old is not None and old is not asyncio.current_task():  # work that reports is at its end
            old.cancel()
        task = self._work[key] = self.shared.tasks.create_task(self._guarded(key, work))
        task.add_done_callback(lambda _: work.close())  # a task that is cancelled before it began never awaits it

    async def _guarded(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        me = asyncio.current_task()
        try:
            await work
        except Exception:  # noqa: BLE001  one pod's trouble must not end the kubelet
            _log.exception("Failed in pod worker", extra=kv(pod=self.name, work=key))
        finally:
            if self._work.get(key) is me:
                del self._work[key]

    def close(self) -> None:
        """Stop everything that works for this pod (not the pod)."""
        self._closed = True
        self._probes.stop("")
        if self._timer is not None:
            self._timer.cancel()
        me = asyncio.current_task()
        for task in self._work.values():
            if task is not me:
                task.cancel()

    def tell(self, kind: str, reason: str, message: str, container: str = "") -> None:
        meta = self.pod.metadata
        assert meta is not None
        path = ""
        if container:
            slot = self.machine.slots.get(container)
            path = f"spec.{slot.field if slot is not None else 'containers'}{{{container}}}"
        reference = core_v1.ObjectReference(
            apiVersion="v1",
            kind="Pod",
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            resourceVersion=meta.resourceVersion,
            fieldPath=path or None,
        )
        self.shared.recorder.event(reference, kind, reason, message)

    # ---- the work ----

    def facts(self) -> PodFacts:
        node = self.shared.node
        return PodFacts(
            pod_ips(self.machine, node.ip), (node.ip,), node_cpu_milli=node.cpu_milli, node_memory=node.memory
        )

    async def _set_up_volumes(self) -> None:
        try:
            await self.shared.volumes.set_up(self.pod, self.facts())
        except VolumeWait:
            self.post(ev.VolumesFailed())
        except VolumeLimit as error:
            self.tell("Warning", VOLUME_LIMIT, str(error))
            self.post(ev.VolumesFailed())
            self.post(ev.Rejected(VOLUME_LIMIT, f"Pod was rejected: {error}"))
        except VolumeError as error:
            self.tell("Warning", "FailedMount", str(error))
            self.post(ev.VolumesFailed())
        except Exception as error:
            self.post(ev.VolumesFailed())
            raise RuntimeError(f"volumes of {self.name}") from error
        else:
            self.post(ev.VolumesReady())

    async def _tear_down_volumes(self) -> None:
        """Until they are gone: what stays mounted keeps others from the volume."""
        delay = RETRY_FIRST
        while True:
            async with self._refreshing:
                try:
                    await self.shared.volumes.tear_down(self.uid)
                    return
                except (OSError, VolumeError) as error:
                    _log.warning("Failed to remove volumes", extra=kv(pod=self.name, error=error))
            await asyncio.sleep(delay)
            delay = min(delay * 2, UNMOUNT_RETRY_LAST)

    def refresh_soon(self) -> None:
        """Refresh the volumes now, not at the next round."""
        self._start(f"refresh/{self.version}", self.refresh_volumes())

    async def refresh_volumes(self) -> None:
        """Bring changed ConfigMaps, Secrets, labels and tokens into the files of a running pod."""
        async with self._refreshing:
            if not self.machine.volumes_ready or self.machine.over or self.machine.deleting:
                return
            try:
                await self.shared.volumes.set_up(self.pod, self.facts())
            except VolumeError as error:
                self.tell("Warning", "FailedMount", str(error))
            except Exception:  # noqa: BLE001  one pod's trouble must not end the kubelet
                _log.exception("Failed to refresh volumes", extra=kv(pod=self.name))

    async def _start_sandbox(self, wish: ev.StartSandbox) -> None:
        shared = self.shared
        try:
            for old in wish.replaces:
                await forgiving(self.name, shared.cri.stop_sandbox(old))
            allocated = self.allocated
            config = configs.sandbox_config(allocated, shared.node, wish.attempt)
            shared.cgroups.create(allocated)
            Path(config.log_directory).mkdir(parents=True, exist_ok=True)
            sandbox_id = await shared.cri.run_sandbox(config)
            record = sandbox_record(await shared.cri.sandbox_status(sandbox_id))
            if not self.machine.spec.hostNetwork:
                self._write_hosts(record.ips)
        except (CriError, OSError, ValueError) as error:
            self.post(ev.SandboxFailed(str(error)))
        except Exception as error:
            self.post(ev.SandboxFailed(str(error)))
            raise RuntimeError(f"sandbox of {self.name}") from error
        else:
            self.post(ev.SandboxStarted(record))

    def _write_hosts(self, ips: tuple[str, ...]) -> None:
        meta, node = self.pod.metadata, self.shared.node
        assert meta is not None
        text = dns.hosts_file(self.machine.spec, meta.name or "", meta.namespace or "", node.cluster_domain, ips)
        folder = node.pod_dir(self.uid)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "etc-hosts").write_text(text)

    async def _stop_sandbox(self, sandbox_id: str) -> None:
        await until_done(self.name, lambda: self.shared.cri.stop_sandbox(sandbox_id))
        self.post(ev.SandboxStopped(sandbox_id))

    async def _tear_down(self) -> None:
        me = asyncio.current_task()
        others = [task for task in self._work.values() if task is not me]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.shared.remover.remove(self.uid)
        self.post(ev.TornDown())

    async def _delete_from_api(self) -> None:
        shared, meta = self.shared, self.pod.metadata
        assert meta is not None
        await shared.statuses.flushed(self.uid, FLUSH_SECONDS)
        delay = RETRY_FIRST
        while True:
            try:
                await shared.client.delete(
                    core_v1.Pod, meta.name or "", meta.namespace, uid=self.uid, grace_period_seconds=0
                )
                return
            except (NotFound, Conflict):
                return
            except StatusError as error:
                _log.warning("Failed to delete pod", extra=kv(pod=self.name, error=error.message))
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_LAST)
