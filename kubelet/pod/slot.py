"""One container of a pod's spec across its attempts: what is known, what is under way, when it may start again.

Pure data with small rules; owned by `pod.machine`, read by `status`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from api.models import core_v1
from kubelet.backoff import Backoff
from kubelet.pod.config import container_hash
from kubelet.records import ContainerRecord
from kubelet.restart import ALWAYS, NEVER, policy_of, restarts


class Kind(enum.Enum):
    """A restartable init container is a sidecar; an ephemeral container was added to a pod that runs."""

    INIT = "init"
    SIDECAR = "sidecar"
    MAIN = "main"
    EPHEMERAL = "ephemeral"


class Op(enum.Enum):
    """At most one thing is done to a container at a time."""

    IDLE = "idle"
    IMAGE = "image"
    START = "start"
    KILL = "kill"
    RESIZE = "resize"


_FIELDS = {Kind.MAIN: "containers", Kind.EPHEMERAL: "ephemeralContainers"}
_COMMON = tuple(
    name for name in core_v1.EphemeralContainer.__struct_fields__ if name in core_v1.Container.__struct_fields__
)


@dataclass(slots=True)
class Slot:
    """The state of one container name."""

    spec: core_v1.Container
    kind: Kind
    policy: str
    hash: str
    current: ContainerRecord | None = None
    previous: ContainerRecord | None = None
    op: Op = Op.IDLE
    waiting: tuple[str, str] | None = None
    image_ref: str = ""
    crash: Backoff = field(default_factory=Backoff)
    pull: Backoff = field(default_factory=Backoff)
    retry_at: float = 0.0  # no try before
    pull_failure: str = ""  # the last pull error, until the next try
    flip_at: float = 0.0  # when ErrImagePull becomes ImagePullBackOff
    charged: str = ""  # id of the ended container whose restart has already advanced `crash`
    announced: str = ""  # id of the ended container whose back-off was already told
    started: bool = False
    ready: bool = False
    probing: str = ""  # container id that probes run against
    kill_by: float = 0.0  # when the kill under way becomes a SIGKILL
    unhealthy: str = ""  # why the running container must be killed
    base_attempt: int = -1  # highest attempt known from the API when the runtime has none
    target: str = ""  # of an ephemeral container: whose processes it sees
    actuated: core_v1.ResourceRequirements | None = None  # what the running container was last given
    resize_at: float = 0.0  # no try of a resize before
    resize_error: str = ""  # why the last one failed

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def field(self) -> str:
        """The list of the pod's spec that holds this container."""
        return _FIELDS.get(self.kind, "initContainers")

    @property
    def resizable(self) -> bool:
        """Whether cpu and memory may change while it runs."""
        return self.kind in (Kind.MAIN, Kind.SIDECAR)

    @property
    def running(self) -> bool:
        return self.current is not None and self.current.running

    @property
    def next_attempt(self) -> int:
        return max(self.current.attempt if self.current else -1, self.base_attempt) + 1

    def restarts(self) -> bool:
        """Whether the container, not running now, is to run (again)."""
        return self.current is None or restarts(self.policy, self.spec, self.current)

    def finished(self) -> bool:
        """Ended for good, as far as its own policy goes."""
        return self.current is not None and not self.running and self.op is not Op.START and not self.restarts()

    def succeeded(self) -> bool:
        return self.finished() and self.current is not None and self.current.exit_code == 0 and self.current.ended

    def observe(self, record: ContainerRecord) -> bool:
        """Take in a fact; older facts never overwrite newer ones. Returns whether the container ended by it."""
        now = self.current
        if now is None or (
            record.id != now.id and record.attempt >= now.attempt and record.created_at >= now.created_at
        ):
            if now is not None and now.ended:
                self.previous = now
            self.current = record
            self._reset_health()
            return record.ended
        if record.id == now.id:
            if record.state < now.state:
                return False
            ended = record.ended and not now.ended
            self.current = record if record.sandbox_id else replace(record, sandbox_id=now.sandbox_id)
            if ended:
                self._reset_health()
            return ended
        if self.previous is None or record.attempt >= self.previous.attempt:
            self.previous = record
        return False

    def _reset_health(self) -> None:
        self.started = self.ready = False
        self.unhealthy = ""


def slots_of(spec: core_v1.PodSpec) -> dict[str, Slot]:
    """Fresh slots in start order: init containers first."""
    result: dict[str, Slot] = {}
    for container in spec.initContainers or ():
        kind = Kind.SIDECAR if container.restartPolicy == ALWAYS else Kind.INIT
        result[container.name] = Slot(container, kind, policy_of(spec, container, init=True), container_hash(container))
    for container in spec.containers:
        result[container.name] = Slot(
            container, Kind.MAIN, policy_of(spec, container, init=False), container_hash(container)
        )
    for added in spec.ephemeralContainers or ():
        plain = core_v1.Container(**{name: getattr(added, name) for name in _COMMON})
        target = added.targetContainerName or ""
        result[added.name] = Slot(plain, Kind.EPHEMERAL, NEVER, container_hash(plain), target=target)
    return result
