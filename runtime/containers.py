"""The life of containers: bundle, start, exit, stop, removal, and adoption after a restart of this process.

Owns container records and bundles. A container's conmon is its witness: one pidfd on it per running container tells
the exit, the exit file tells the code. Nothing polls. Called by the gRPC door; publishes events.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linux import mount, pidfd
from linux.cgroup import Cgroups
from linux.pidfd import ProcessRef
from machinery.log import get, kv
from proto.cri.v1 import cri_pb2 as cri
from runtime import bundle, conmon, orphans, records
from runtime.conmon import Crun, Launch, LaunchError, plan_start_error
from runtime.container_plans import plan_exit_reason, plan_limits, plan_stop_signal
from runtime.faults import AlreadyThere, BadConfig, RuntimeFault, UnknownId, WrongState
from runtime.images.reference import shown_name
from runtime.images.table import ImageTable, NodeImage
from runtime.records import CREATED, EXITED, RUNNING, STARTING, ContainerRecord
from runtime.spec import Ability, SandboxView

log = get("runtime.containers")
KILL_WAIT = 10.0  # real seconds a SIGKILLed container may take to be gone
UNKNOWN = "ContainerStatusUnknown"
UNKNOWN_MESSAGE = "The container's monitor was lost; how the container ended is unknown"


@dataclass
class Container:
    """A container in memory."""

    record: ContainerRecord
    config: cri.ContainerConfig
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    cleaned: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def process(self) -> ProcessRef:
        """Its first process."""
        return ProcessRef(self.record.pid, self.record.pid_started)

    @property
    def monitor(self) -> ProcessRef:
        """Its conmon."""
        return ProcessRef(self.record.conmon, self.record.conmon_started)

    def describe(self) -> dict[str, Any]:
        """For log lines."""
        return {"container": self.config.metadata.name, "id": self.record.id[:12]}


Publish = Callable[[Container, "cri.ContainerEventType.ValueType"], None]


class Containers:
    """All containers of a node."""

    def __init__(
        self,
        root: Path,
        crun: Crun,
        cgroups: Cgroups,
        images: ImageTable,
        ability: Ability,
        *,
        publish: Publish,
        parallel: int,
    ) -> None:
        self._root = root / "containers"
        self._root.mkdir(parents=True, exist_ok=True)
        self._crun = crun
        self._cgroups = cgroups
        self._images = images
        self._ability = ability
        self._publish = publish
        self._starting = asyncio.Semaphore(parallel)
        self._all: dict[str, Container] = {}
        self._by_sandbox: dict[str, dict[str, Container]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    # reading

    def get(self, identity: str) -> Container:
        """The container with this id (or unambiguous prefix). Raises UnknownId."""
        found = self._all.get(identity)
        if found is not None:
            return found
        matches = [each for key, each in self._all.items() if identity and key.startswith(identity)]
        if len(matches) != 1:
            raise UnknownId(f'could not find container "{identity}": not found')
        return matches[0]

    def find(self, identity: str) -> Container | None:
        """The container, or None."""
        try:
            return self.get(identity)
        except UnknownId:
            return None

    def listed(self) -> list[Container]:
        """All containers, the runtime's own left out."""
        return [each for each in self._all.values() if not each.record.internal]

    def of_sandbox(self, sandbox_id: str) -> list[Container]:
        """Containers of a sandbox, the runtime's own included."""
        return list(self._by_sandbox.get(sandbox_id, {}).values())

    def bundle(self, container: Container) -> Path:
        """Folder of the container."""
        return self._root / container.record.id

    def rootfs(self, container: Container) -> Path:
        """Its root file system, mounted from creation to exit."""
        return self._root / container.record.id / "rootfs"

    def save(self, container: Container) -> None:
        """Write the record down."""
        records.save(self.bundle(container), container.record)

    # life

    def serve(self, tasks: asyncio.TaskGroup) -> None:
        """Take the task group that watches containers, and watch those that were adopted."""
        self._tasks = tasks
        for container in self._all.values():
            if container.record.state == RUNNING:
                tasks.create_task(self._watch(container), name=f"watch {container.record.id[:12]}")
            elif container.record.state == EXITED:
                container.exited.set()
                if not container.cleaned.is_set():
                    tasks.create_task(self._clean(container), name=f"clean {container.record.id[:12]}")

    async def create(
        self,
        config: cri.ContainerConfig,
        sandbox_config: cri.PodSandboxConfig,
        sandbox_id: str,
        view: SandboxView,
        *,
        internal: bool = False,
    ) -> Container:
        """Prepare a container; nothing runs yet. Raises BadConfig."""
        if not config.HasField("metadata") or not config.metadata.name:
            raise BadConfig("container config must include metadata with a name")
        name = (config.metadata.name, config.metadata.attempt)
        siblings = self._by_sandbox.setdefault(sandbox_id, {})
        if any((each.config.metadata.name, each.config.metadata.attempt) == name for each in siblings.values()):
            raise AlreadyThere(f"container {name[0]} attempt {name[1]} exists in sandbox {sandbox_id[:12]}")
        image = self._images.find(config.image.image)
        if image is None:
            raise UnknownId(f'failed to resolve image "{config.image.image}": not found')
        log_path = ""
        if config.log_path and sandbox_config.log_directory:
            log_path = os.path.join(sandbox_config.log_directory, config.log_path)
        identity = records.next_free(set(self._all), 32)
        container = Container(
            ContainerRecord(
                id=identity,
                sandbox_id=sandbox_id,
                created_at=time.time_ns(),
                image_id=image.record.id,
                image_ref=image.digests[0] if image.digests else image.record.id,
                cgroup=f"{view.cgroup_parent}/{identity}",
                log_path=log_path,
                stop_signal=plan_stop_signal(config, image.record.config.stop_signal),
                internal=internal,
            ),
            config,
        )
        asked = config.image.user_specified_image or config.image.image
        config.image.image = shown_name(asked, image.tags, image.record.id)
        self._all[identity] = siblings[identity] = container  # reserves the name while the thread works
        try:
            await asyncio.to_thread(self._prepare, container, image, view)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._destroy, container))
            self._forget(container)
            raise
        self._publish(container, cri.CONTAINER_CREATED_EVENT)
        log.debug("Created container", extra=kv(**container.describe()))
        return container

    def _prepare(self, container: Container, image: NodeImage, view: SandboxView) -> None:
        store, folder = self._images.store, self.bundle(container)
        bundle.prepare(folder, container.record, container.config, image.record, view, store, self._ability)

    async def start(self, container: Container) -> None:
        """Run a created container. A command that cannot run leaves it exited with StartError and raises."""
        async with container.lock:
            record = container.record
            if record.state == RUNNING:
                return
            if record.state != CREATED:
                raise WrongState(f"container is in {record.state} state")
            record.state = STARTING
            try:
                self.save(container)
                async with self._starting:
                    await self._launch(container)
            except BaseException as error:
                await self._start_failed(container, error)
                raise
            self._publish(container, cri.CONTAINER_STARTED_EVENT)
            if self._tasks is not None:
                self._tasks.create_task(self._watch(container), name=f"watch {record.id[:12]}")
        log.info("Started container", extra=kv(**container.describe(), pid=record.pid))

    async def _launch(self, container: Container) -> None:
        record, config = container.record, container.config
        launch = Launch(record.id, self.bundle(container), record.log_path, config.tty, config.stdin, config.stdin_once)
        try:
            record.pid, record.conmon = await self._crun.create(launch)
            record.pid_started = pidfd.start_time(record.pid) or 0
            record.conmon_started = pidfd.start_time(record.conmon) or 0
            await self._crun.release(record.id)
        except LaunchError as error:
            argv0 = (list(config.command) or list(config.args) or [""])[0]
            text = plan_start_error(error.message, argv0)
            prefix = "failed to create containerd task: OCI runtime create failed: unable to start container process"
            raise LaunchError(f"{prefix}: {text}") from error
        record.started_at = time.time_ns()
        record.state = RUNNING
        self.save(container)

    async def _start_failed(self, container: Container, error: BaseException) -> None:
        record = container.record
        text = error.message if isinstance(error, RuntimeFault) else "start was interrupted"
        record.state, record.exit_code, record.reason, record.message = EXITED, 128, "StartError", text
        record.finished_at = time.time_ns()
        self._note_end(container)
        container.exited.set()
        if record.conmon:
            container.monitor.send(signal.SIGKILL)
        await asyncio.shield(self._clean(container))
        self._publish(container, cri.CONTAINER_STOPPED_EVENT)

    # end

    async def _watch(self, container: Container) -> None:
        """Wait for the container's end and write down how it ended; one container's trouble stays its own."""
        try:
            await self._await_end(container)
        except OSError as error:
            log.exception("Could not record container's end", extra=kv(**container.describe(), error=error))
            container.record.state = EXITED
            container.exited.set()

    async def _await_end(self, container: Container) -> None:
        fd = container.monitor.open()
        if fd is not None:
            try:
                await pidfd.wait(fd)
            finally:
                os.close(fd)
        orphans.collect(container.record.conmon)
        await self._finish(container)

    async def _finish(self, container: Container) -> None:
        record = container.record
        found = self._crun.exit_code(record.id)
        if found is None and container.process.alive():
            # conmon is gone and the container is not: nobody will ever know its exit code or read its output.
            log.warning("Lost container's monitor, killing the container", extra=kv(**container.describe()))
            await self._kill_and_wait(container)
        if found is None:
            record.exit_code, record.reason, record.message = 137, UNKNOWN, UNKNOWN_MESSAGE
            record.finished_at = time.time_ns()
        else:
            record.exit_code, record.finished_at = found
            record.reason = plan_exit_reason(record.exit_code, self._was_oom_killed(container))
        record.state = EXITED
        self._note_end(container)
        container.exited.set()
        self._publish(container, cri.CONTAINER_STOPPED_EVENT)
        log.info("Container exited", extra=kv(**container.describe(), code=record.exit_code, reason=record.reason))
        await self._clean(container)

    def _note_end(self, container: Container) -> None:
        """Write an end down if the disk has room. Else a later process works it out again, from conmon's notes."""
        try:
            self.save(container)
        except OSError as error:
            log.warning("Could not note container's end", extra=kv(**container.describe(), error=error))

    def _was_oom_killed(self, container: Container) -> bool:
        if (self.bundle(container) / "oom").exists():
            return True
        try:
            sampler = self._cgroups.sampler(container.record.cgroup)
        except OSError:
            return False
        try:
            return sampler.sample().oom_kills > 0
        except OSError:
            return False
        finally:
            sampler.close()

    async def _kill_and_wait(self, container: Container) -> None:
        fd = container.process.open()
        if fd is None:
            return
        try:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            with suppress(TimeoutError):
                async with asyncio.timeout(KILL_WAIT):
                    await pidfd.wait(fd)
        finally:
            os.close(fd)
        orphans.collect(container.record.pid)

    async def _clean(self, container: Container) -> None:
        """Give back what a dead container holds: processes it left, its group, its mount, crun's notes."""
        if container.cleaned.is_set():
            return
        try:
            await asyncio.to_thread(self._release, container)
        except OSError as error:
            log.warning("Could not clean up container", extra=kv(**container.describe(), error=error))
            return
        container.cleaned.set()

    def _release(self, container: Container) -> None:
        record = container.record
        with suppress(OSError):
            self._cgroups.kill(record.cgroup)
            if not self._cgroups.remove(record.cgroup):
                log.warning("Could not remove container's cgroup", extra=kv(**container.describe()))
        with suppress(OSError):
            mount.umount(str(self.rootfs(container)))
        self._crun.forget(record.id)

    async def stop(self, container: Container, timeout: float) -> None:
        """Ask the container to end, wait up to `timeout` real seconds, then kill it. Idempotent."""
        record = container.record
        if record.state == EXITED:
            return
        async with container.lock:
            if record.state == CREATED:  # never ran: it ends as if it had been killed
                record.state, record.exit_code, record.reason = EXITED, 137, "Error"
                record.finished_at = time.time_ns()
                self._note_end(container)
                container.exited.set()
                await self._clean(container)
                self._publish(container, cri.CONTAINER_STOPPED_EVENT)
                return
            if record.state != RUNNING:
                return
        if timeout > 0:
            container.process.send(record.stop_signal)
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await container.exited.wait()
        if record.state != EXITED:  # mypy: another task changes it while we wait
            await self._force(container)

    async def _force(self, container: Container) -> None:
        orphans.collect_all()
        container.process.send(signal.SIGKILL)
        try:
            async with asyncio.timeout(KILL_WAIT):
                await container.exited.wait()
            return
        except TimeoutError:
            log.warning("Container survived SIGKILL, killing its group", extra=kv(**container.describe()))
        await asyncio.to_thread(self._cgroups.kill, container.record.cgroup)
        container.monitor.send(signal.SIGKILL)
        try:
            async with asyncio.timeout(KILL_WAIT):
                await container.exited.wait()
        except TimeoutError:
            raise RuntimeFault(f"container {container.record.id[:12]} cannot be killed", "DEADLINE_EXCEEDED") from None

    async def remove(self, container: Container) -> None:
        """Stop the container if it runs, and forget it."""
        await self.stop(container, 0)
        async with container.lock:
            if container.record.id not in self._all:
                return
            await self._clean(container)
            await asyncio.to_thread(self._destroy, container)
            self._forget(container)
        self._publish(container, cri.CONTAINER_DELETED_EVENT)

    def _destroy(self, container: Container) -> None:
        with suppress(OSError):
            mount.umount(str(self.rootfs(container)))
        shutil.rmtree(self.bundle(container), ignore_errors=True)

    def _forget(self, container: Container) -> None:
        record = container.record
        self._all.pop(record.id, None)
        siblings = self._by_sandbox.get(record.sandbox_id, {})
        siblings.pop(record.id, None)
        if not siblings:
            self._by_sandbox.pop(record.sandbox_id, None)

    # while it runs

    async def update(self, container: Container, resources: cri.LinuxContainerResources) -> None:
        """Change limits in place."""
        if container.record.state == EXITED:
            raise WrongState("container is not running")
        if container.record.state == RUNNING:
            limits = plan_limits(resources, self._ability.swap_accounting)
            await asyncio.to_thread(self._cgroups.update, container.record.cgroup, limits)
        container.config.linux.resources.MergeFrom(resources)
        records.write_atomically(self.bundle(container) / "config.pb", container.config.SerializeToString())

    def reopen_log(self, container: Container) -> None:
        """Start a new log file at the same path."""
        if container.record.state != RUNNING:
            raise WrongState("container is not running")
        conmon.reopen_log(self.bundle(container))

    # after a restart

    def adopt(self, *, rebooted: bool) -> None:
        """Take over what an earlier process left. Blocking, once at start, before `serve`."""
        for folder, record, config in records.load_all(self._root, ContainerRecord):
            if record is None:
                with suppress(OSError):
                    mount.umount(str(folder / "rootfs"))
                shutil.rmtree(folder, ignore_errors=True)
                continue
            container = Container(record, cri.ContainerConfig.FromString(config))
            self._all[record.id] = container
            self._by_sandbox.setdefault(record.sandbox_id, {})[record.id] = container
            if record.state == STARTING:
                self._adopt_half_started(container)
            if record.state == RUNNING and rebooted:
                record.state, record.exit_code, record.reason = EXITED, 137, UNKNOWN
                record.message, record.finished_at = UNKNOWN_MESSAGE, time.time_ns()
                self.save(container)
            if record.state == EXITED and not self._cgroups.exists(record.cgroup):
                container.cleaned.set()
                self._crun.forget(record.id)
            log.info("Adopted container", extra=kv(**container.describe(), state=record.state))

    def _adopt_half_started(self, container: Container) -> None:
        """The earlier process died between conmon's launch and its note: what was begun is taken back."""
        record = container.record
        for name in ("pid", "conmon.pid"):
            with suppress(OSError, ValueError):
                pid = int((self.bundle(container) / name).read_text())
                started = pidfd.start_time(pid)
                if started is not None and self._is_ours(pid, record.id):
                    ProcessRef(pid, started).send(signal.SIGKILL)
        record.state, record.exit_code, record.reason = EXITED, 128, "StartError"
        record.message, record.finished_at = (
            "The container runtime ended while it started the container",
            time.time_ns(),
        )
        self.save(container)

    @staticmethod
    def _is_ours(pid: int, identity: str) -> bool:
        """Whether the pid still is this container's: by conmon's arguments or by the process's group."""
        with suppress(OSError):
            if identity in Path(f"/proc/{pid}/cmdline").read_text(errors="replace"):
                return True
            return identity in Path(f"/proc/{pid}/cgroup").read_text()
        return False
