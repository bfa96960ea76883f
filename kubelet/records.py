"""What the runtime knows, as small immutable facts; and the labels by which we find our own again.

The label and annotation names are Kubernetes' own: they are the only memory that survives a kubelet, so adoption
after a restart reads them back. CRI messages stop here and in `cri`, `pod.config`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from proto.cri.v1 import cri_pb2 as cri

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"

CONTAINER_HASH = "io.kubernetes.container.hash"
RESTART_COUNT = "io.kubernetes.container.restartCount"
TERMINATION_PATH = "io.kubernetes.container.terminationMessagePath"
TERMINATION_POLICY = "io.kubernetes.container.terminationMessagePolicy"
POD_GRACE = "io.kubernetes.pod.terminationGracePeriod"
TERMINATION_HOST_PATH = "nanokube.io/termination-message-host-path"


class ContainerState(enum.IntEnum):
    """The runtime's view; a container only ever moves forward in this order."""

    CREATED = 0
    RUNNING = 1
    EXITED = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class ContainerUser:
    """Whom a container's first process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """One container (one attempt) in the runtime. Times are real wall nanoseconds, 0 = never."""

    id: str
    name: str
    attempt: int
    state: ContainerState
    sandbox_id: str = ""
    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_ref: str = ""
    hash: str = ""
    log_path: str = ""
    termination_path: str = ""
    termination_policy: str = ""
    user: ContainerUser | None = None

    @property
    def running(self) -> bool:
        return self.state is ContainerState.RUNNING

    @property
    def ended(self) -> bool:
        return self.state >= ContainerState.EXITED


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """One pod sandbox in the runtime."""

    id: str
    attempt: int
    ready: bool
    created_at: int = 0
    ips: tuple[str, ...] = ()
    host_network: bool = False


@dataclass(frozen=True, slots=True)
class PodRecord:
    """All that the runtime holds for one pod uid."""

    uid: str
    namespace: str
    name: str
    sandboxes: tuple[SandboxRecord, ...]
    containers: tuple[ContainerRecord, ...]
    grace: int = 30


def container_record(status: cri.ContainerStatus, sandbox_id: str = "") -> ContainerRecord:
    """From a CRI ContainerStatus; `sandbox_id` is not part of it and comes from where it was asked."""
    annotations = status.annotations
    return ContainerRecord(
        id=status.id,
        name=status.metadata.name,
        attempt=_number(annotations, RESTART_COUNT, status.metadata.attempt),
        state=ContainerState(status.state),
        sandbox_id=sandbox_id,
        created_at=status.created_at,
        started_at=status.started_at,
        finished_at=status.finished_at,
        exit_code=status.exit_code,
        reason=status.reason,
        message=status.message,
        image=status.image.image,
        image_ref=status.image_ref or status.image_id,
        hash=annotations.get(CONTAINER_HASH, ""),
        log_path=status.log_path,
        termination_path=annotations.get(TERMINATION_HOST_PATH, ""),
        termination_policy=annotations.get(TERMINATION_POLICY, ""),
        user=_user(status.user),
    )


def _user(user: cri.ContainerUser) -> ContainerUser | None:
    if not user.HasField("linux"):
        return None
    return ContainerUser(user.linux.uid, user.linux.gid, tuple(user.linux.supplemental_groups))


def sandbox_record(status: cri.PodSandboxStatus) -> SandboxRecord:
    """From a CRI PodSandboxStatus."""
    addresses = [status.network.ip, *(extra.ip for extra in status.network.additional_ips)]
    return SandboxRecord(
        id=status.id,
        attempt=status.metadata.attempt,
        ready=status.state == cri.SANDBOX_READY,
        created_at=status.created_at,
        ips=tuple(address for address in addresses if address),
        host_network=status.linux.namespaces.options.network == cri.NODE,
    )


def _number(annotations: Mapping[str, str], key: str, fallback: int) -> int:
    try:
        return int(annotations.get(key, fallback))
    except ValueError:
        return fallback
