"""The updater's loop: resizes or evicts pods whose requests are wrong, a few of each replica set at a time.

Owns when a resize of a pod was first seen under way, and what was decided about each pod. Which pods, in which order
and how many is decided in `priority`. Run by app.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from api.models import core_v1, meta_v1, policy_v1
from client.client import Client, PatchType, key_of
from client.events import NORMAL, WARNING, EventRecorder
from machinery import log
from machinery.clock import Clock
from machinery.errors import NotFound, StatusError
from machinery.log import kv
from machinery.meta import ObjectKey
from vertical_autoscaler import conflicts
from vertical_autoscaler.objects import IN_PLACE_OR_RECREATE, RECREATE, ContainerRecommendation, Vpa
from vertical_autoscaler.priority import (
    MIN_REPLICAS,
    QUICK_OOM,
    Group,
    Judgement,
    PodFacts,
    Priority,
    Resize,
    admitted,
    judge,
    priority,
)
from vertical_autoscaler.resources import Change, after, plan, qos
from vertical_autoscaler.world import Reference, World, owner_of, specs_of

PERIOD: Final = 60.0
EVICTED: Final = "Pod was evicted by VPA Updater to apply resource recommendation."
RESIZED: Final = "Pod was resized in place by VPA Updater."
OBSERVED: Final = "vpaObservedContainers"
UPDATES: Final = "vpaUpdates"
UPDATED_IN_PLACE: Final = "vpaInPlaceUpdated"
_log = log.get(__name__)


class Outcome(NamedTuple):
    """What was decided about a pod."""

    pod: str
    action: str
    reason: str


@dataclass(slots=True)
class _Candidate:
    pod: core_v1.Pod
    owner: Reference
    changes: list[Change]
    priority: Priority
    resize: Resize


@dataclass(slots=True)
class Limiter:
    """Evictions per second with a burst; a rate below 0 is no limit."""

    rate: float = -1.0
    burst: int = 1
    tokens: float = field(default=1.0)
    at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one may happen now."""
        if self.rate < 0:
            return True
        if self.at is None:
            self.tokens = self.burst
        else:
            self.tokens = min(float(self.burst), self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Updater:
    """One per process."""

    def __init__(self, client: Client, world: World, events: EventRecorder, clock: Clock, limiter: Limiter) -> None:
        self._client = client
        self._world = world
        self._events = events
        self._clock = clock
        self._limiter = limiter
        self._resizing: dict[str, float] = {}
        self._told: set[tuple[ObjectKey, str]] = set()
        self.outcomes: dict[ObjectKey, list[Outcome]] = {}

    async def turn(self) -> None:
        """Look at everything once."""
        vpas = self._world.all_vpas()
        shared = conflicts.find(vpas, self._world.hpas.lister.list())
        self._tell(vpas, shared)
        living = {str(pod.metadata.uid) for pod in self._world.pods.lister.list() if pod.metadata is not None}
        self._resizing = {uid: at for uid, at in self._resizing.items() if uid in living}
        self.outcomes = {key: each for key, each in self.outcomes.items() if self._world.vpas.lister.get(key)}
        changing = [vpa for vpa in vpas if vpa.mode in (RECREATE, IN_PLACE_OR_RECREATE)]
        for vpa in changing:
            dropped = shared.get(key_of(vpa), {})
            recommended = {name: each.without(dropped) for name, each in vpa.recommended().items()}
            if recommended:
                await self._update(vpa, recommended, vpas)

    def _tell(self, vpas: list[Vpa], shared: dict[ObjectKey, dict[str, ObjectKey]]) -> None:
        """An event for the horizontal autoscaler, once for each conflict."""
        told = set()
        for vpa in vpas:
            for name, place in shared.get(key_of(vpa), {}).items():
                told.add((place, f"{vpa.metadata.name}/{name}"))
                hpa = self._world.hpas.lister.get(place)
                if hpa is not None and (place, f"{vpa.metadata.name}/{name}") not in self._told:
                    text = (
                        f"VerticalPodAutoscaler {vpa.metadata.name} would change {name} of the same target: it does not"
                    )
                    self._events.event(hpa, WARNING, "ConflictingVerticalPodAutoscaler", text)
        self._told = told

    async def _update(self, vpa: Vpa, recommended: dict[str, ContainerRecommendation], vpas: list[Vpa]) -> None:
        outcomes: list[Outcome] = []
        groups, candidates = self._candidates(vpa, recommended, vpas, outcomes)
        for each in sorted(candidates, key=lambda one: one.priority[:2], reverse=True):
            outcomes.append(await self._change(vpa, each, groups[each.owner]))
        self.outcomes[key_of(vpa)] = outcomes

    def _candidates(
        self, vpa: Vpa, recommended: dict[str, ContainerRecommendation], vpas: list[Vpa], outcomes: list[Outcome]
    ) -> tuple[dict[Reference, Group], list[_Candidate]]:
        namespace = vpa.metadata.namespace or ""
        mine: dict[Reference, list[core_v1.Pod]] = {}
        for pod in self._world.matching(vpa):
            owner = owner_of(pod.metadata)
            labels = pod.metadata.labels if pod.metadata is not None else None
            if owner is None:
                outcomes.append(Outcome(key_of(pod).name, "left", "it has no controller that would make it anew"))
            elif self._world.controlling(namespace, labels, owner, vpas) is vpa:
                mine.setdefault(owner, []).append(pod)
            else:
                outcomes.append(Outcome(key_of(pod).name, "left", "it belongs to another autoscaler"))
        policy = vpa.spec.updatePolicy
        required = MIN_REPLICAS if policy is None or policy.minReplicas is None else policy.minReplicas
        ranges = self._world.ranges(namespace)
        groups: dict[Reference, Group] = {}
        candidates: list[_Candidate] = []
        for owner, pods in mine.items():
            if len(pods) < required:
                why = f"{owner.kind} {owner.name} has {len(pods)} pods: fewer than the {required} of minReplicas"
                outcomes += [Outcome(key_of(pod).name, "left", why) for pod in pods]
                continue
            configured = self._world.replicas(namespace, owner, len(pods))
            pending = sum(1 for pod in pods if pod.status is None or pod.status.phase in (None, "Pending"))
            groups[owner] = Group(configured, pending, len(pods) - pending)
            for pod in pods:
                changes = plan(vpa, specs_of(pod), recommended, ranges)
                found, resize = priority(changes, recommended), self._resize(pod)
                verdict = judge(found, self._facts(pod, vpa))
                if resize.hopeless():
                    verdict = Judgement(True, "its resize does not come about")
                if verdict.update:
                    candidates.append(_Candidate(pod, owner, changes, found, resize))
                else:
                    outcomes.append(Outcome(key_of(pod).name, "left", verdict.reason))
        return groups, candidates

    async def _change(self, vpa: Vpa, each: _Candidate, group: Group) -> Outcome:
        name, pod = key_of(each.pod).name, each.pod
        in_place = vpa.mode == IN_PLACE_OR_RECREATE and not each.resize.hopeless()
        if in_place and each.resize.ongoing:
            return Outcome(name, "waits", "its resize is under way")
        if in_place and (pod.status is None or pod.status.phase != "Running"):
            return Outcome(name, "waits", "it does not run yet")
        if not group.disruptable():
            return Outcome(name, "waits", "others of its controller must be back first")
        try:
            if in_place:
                before = specs_of(pod)
                if qos(before) == qos(after(before, each.changes)):
                    await self._resize_now(vpa, pod, each.changes)
                    group.resized += 1
                    return Outcome(name, "resized", "; ".join(change.described() for change in each.changes))
            requirements = vpa.spec.updatePolicy.evictionRequirements if vpa.spec.updatePolicy is not None else []
            if not admitted(each.changes, requirements):
                return Outcome(name, "left", "the evictionRequirements are not met")
            if not self._limiter.take(self._clock.monotonic()):
                return Outcome(name, "waits", "the eviction rate is reached")
            await self._evict(vpa, pod)
            group.evicted += 1
        except NotFound:
            return Outcome(name, "left", "it is gone")
        except StatusError as error:
            _log.info("Could not change a pod", extra=kv(pod=key_of(pod), error=error.message))
            return Outcome(name, "refused", error.message)
        return Outcome(name, "evicted", "; ".join(change.described() for change in each.changes))

    async def _resize_now(self, vpa: Vpa, pod: core_v1.Pod, changes: list[Change]) -> None:
        key = key_of(pod)
        containers = [
            {"name": change.container.name, "resources": change.told()} for change in changes if change.changes
        ]
        await self._client.patch(
            core_v1.Pod,
            key.name,
            {"spec": {"containers": containers}},
            key.namespace,
            type=PatchType.STRATEGIC,
            subresource="resize",
        )
        self._events.event(pod, NORMAL, "InPlaceResizedByVPA", RESIZED)
        _log.info("Resized a pod", extra=kv(pod=key, vpa=key_of(vpa)))
        notes: dict[str, Any] = {UPDATED_IN_PLACE: "true", UPDATES: updates(vpa, changes)}
        await self._client.patch(core_v1.Pod, key.name, {"metadata": {"annotations": notes}}, key.namespace)

    async def _evict(self, vpa: Vpa, pod: core_v1.Pod) -> None:
        key, uid = key_of(pod), pod.metadata.uid if pod.metadata is not None else None
        eviction = policy_v1.Eviction(
            metadata=meta_v1.ObjectMeta(name=key.name, namespace=key.namespace),
            deleteOptions=meta_v1.DeleteOptions(preconditions=meta_v1.Preconditions(uid=uid)),
        )
        await self._client.create_subresource(core_v1.Pod, key.name, key.namespace, "eviction", eviction)
        self._events.event(pod, NORMAL, "EvictedByVPA", EVICTED)
        text = f"VPA Updater evicted Pod {key.name} to apply resource recommendation."
        self._events.event(_reference(vpa), NORMAL, "EvictedPod", text)
        _log.info("Evicted a pod", extra=kv(pod=key, vpa=key_of(vpa)))

    def _facts(self, pod: core_v1.Pod, vpa: Vpa) -> PodFacts:
        started = pod.status.startTime if pod.status is not None else None
        annotations = (pod.metadata.annotations if pod.metadata is not None else None) or {}
        observed = annotations.get(OBSERVED)
        quick = False
        for each in (pod.status.containerStatuses if pod.status is not None else None) or ():
            if (observed is not None and each.name not in observed.split(", ")) or vpa.policy(each.name).off:
                continue
            ended = each.lastState.terminated if each.lastState is not None else None
            if ended is None or ended.reason != "OOMKilled" or ended.startedAt is None or ended.finishedAt is None:
                continue
            quick = quick or (ended.finishedAt - ended.startedAt).total_seconds() / self._clock.real(1.0) < QUICK_OOM
        return PodFacts(self._clock.elapsed(started) if started is not None else None, quick)

    def _resize(self, pod: core_v1.Pod) -> Resize:
        """How far a resize is; its age is counted from when it was first seen."""
        found = {each.type: each for each in (pod.status.conditions if pod.status is not None else None) or ()}
        pending, progress = found.get("PodResizePending"), found.get("PodResizeInProgress")
        pending = pending if pending is not None and pending.status == "True" else None
        progress = progress if progress is not None and progress.status == "True" else None
        uid = str(pod.metadata.uid if pod.metadata is not None else "")
        if pending is None and progress is None:
            self._resizing.pop(uid, None)
            return Resize("", False, False, 0.0)
        since = self._resizing.setdefault(uid, self._clock.monotonic())
        return Resize(
            (pending.reason or "Unknown") if pending is not None else "",
            progress is not None,
            progress is not None and bool(progress.reason or progress.message),
            self._clock.monotonic() - since,
        )


def updates(vpa: Vpa, changes: list[Change]) -> str:
    """The note that is left on a pod."""
    return f"Pod resources updated by {vpa.metadata.name}: {'; '.join(change.described() for change in changes)}"


def _reference(vpa: Vpa) -> core_v1.ObjectReference:
    metadata = vpa.metadata
    return core_v1.ObjectReference(
        kind=vpa.kind,
        apiVersion=vpa.apiVersion,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resourceVersion=metadata.resourceVersion,
    )
