"""The pods of this node: which workers exist, and what the API server and the runtime tell them.

Owns the workers, admission, adoption of what a former kubelet left, removal of what no longer belongs, and the slow
resync. Never carries out anything itself. Called by `kubelet.app`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from api.models import core_v1
from client.informer import EventHandler, Informer
from kubelet import admission
from kubelet.cri import Cri, CriError
from kubelet.eviction.plan import refusal
from kubelet.pod import events as ev
from kubelet.pod.services import Services
from kubelet.pod.worker import PodWorker
from kubelet.records import (
    POD_GRACE,
    POD_NAME,
    POD_NAMESPACE,
    POD_UID,
    ContainerRecord,
    PodRecord,
    SandboxRecord,
    container_record,
    sandbox_record,
)
from machinery import log
from machinery.log import kv
from machinery.meta import ObjectKey
from proto.cri.v1 import cri_pb2 as cri

_log = log.get(__name__)
RESYNC = 60.0  # cluster seconds, upstream's sync frequency
STREAM_RETRY = 0.2  # real seconds
TERMINAL = ("Succeeded", "Failed")


class NodePods:
    """All pod workers of one kubelet."""

    def __init__(
        self,
        shared: Services,
        informer: Informer[core_v1.Pod],
        node_labels: Callable[[], dict[str, str]],
        room: admission.Allocatable,
        pressures: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """`pressures`: the conditions under which the node takes fewer pods."""
        self._shared = shared
        self._informer = informer
        self._node_labels = node_labels
        self._room = room
        self._pressures = pressures
        self._workers: dict[str, PodWorker] = {}
        self._found: dict[str, PodRecord] = {}  # what the runtime held when we started
        self._orphans: set[str] = set()
        self._listening = False
        self.adopted: Callable[[], None] = lambda: None
        """Called once, when every pod of the node is known and every stranger is on its way out."""

    # ---- questions of the server side ----

    def workers(self) -> list[PodWorker]:
        return list(self._workers.values())

    def by_name(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of a pod's present incarnation."""
        pod = self._informer.lister.get(ObjectKey(namespace, name))
        uid = pod.metadata.uid if pod is not None and pod.metadata else None
        return self._workers.get(uid or "")

    def close(self) -> None:
        """Stop working for all pods; the pods stay."""
        for worker in self.workers():
            worker.close()

    # ---- life ----

    async def run(self) -> None:
        """Adopt, then follow both sources until cancelled."""
        runtime_ready = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(runtime_ready))
            await runtime_ready.wait()
            await self._informer.wait_synced()
            self._found = await self._list_all()
            known = {pod.metadata.uid for pod in self._informer.lister.list() if pod.metadata}
            for uid in [
                uid
                for uid in {*self._found, *self._shared.volumes.known(), *self._shared.remover.known()}
                if uid not in known
            ]:
                self._remove_orphan(uid)
            self._informer.add_handler(EventHandler(self._added, self._updated, self._deleted))
            self._found = {}
            self.adopted()
            group.create_task(self._resync_forever())

    async def _listen(self, ready: asyncio.Event) -> None:
        """Follow the runtime's events; after a break look at everything, because nothing is replayed."""
        broken = False
        while True:
            try:
                await self._shared.cri.version()
                if broken:
                    self._shared.tasks.create_task(self._resync())
                ready.set()
                broken = True
                async for event in self._shared.cri.events():
                    self._runtime_event(event)
            except CriError as error:
                _log.warning("Lost the runtime's events", extra=kv(error=error.message))
            await asyncio.sleep(STREAM_RETRY)

    def _runtime_event(self, event: cri.ContainerEventResponse) -> None:
        sandbox = event.pod_sandbox_status
        worker = self._workers.get(sandbox.metadata.uid)
        if worker is not None:
            worker.observe(sandbox, event.containers_statuses)

    async def _resync_forever(self) -> None:
        while True:
            await self._shared.clock.sleep(RESYNC)
            await self._resync()
            for worker in self.workers():
                await worker.refresh_volumes()  # never fails

    async def _resync(self) -> None:
        """Tell every pod at rest what the runtime really holds; remove what nobody knows."""
        self._room_changed()
        at_rest = {uid: worker for uid, worker in self._workers.items() if worker.machine.idle()}
        seen = {uid: worker.version for uid, worker in at_rest.items()}
        found = await self._list_all()
        for uid, worker in at_rest.items():
            if self._workers.get(uid) is worker and worker.version == seen[uid]:
                self._tell(worker, found.get(uid))
        for uid in found:
            if uid not in self._workers:
                self._remove_orphan(uid)

    async def _list_all(self) -> dict[str, PodRecord]:
        """Everything in the runtime by pod uid, with full statuses. Waits for a runtime that does not answer."""
        while True:
            try:
                return await list_pods(self._shared.cri)
            except CriError as error:
                _log.warning("Failed to look at the runtime", extra=kv(error=error.message))
            await asyncio.sleep(STREAM_RETRY)

    def _tell(self, worker: PodWorker, record: PodRecord | None) -> None:
        sandboxes = record.sandboxes if record else ()
        containers = tuple(worker.read(each) for each in record.containers) if record else ()
        worker.post(ev.Observed(sandboxes, containers, complete=True))

    # ---- the API server's side ----

    def _added(self, pod: core_v1.Pod) -> None:
        meta = pod.metadata
        if meta is None or not meta.uid:
            return
        if meta.uid in self._workers:
            self._updated(pod, pod)
            return
        record = self._found.get(meta.uid)
        self._shared.statuses.learn(pod)
        worker = PodWorker(pod, self._shared, self._forget, self._fits, adopted=record is not None)
        self._workers[meta.uid] = worker
        started = record is not None or (pod.status is not None and pod.status.startTime is not None)
        if not started and meta.deletionTimestamp is None:
            rejection = admission.admit(
                pod, self._active(meta.uid), self._node_labels(), self._shared.node.name, self._room
            )
            if rejection is None and (why := refusal(pod, self._pressures())):
                rejection = admission.Rejection("Evicted", why)
            if rejection is not None:
                worker.tell("Warning", rejection.reason, rejection.message)
                worker.post(ev.Rejected(rejection.reason, rejection.message))
        self._tell(worker, record)

    def _fits(self, pod: core_v1.Pod) -> tuple[str, str]:
        """Why a pod of this node may not be resized as it wants: (reason, message), empty where it may."""
        uid = (pod.metadata.uid if pod.metadata else None) or ""
        return admission.resize(pod, self._active(uid), self._room)

    def _room_changed(self) -> None:
        """Resizes that had to wait may be possible now."""
        for worker in self.workers():
            if worker.machine.resize.pending is not None:
                worker.post(ev.ResizeRetry())

    def _active(self, uid: str) -> list[core_v1.Pod]:
        """The admitted pods that still count, with what they were given."""
        return [
            worker.allocated
            for worker in self._workers.values()
            if worker.uid != uid
            and not worker.machine.over
            and not worker.machine.frozen
            and not worker.machine.verdict
        ]

    def _updated(self, old: core_v1.Pod, pod: core_v1.Pod) -> None:
        meta, before = pod.metadata, old.metadata
        if meta is None or not meta.uid:
            return
        if before is not None and before.uid != meta.uid:
            self._deleted(old)
        worker = self._workers.get(meta.uid)
        if worker is None:
            self._added(pod)
            return
        self._shared.statuses.learn(pod)
        worker.post(ev.PodChanged(pod))
        if before is not None and (before.labels, before.annotations) != (meta.labels, meta.annotations):
            worker.refresh_soon()  # files may tell them

    def _deleted(self, pod: core_v1.Pod) -> None:
        meta = pod.metadata
        worker = self._workers.get((meta.uid if meta else None) or "")
        if worker is not None and meta is not None:
            worker.post(ev.PodGone(meta.deletionGracePeriodSeconds))

    def _forget(self, uid: str) -> None:
        self._workers.pop(uid, None)
        self._shared.statuses.forget(uid)
        self._room_changed()

    def _remove_orphan(self, uid: str) -> None:
        if uid in self._orphans:
            return
        self._orphans.add(uid)
        record = self._found.get(uid)
        self._shared.tasks.create_task(self._removing(uid, record.grace if record else 0))

    async def _removing(self, uid: str, grace: int) -> None:
        try:
            _log.info("Removing a pod that does not belong here", extra=kv(uid=uid))
            await self._shared.remover.remove(uid, grace)
        except Exception:  # noqa: BLE001  one pod's trouble must not end the kubelet
            _log.exception("Failed to remove pod", extra=kv(uid=uid))
        finally:
            self._orphans.discard(uid)


