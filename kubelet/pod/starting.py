"""Brings a container to life: image, environment, files, the runtime's calls, the postStart hook.

Owns the order of these steps and the reasons with which a container waits that could not be started. Called by
`pod.worker`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.models import core_v1
from kubelet import env as environment
from kubelet.cri import CriError
from kubelet.images import ImageFailure
from kubelet.pod import config as configs
from kubelet.pod import events as ev
from kubelet.pod.calls import forgiving
from kubelet.pod.container_work import ContainerWork
from kubelet.pod.slot import Kind
from kubelet.probes.hooks import run_hook
from kubelet.records import ContainerRecord
from kubelet.volumes.payload import VolumeError
from machinery import log
from machinery.errors import StatusError
from machinery.log import kv

_log = log.get(__name__)


class StartFailure(Exception):
    """A container did not start; becomes its waiting reason."""

    def __init__(self, reason: str, message: str, record: ContainerRecord | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.record = record


class Starting(ContainerWork):
    """Works for one pod; results go back as events."""

    async def ensure_image(self, name: str) -> None:
        slot = self._of.machine.slots[name]
        try:
            reference = await self._of.shared.images.ensure(
                slot.spec, lambda kind, reason, message: self._of.tell(kind, reason, message, name), self._credentials
            )
        except ImageFailure as failure:
            self._of.post(ev.ImageFailed(name, failure.reason, failure.message))
        except Exception as error:
            self._of.post(ev.ImageFailed(name, "ErrImagePull", str(error)))
            raise RuntimeError(f"image of {self._of.name}") from error
        else:
            self._of.post(ev.ImageReady(name, reference))

    async def _credentials(self) -> list[Mapping[str, Any]]:
        """What the pod's pull secrets hold, in their order; a secret that cannot be read is told and left out."""
        names = [each.name for each in self._of.machine.spec.imagePullSecrets or () if each.name]
        if not names:
            return []
        namespace = (self._of.pod.metadata.namespace if self._of.pod.metadata else None) or ""
        try:
            found = await self._of.shared.reader.secrets(namespace, names)
        except StatusError as error:
            _log.info("Failed to read pull secrets", extra=kv(pod=self._of.name, error=error.message))
            found = dict.fromkeys(names)
        missing = [name for name in names if found.get(name) is None]
        if missing:
            why = f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
            why += "attempting to pull the image may not succeed."
            self._of.tell("Warning", "FailedToRetrieveImagePullSecret", why)
        return [secret.data or {} for secret in found.values() if secret is not None]

    async def start(self, wish: ev.StartContainer) -> None:
        name = wish.container
        try:
            await self._make_and_start(wish)
        except StartFailure as failure:
            self._of.tell("Warning", "Failed", f"Error: {failure.message}", name)
            self._of.post(ev.ContainerFailed(name, failure.reason, failure.message, failure.record))
        except Exception as error:
            self._of.post(ev.ContainerFailed(name, "CreateContainerError", str(error)))
            raise RuntimeError(f"start of {name} in {self._of.name}") from error

    async def _make_and_start(self, wish: ev.StartContainer) -> None:
        shared, machine = self._of.shared, self._of.machine
        name, spec, sandbox = wish.container, machine.slots[wish.container].spec, machine.sandbox
        if sandbox is None:
            raise StartFailure("CreateContainerError", "pod sandbox is gone")
        try:
            config = await self._container_config(wish, spec)
        except (environment.EnvError, configs.ConfigError, VolumeError, StatusError, ValueError) as error:
            raise StartFailure("CreateContainerConfigError", str(error)) from error
        sandbox_config = configs.sandbox_config(self._of.allocated, shared.node, sandbox.attempt)
        try:
            container_id = await shared.cri.create_container(sandbox.id, config, sandbox_config)
        except CriError as error:
            raise StartFailure("CreateContainerError", error.message) from error
        self._of.tell("Normal", "Created", "Container created", name)
        try:
            await shared.cri.start_container(container_id)
        except CriError as error:
            record = await self.status(container_id, sandbox.id)
            raise StartFailure("RunContainerError", error.message, record) from error
        self._of.tell("Normal", "Started", "Container started", name)
        await self._post_start(spec, container_id, sandbox.id)
        record = await self.status(container_id, sandbox.id)
        if record is None:
            raise StartFailure("RunContainerError", "container was lost after its start")
        self._of.post(ev.ContainerStarted(record))

    async def _post_start(self, spec: core_v1.Container, container_id: str, sandbox_id: str) -> None:
        hook = spec.lifecycle.postStart if spec.lifecycle else None
        if hook is None:
            return
        verdict = await run_hook(self._of.shared.cri, self._of.shared.clock, hook, self.target(spec, container_id))
        if verdict.ok:
            return
        self._of.tell("Warning", "FailedPostStartHook", f"PostStartHook failed: {verdict.message}", spec.name)
        self._of.tell("Normal", "Killing", "FailedPostStartHook", spec.name)
        grace = self.real_grace(configs.grace_of(self._of.machine.spec))
        await forgiving(self._of.name, self._of.shared.cri.stop_container(container_id, grace))
        record = await self.status(container_id, sandbox_id)
        raise StartFailure("PostStartHookError", f"PostStartHook failed: {verdict.message}", record)

    async def _container_config(self, wish: ev.StartContainer, spec: core_v1.Container) -> Any:
        shared, pod = self._of.shared, self._of.pod
        slot = self._of.machine.slots[wish.container]
        namespace = (pod.metadata.namespace if pod.metadata else None) or ""
        maps, secrets = environment.references(spec)
        sources = environment.Sources(
            await shared.reader.config_maps(namespace, maps), await shared.reader.secrets(namespace, secrets)
        )
        links = self._of.machine.spec.enableServiceLinks is not False
        await shared.services_synced()
        service_env = environment.service_variables(shared.services.list(), namespace, links=links)
        variables = environment.build(pod, spec, sources, self._of.facts(), service_env)
        if slot.kind is Kind.EPHEMERAL and spec.volumeMounts:  # it may be the first to use a volume
            await shared.volumes.set_up(pod, self._of.facts())
        mounts = shared.volumes.mounts(pod, spec, variables)
        devices = shared.volumes.devices(pod, spec)
        taken = {mount.container_path for mount in mounts}
        folder = shared.node.pod_dir(self._of.uid)
        if not self._of.machine.spec.hostNetwork and "/etc/hosts" not in taken:
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
        target = self._of.machine.slots.get(name)
        if target is None or target.current is None or not target.running:
            raise configs.ConfigError(f"unable to find target container {name}")
        return target.current.id
