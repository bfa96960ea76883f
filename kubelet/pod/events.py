"""What can happen to a pod (events in) and what its machine wants done (instructions out)."""

from __future__ import annotations

from dataclasses import dataclass

from api.models import core_v1
from kubelet.records import ContainerRecord, SandboxRecord

# ---- events ----


@dataclass(frozen=True, slots=True)
class PodChanged:
    """The API server's object, new or updated."""

    pod: core_v1.Pod


@dataclass(frozen=True, slots=True)
class PodGone:
    """The object left the API server; `grace` from its last version, None for the pod's own."""

    grace: int | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Facts from the runtime. `complete` says that what is not named does not exist."""

    sandboxes: tuple[SandboxRecord, ...] = ()
    containers: tuple[ContainerRecord, ...] = ()
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """The node does not take this pod, or does not keep it; `grace` replaces the pod's own."""

    reason: str
    message: str
    grace: int | None = None


@dataclass(frozen=True, slots=True)
class VolumesReady:
    """All volumes are in place."""


@dataclass(frozen=True, slots=True)
class VolumesFailed:
    """Some volume could not be set up."""


@dataclass(frozen=True, slots=True)
class SandboxStarted:
    sandbox: SandboxRecord


@dataclass(frozen=True, slots=True)
class SandboxFailed:
    message: str


@dataclass(frozen=True, slots=True)
class SandboxStopped:
    """StopSandbox was carried out."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class ImageReady:
    container: str
    image_ref: str


@dataclass(frozen=True, slots=True)
class ImageFailed:
    container: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ContainerStarted:
    """Start (with postStart hook) succeeded."""

    record: ContainerRecord


@dataclass(frozen=True, slots=True)
class ContainerFailed:
    """Start failed; `record` when a container was made nevertheless."""

    container: str
    reason: str
    message: str
    record: ContainerRecord | None = None


@dataclass(frozen=True, slots=True)
class ContainerKilled:
    """A kill was carried out, or failed (`record` None); the machine looks at the record."""

    container: str
    record: ContainerRecord | None


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """A probe passed its threshold in one direction. `kind` is liveness, readiness or startup."""

    container: str
    container_id: str
    kind: str
    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class ResizeDecided:
    """The node's answer to AskResize: no reason means that it agrees."""

    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class ResizeRetry:
    """Room may have become free on the node."""


@dataclass(frozen=True, slots=True)
class ContainerResized:
    """ResizeContainer was carried out; `error` says why not."""

    container: str
    container_id: str
    resources: core_v1.ResourceRequirements | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class TornDown:
    """Sandboxes, containers, volumes and folders of the pod are gone."""


@dataclass(frozen=True, slots=True)
class Woken:
    """The time asked for by WakeAt has come."""


Event = (
    PodChanged
    | PodGone
    | Observed
    | Rejected
    | VolumesReady
    | VolumesFailed
    | SandboxStarted
    | SandboxFailed
    | SandboxStopped
    | ImageReady
    | ImageFailed
    | ContainerStarted
    | ContainerFailed
    | ContainerKilled
    | ProbeResult
    | ResizeDecided
    | ResizeRetry
    | ContainerResized
    | TornDown
    | Woken
)

# ---- instructions ----


@dataclass(frozen=True, slots=True)
class SetUpVolumes:
    pass


@dataclass(frozen=True, slots=True)
class StartSandbox:
    """Stop the sandboxes in `replaces`, then run a new one."""

    attempt: int
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StopSandbox:
    """The pod has ended: give its network back; containers stay for their logs."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class EnsureImage:
    container: str


@dataclass(frozen=True, slots=True)
class StartContainer:
    container: str
    attempt: int
    image_ref: str


@dataclass(frozen=True, slots=True)
class KillContainer:
    """preStop, SIGTERM, SIGKILL within `grace` cluster seconds. Replaces a running kill of the same container."""

    container: str
    container_id: str
    grace: float
    message: str
    pre_stop: bool = True


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    container_id: str


@dataclass(frozen=True, slots=True)
class TearDownVolumes:
    """The pod has ended for good: nobody reads its volumes any more, and those in memory cost the node."""


@dataclass(frozen=True, slots=True)
class AskResize:
    """Ask the node whether it has room for what the pod now wants."""


@dataclass(frozen=True, slots=True)
class ResizeContainer:
    """Give a running container other cpu and memory."""

    container: str
    container_id: str
    resources: core_v1.ResourceRequirements | None


@dataclass(frozen=True, slots=True)
class StartProbes:
    container: str
    container_id: str
    started_at: int


@dataclass(frozen=True, slots=True)
class StopProbes:
    """Stop the probes of one container (or all, with ""); `keep_readiness` while it is being ended."""

    container: str
    keep_readiness: bool = False


@dataclass(frozen=True, slots=True)
class TearDown:
    """Remove everything of the pod from this node, again and again until it is gone."""


@dataclass(frozen=True, slots=True)
class DeleteFromApi:
    """Write the last status, then delete the object with grace 0."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing of this pod is left anywhere; drop its worker."""


@dataclass(frozen=True, slots=True)
class Emit:
    """A Kubernetes event about the pod or one of its containers."""

    type: str
    reason: str
    message: str
    container: str = ""


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send Woken at that cluster time (replaces the former one)."""

    time: float


Instruction = (
    SetUpVolumes
    | StartSandbox
    | StopSandbox
    | EnsureImage
    | StartContainer
    | KillContainer
    | RemoveContainer
    | TearDownVolumes
    | AskResize
    | ResizeContainer
    | StartProbes
    | StopProbes
    | TearDown
    | DeleteFromApi
    | Forget
    | Emit
    | WakeAt
)