async def list_pods(runtime: Cri) -> dict[str, PodRecord]:
    """All pods in the runtime with the statuses of their sandboxes and containers. Raises CriError."""
    sandboxes: dict[str, list[SandboxRecord]] = {}
    names: dict[str, tuple[str, str, int]] = {}
    for sandbox in await runtime.list_sandboxes():
        uid = sandbox.labels.get(POD_UID)
        if not uid:
            continue
        try:
            status = await runtime.sandbox_status(sandbox.id)
        except CriError as error:
            if error.not_found:
                continue
            raise
        sandboxes.setdefault(uid, []).append(sandbox_record(status))
        grace = sandbox.annotations.get(POD_GRACE, "")
        labels = sandbox.labels
        names[uid] = (labels.get(POD_NAMESPACE, ""), labels.get(POD_NAME, ""), int(grace) if grace.isdigit() else 30)
    containers: dict[str, list[ContainerRecord]] = {}
    for container in await runtime.list_containers():
        uid = container.labels.get(POD_UID)
        if not uid:
            continue
        try:
            found = container_record(await runtime.container_status(container.id), container.pod_sandbox_id)
        except CriError as error:
            if error.not_found:
                continue
            raise
        containers.setdefault(uid, []).append(replace(found, sandbox_id=container.pod_sandbox_id))
        names.setdefault(uid, (container.labels.get(POD_NAMESPACE, ""), container.labels.get(POD_NAME, ""), 30))
    return {
        uid: PodRecord(
            uid, *names[uid][:2], tuple(sandboxes.get(uid, ())), tuple(containers.get(uid, ())), names[uid][2]
        )
        for uid in names
    }
