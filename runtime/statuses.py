"""Records as CRI messages.

Pure. Called by the gRPC door and for events.
"""

from __future__ import annotations

from collections.abc import Mapping

from proto.cri.v1 import cri_pb2 as cri
from runtime.containers import Container
from runtime.records import EXITED, RUNNING
from runtime.sandboxes import Sandbox

_STATES = {RUNNING: cri.CONTAINER_RUNNING, EXITED: cri.CONTAINER_EXITED}


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether labels have every pair of a CRI label selector."""
    return all(labels.get(key) == value for key, value in selector.items())


def container_state(container: Container) -> cri.ContainerState.ValueType:
    """State as the CRI names it."""
    return _STATES.get(container.record.state, cri.CONTAINER_CREATED)


def sandbox_state(sandbox: Sandbox) -> cri.PodSandboxState.ValueType:
    """State as the CRI names it."""
    return cri.SANDBOX_READY if sandbox.record.ready else cri.SANDBOX_NOTREADY


def sandbox_status(sandbox: Sandbox) -> cri.PodSandboxStatus:
    """Everything about a sandbox."""
    record, config = sandbox.record, sandbox.config
    return cri.PodSandboxStatus(
        id=record.id,
        metadata=config.metadata,
        state=sandbox_state(sandbox),
        created_at=record.created_at,
        network=cri.PodSandboxNetworkStatus(ip=record.ip),
        linux=cri.LinuxPodSandboxStatus(namespaces=cri.Namespace(options=sandbox.namespaces)),
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=record.handler,
    )


def sandbox_item(sandbox: Sandbox) -> cri.PodSandbox:
    """A sandbox in a list."""
    record, config = sandbox.record, sandbox.config
    return cri.PodSandbox(
        id=record.id,
        metadata=config.metadata,
        state=sandbox_state(sandbox),
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=record.handler,
    )


def container_status(container: Container) -> cri.ContainerStatus:
    """Everything about a container."""
    record, config = container.record, container.config
    return cri.ContainerStatus(
        id=record.id,
        metadata=config.metadata,
        state=container_state(container),
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        exit_code=record.exit_code,
        image=config.image,
        image_ref=record.image_ref,
        image_id=record.image_id,
        reason=record.reason,
        message=record.message,
        labels=config.labels,
        annotations=config.annotations,
        mounts=config.mounts,
        log_path=record.log_path,
        resources=cri.ContainerResources(linux=config.linux.resources),
        user=cri.ContainerUser(
            linux=cri.LinuxContainerUser(uid=record.uid, gid=record.gid, supplemental_groups=record.groups)
        ),
        stop_signal=config.stop_signal,
    )


def container_item(container: Container) -> cri.Container:
    """A container in a list."""
    record, config = container.record, container.config
    return cri.Container(
        id=record.id,
        pod_sandbox_id=record.sandbox_id,
        metadata=config.metadata,
        image=config.image,
        image_ref=record.image_ref,
        image_id=record.image_id,
        state=container_state(container),
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
    )
