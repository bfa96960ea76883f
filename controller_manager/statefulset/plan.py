"""Decisions of the StatefulSet controller: the next pods to make or delete, and what the status says.

Pure but for the clock that is handed in. A pod that still exists is never doubled, however dead its node is: its name
is free only once it is gone from the API. Called by controller.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from api.models import apps_v1, core_v1
from controller_manager.objects import available_after, is_finished, is_ready, is_terminating
from controller_manager.statefulset.identity import Set, ordinal_of, revision_of
from machinery.clock import Clock

ROLLING: Final = "RollingUpdate"
PARALLEL: Final = "Parallel"


class Creation(NamedTuple):
    """A pod to make: of the update revision, or (below the partition) of the current one."""

    ordinal: int
    updated: bool


class Step(NamedTuple):
    """What to do now. The next step follows when its effects show; `wait` is when time alone will change something."""

    create: tuple[Creation, ...] = ()
    delete: tuple[core_v1.Pod, ...] = ()
    recreate: tuple[core_v1.Pod, ...] = ()
    """Ended pods: deleted to be made again."""
    wait: float | None = None


class Members(NamedTuple):
    """The set's pods by ordinal: those wanted, and those beyond, highest ordinal first."""

    wanted: dict[int, core_v1.Pod]
    condemned: list[tuple[int, core_v1.Pod]]


def start_of(set_: Set) -> int:
    return (set_.spec.ordinals.start or 0) if set_.spec.ordinals is not None else 0


def replicas_of(set_: Set) -> int:
    return set_.spec.replicas if set_.spec.replicas is not None else 1


def sort_out(set_: Set, pods: Sequence[core_v1.Pod]) -> Members:
    start = start_of(set_)
    within = range(start, start + replicas_of(set_))
    by_ordinal = {ordinal: pod for pod in pods if (ordinal := ordinal_of(set_, pod)) is not None}
    condemned = sorted((item for item in by_ordinal.items() if item[0] not in within), reverse=True, key=_ordinal)
    return Members({ordinal: pod for ordinal, pod in by_ordinal.items() if ordinal in within}, condemned)


def _ordinal(item: tuple[int, core_v1.Pod]) -> int:
    return item[0]


def _runs(pod: core_v1.Pod) -> bool:
    return pod.status is not None and pod.status.phase == "Running" and is_ready(pod)


