"""Carries out what a pod's machine decides: the only place where a pod's instructions become CRI calls.

Owns the machine of one pod and the tasks that work for it. Never decides: every result goes back as an event. Called by
`kubelet.node_pods`, which feeds in what the API server and the runtime say.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from api.models import core_v1
from kubelet import dns
from kubelet import env as environment
from kubelet.cri import CriError
from kubelet.downward import PodFacts
from kubelet.images import ImageFailure
from kubelet.pod import config as configs
from kubelet.pod import events as ev
from kubelet.pod.machine import PodMachine
from kubelet.pod.resize import allocated_pod
from kubelet.pod.services import Services
from kubelet.pod.termination import termination_message
from kubelet.probes.handlers import target_of
from kubelet.probes.hooks import run_hook
from kubelet.probes.runner import ProbeRunner
from kubelet.records import ContainerRecord, ContainerState, container_record, sandbox_record
from kubelet.status.pod_status import pod_ips, pod_status
from kubelet.volumes.payload import VolumeError, VolumeWait
from machinery import log, quantity
from machinery.clock import Timer
from machinery.errors import Conflict, NotFound, StatusError
from machinery.log import kv

_log = log.get(__name__)
RETRY_FIRST, RETRY_LAST = 0.2, 10.0
UNMOUNT_RETRY_LAST = 122.0
FLUSH_SECONDS = 5.0


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
        self._resizing = asyncio.Lock()
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
        if machine.frozen or machine.gone:
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
                self._start(f"container/{name}", self._ensure_image(name))
            case ev.StartContainer():
                self._start(f"container/{instruction.container}", self._start_container(instruction))
            case ev.KillContainer():
                self._start(f"container/{instruction.container}", self._kill_container(instruction))
            case ev.RemoveContainer(container_id):
                self._start(f"remove/{container_id}", self._remove_container(container_id))
            case ev.TearDownVolumes():
                self._start("volumes", self._tear_down_volumes())
            case ev.AskResize():
                self.post(ev.ResizeDecided(*self._fits(self.pod)))
            case ev.ResizeContainer():
                self._start(f"container/{instruction.container}", self._resize_container(instruction))
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
                await self._forgiving(shared.cri.stop_sandbox(old))
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
        await self._until_done(lambda: self.shared.cri.stop_sandbox(sandbox_id))
        self.post(ev.SandboxStopped(sandbox_id))

    async def _ensure_image(self, name: str) -> None:
        slot = self.machine.slots[name]
        try:
            reference = await self.shared.images.ensure(
                slot.spec, lambda kind, reason, message: self.tell(kind, reason, message, name), self._credentials
            )
        except ImageFailure as failure:
            self.post(ev.ImageFailed(name, failure.reason, failure.message))
        except Exception as error:
            self.post(ev.ImageFailed(name, "ErrImagePull", str(error)))
            raise RuntimeError(f"image of {self.name}") from error
        else:
            self.post(ev.ImageReady(name, reference))

    async def _credentials(self) -> list[Mapping[str, Any]]:
        """What the pod's pull secrets hold, in their order; a secret that cannot be read is told and left out."""
        names = [each.name for each in self.machine.spec.imagePullSecrets or () if each.name]
        if not names:
            return []
        namespace = (self.pod.metadata.namespace if self.pod.metadata else None) or ""
        try:
            found = await self.shared.reader.secrets(namespace, names)
        except StatusError as error:
            _log.info("Failed to read pull secrets", extra=kv(pod=self.name, error=error.message))
            found = dict.fromkeys(names)
        missing = [name for name in names if found.get(name) is None]
        if missing:
            why = f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
            why += "attempting to pull the image may not succeed."
            self.tell("Warning", "FailedToRetrieveImagePullSecret", why)
        return [secret.data or {} for secret in found.values() if secret is not None]

    async def _start_container(self, wish: ev.StartContainer) -> None:
        name = wish.container
        try:
            await self._make_and_start(wish)
        except _StartFailure as failure:
            self.tell("Warning", "Failed", f"Error: {failure.message}", name)
            self.post(ev.ContainerFailed(name, failure.reason, failure.message, failure.record))
        except Exception as error:
            self.post(ev.ContainerFailed(name, "CreateContainerError", str(error)))
            raise RuntimeError(f"start of {name} in {self.name}") from error

    async def _make_and_start(self, wish: ev.StartContainer) -> None:
        shared, machine = self.shared, self.machine
        name, spec, sandbox = wish.container, machine.slots[wish.container].spec, machine.sandbox
        if sandbox is None:
            raise _StartFailure("CreateContainerError", "pod sandbox is gone")
        try:
            config = await self._container_config(wish, spec)
        except (environment.EnvError, configs.ConfigError, VolumeError, StatusError, ValueError) as error:
            raise _StartFailure("CreateContainerConfigError", str(error)) from error
        sandbox_config = configs.sandbox_config(self.allocated, shared.node, sandbox.attempt)
        try:
            container_id = await shared.cri.create_container(sandbox.id, config, sandbox_config)
        except CriError as error:
            raise _StartFailure("CreateContainerError", error.message) from error
        self.tell("Normal", "Created", "Container created", name)
        try:
            await shared.cri.start_container(container_id)
        except CriError as error:
            record = await self._status(container_id, sandbox.id)
            raise _StartFailure("RunContainerError", error.message, record) from error
        self.tell("Normal", "Started", "Container started", name)
        await self._post_start(spec, container_id, sandbox.id)
        record = await self._status(container_id, sandbox.id)
        if record is None:
            raise _StartFailure("RunContainerError", "container was lost after its start")
        self.post(ev.ContainerStarted(record))

    async def _post_start(self, spec: core_v1.Container, container_id: str, sandbox_id: str) -> None:
        hook = spec.lifecycle.postStart if spec.lifecycle else None
        if hook is None:
            return
        verdict = await run_hook(self.shared.cri, self.shared.clock, hook, self._target(spec, container_id))
        if verdict.ok:
            return
        self.tell("Warning", "FailedPostStartHook", f"PostStartHook failed: {verdict.message}", spec.name)
        self.tell("Normal", "Killing", "FailedPostStartHook", spec.name)
        grace = self._real_grace(configs.grace_of(self.machine.spec))
        await self._forgiving(self.shared.cri.stop_container(container_id, grace))
        record = await self._status(container_id, sandbox_id)
        raise _StartFailure("PostStartHookError", f"PostStartHook failed: {verdict.message}", record)

    async def _container_config(self, wish: ev.StartContainer, spec: core_v1.Container) -> Any:
        shared, pod = self.shared, self.pod
        slot = self.machine.slots[wish.container]
        namespace = (pod.metadata.namespace if pod.metadata else None) or ""
        maps, secrets = environment.references(spec)
        sources = environment.Sources(
            await shared.reader.config_maps(namespace, maps), await shared.reader.secrets(namespace, secrets)
        )
        links = self.machine.spec.enableServiceLinks is not False
        await shared.services_synced()
        service_env = environment.service_variables(shared.services.list(), namespace, links=links)
        variables = environment.build(pod, spec, sources, self.facts(), service_env)
        mounts = shared.volumes.mounts(pod, spec, variables)
        devices = shared.volumes.devices(pod, spec)
        taken = {mount.container_path for mount in mounts}
        folder = shared.node.pod_dir(self.uid)
        if not self.machine.spec.hostNetwork and "/etc/hosts" not in taken:
            mounts.append(configs.MountPlan("/etc/hosts", str(folder / "etc-hosts")))
        termination = folder / "containers" / spec.name / f"{wish.attempt}.termination"
        termination.parent.mkdir(parents=True, exist_ok=True)
        termination.write_bytes(b"")
        termination.chmod(0o666)
        mounts.append(configs.MountPlan(spec.terminationMessagePath or "/dev/termination-log", str(termination)))
        user = await shared.images.user(wish.image_ref)
        return configs.container_config(
            pod,
            spec,
            shared.node,
            attempt=wish.attempt,
            image_ref=wish.image_ref,
            environment=variables,
            mounts=mounts,
            devices=devices,
            termination_file=str(termination),
            image_user=user,
            target_id=self._target_id(slot.target) if slot.target else "",
        )

    def _target_id(self, name: str) -> str:
        """The container whose processes an ephemeral container is to see. Raises ConfigError."""
        target = self.machine.slots.get(name)
        if target is None or target.current is None or not target.running:
            raise configs.ConfigError(f"unable to find target container {name}")
        return target.current.id

    async def _resize_container(self, wish: ev.ResizeContainer) -> None:
        """The pod's own limits make way first and close up afterwards; containers one after the other."""
        shared, slot = self.shared, self.machine.slots[wish.container]
        done = ev.ContainerResized(wish.container, wish.container_id, wish.resources)
        try:
            async with self._resizing:
                allocated = self.allocated
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
            self.post(replace(done, error=str(error)))
            raise RuntimeError(f"resize of {wish.container} in {self.name}") from error
        self.post(done)

    async def _check_usage(self, wish: ev.ResizeContainer) -> None:
        """A memory limit below what is in use would kill the container instead of resizing it. Raises ValueError."""
        limit = ((wish.resources.limits if wish.resources else None) or {}).get("memory")
        if limit is None:
            return
        used = await self.shared.cri.memory_usage(wish.container_id)
        if used > quantity.value(limit):
            raise ValueError(
                f"attempting to set container memory limit ({quantity.value(limit)}) below current usage ({used})"
            )

    def _target(self, spec: core_v1.Container, container_id: str) -> Any:
        ips = pod_ips(self.machine, self.shared.node.ip)
        return target_of(spec, container_id, ips[0] if ips else "127.0.0.1")

    async def _status(self, container_id: str, sandbox_id: str) -> ContainerRecord | None:
        try:
            status = await self.shared.cri.container_status(container_id)
        except CriError:
            return None
        return self.read(container_record(status, sandbox_id))

    async def _kill_container(self, wish: ev.KillContainer) -> None:
        """preStop, then StopContainer with what is left of the grace; again and again until it is really down."""
        slot = self.machine.slots[wish.container]
        clock = self.shared.clock
        began = clock.monotonic()
        grace = max(wish.grace, 0.0)
        hook = slot.spec.lifecycle.preStop if slot.spec.lifecycle and wish.pre_stop else None
        if hook is not None and grace > 0:
            limit = clock.real(grace)
            try:
                async with asyncio.timeout(limit):
                    target = self._target(slot.spec, wish.container_id)
                    verdict = await run_hook(self.shared.cri, clock, hook, target, limit)
                if not verdict.ok:
                    self.tell("Warning", "FailedPreStopHook", "PreStopHook failed", wish.container)
            except TimeoutError:
                _log.info("PreStop hook did not end in time", extra=kv(pod=self.name, container=wish.container))
            grace = max(grace - (clock.monotonic() - began), 2.0)  # as upstream: at least two seconds after the hook
        timeout = self._real_grace(grace)
        await self._until_done(lambda: self.shared.cri.stop_container(wish.container_id, timeout))
        record = await self._ended(wish.container_id) or self._lost(wish)
        self.post(ev.ContainerKilled(wish.container, record))

    async def _ended(self, container_id: str) -> ContainerRecord | None:
        """The record of a container that was stopped; None when the runtime does not know it (any more)."""
        delay = RETRY_FIRST / 10
        while True:
            try:
                status = await self.shared.cri.container_status(container_id)
            except CriError as error:
                if error.not_found:
                    return None
            else:
                record = self.read(container_record(status))
                if record.ended:
                    return record
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_LAST)

    def _lost(self, wish: ev.KillContainer) -> ContainerRecord | None:
        current = self.machine.slots[wish.container].current
        if current is None or current.id != wish.container_id:
            return None
        return replace(
            current,
            state=ContainerState.EXITED,
            exit_code=137,
            reason="ContainerStatusUnknown",
            message="The container could not be located when the pod was terminated",
            finished_at=int(self.shared.clock.now().timestamp() * 1e9),
        )

    def _real_grace(self, grace: float) -> int:
        return math.ceil(self.shared.clock.real(grace)) if grace > 0 else 0

    async def _remove_container(self, container_id: str) -> None:
        try:
            await self.shared.cri.remove_container(container_id)
        except CriError as error:
            if not error.not_found:
                _log.info("Left a dead container", extra=kv(pod=self.name, container=container_id, error=error))

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

    async def _until_done(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        delay = RETRY_FIRST
        while True:
            try:
                await call()
                return
            except CriError as error:
                if error.not_found:
                    return
                _log.warning("Runtime call failed", extra=kv(pod=self.name, error=error.message))
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_LAST)

    async def _forgiving(self, call: Coroutine[Any, Any, None]) -> None:
        try:
            await call
        except CriError as error:
            if not error.not_found:
                _log.info("Runtime call failed", extra=kv(pod=self.name, error=error.message))


class _StartFailure(Exception):
    """A container did not start; becomes its waiting reason."""

    def __init__(self, reason: str, message: str, record: ContainerRecord | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.record = record