class _Planner:
    """One pass over the members."""

    def __init__(self, set_: Set, pods: Sequence[core_v1.Pod], update: str, clock: Clock) -> None:
        self.set = set_
        self.members = sort_out(set_, pods)
        self.update = update
        self.clock = clock
        self.ordered = set_.spec.podManagementPolicy != PARALLEL
        self.wait: float | None = None

    def available(self, pod: core_v1.Pod) -> bool:
        """Running, ready for long enough, and staying; notes when waiting would make it so."""
        if is_terminating(pod) or not _runs(pod):
            return False
        left = available_after(pod, self.set.spec.minReadySeconds or 0, self.clock)
        if left:
            self.wait = left if self.wait is None else min(self.wait, left)
        return left == 0

    def step(self) -> Step:
        create: list[Creation] = []
        delete: list[core_v1.Pod] = []
        recreate: list[core_v1.Pod] = []
        start, partition = start_of(self.set), self.partition()
        for ordinal in range(start, start + replicas_of(self.set)):
            pod = self.members.wanted.get(ordinal)
            if pod is None:
                create.append(Creation(ordinal, ordinal >= start + partition))
                if self.ordered:
                    return Step(tuple(create))
            elif is_finished(pod):
                if not is_terminating(pod):
                    recreate.append(pod)
                if self.ordered:
                    return Step(recreate=tuple(recreate))
            elif self.ordered and not self.available(pod):
                return Step(wait=self.wait)
        condemned = self.condemned()
        if condemned is None:
            return Step(wait=self.wait)
        delete.extend(condemned)
        if create or delete or recreate:
            return Step(tuple(create), tuple(delete), tuple(recreate))
        return Step(delete=tuple(self.outdated()), wait=self.wait)

    def partition(self) -> int:
        strategy = self.set.spec.updateStrategy
        if strategy is None or strategy.type != ROLLING or strategy.rollingUpdate is None:
            return 0
        return strategy.rollingUpdate.partition or 0

    def condemned(self) -> list[core_v1.Pod] | None:
        """Pods beyond the wanted ordinals to delete now; None: wait first."""
        if not self.ordered:
            return [pod for _, pod in self.members.condemned if not is_terminating(pod)]
        everyone = sorted([*self.members.wanted.items(), *self.members.condemned], key=_ordinal)
        unhealthy = next((pod for _, pod in everyone if is_terminating(pod) or not _runs(pod)), None)
        for _, pod in self.members.condemned:
            if is_terminating(pod):
                return None
            # Only the lowest unhealthy pod may go while it is unhealthy: the set shrinks from its end.
            # One that has ended will never be healthy again: to wait for it would be to wait for ever.
            if not is_finished(pod) and not self.available(pod) and pod is not unhealthy:
                return None
            return [pod]
        return []

    def outdated(self) -> list[core_v1.Pod]:
        """Pods to replace now by the rolling update, from the highest ordinal down."""
        strategy = self.set.spec.updateStrategy
        if strategy is not None and strategy.type != ROLLING:
            return []
        lowest = start_of(self.set) + self.partition()
        descending = sorted(self.members.wanted.items(), reverse=True, key=_ordinal)
        targets = [pod for ordinal, pod in descending if ordinal >= lowest]
        update = strategy.rollingUpdate if strategy is not None else None
        most = update.maxUnavailable if update is not None else None
        room = most_unavailable(1 if most is None else most, replicas_of(self.set))
        room -= sum(not self.available(pod) for _, pod in descending)
        victims: list[core_v1.Pod] = []
        for pod in targets:
            if revision_of(pod) == self.update or is_terminating(pod):
                continue
            if self.available(pod):
                if room <= 0:
                    continue
                room -= 1
            victims.append(pod)  # one that is not available anyway costs nothing
        return victims


def most_unavailable(value: int | str, replicas: int) -> int:
    """maxUnavailable of the rolling update as a number, rounded up, at least 1."""
    if isinstance(value, int):
        return max(1, value)
    return max(1, -(-int(value.rstrip("%")) * replicas // 100))


def plan_step(set_: Set, pods: Sequence[core_v1.Pod], update: str, clock: Clock) -> Step:
    """The next step for a set that is not being deleted. `update` is the name of the present template's revision."""
    return _Planner(set_, pods, update, clock).step()


def observe(
    set_: Set, pods: Sequence[core_v1.Pod], current: str, update: str, collisions: int, clock: Clock
) -> tuple[apps_v1.StatefulSetStatus, float | None]:
    """The status, and after how many seconds another pod becomes available by mere waiting."""
    replicas = ready = available = on_current = on_update = 0
    recheck: float | None = None
    for pod in pods:
        if ordinal_of(set_, pod) is None:
            continue
        replicas += 1
        if _runs(pod):
            ready += 1
            left = available_after(pod, set_.spec.minReadySeconds or 0, clock)
            if left == 0:
                available += 1
            elif left is not None:
                recheck = left if recheck is None else min(recheck, left)
        if not is_terminating(pod):
            on_current += revision_of(pod) == current
            on_update += revision_of(pod) == update
    strategy = set_.spec.updateStrategy
    wanted = replicas_of(set_)
    rolling = strategy is None or strategy.type == ROLLING
    if rolling and on_update == replicas == ready == wanted:
        current, on_current = update, on_update  # the rollout is complete
    return (
        apps_v1.StatefulSetStatus(
            observedGeneration=set_.metadata.generation,
            replicas=replicas,
            readyReplicas=ready or None,
            availableReplicas=available,
            currentReplicas=on_current or None,
            updatedReplicas=on_update or None,
            currentRevision=current,
            updateRevision=update,
            collisionCount=collisions,
            conditions=set_.status.conditions if set_.status is not None else None,
        ),
        recheck,
    )
