"""Decisions of the DaemonSet controller: which pods to make and delete, and what the status says.

Pure but for the clock that is handed in. Called by controller.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from api.models import apps_v1, core_v1
from controller_manager.daemonset.eligibility import Eligibility, by_age, is_updated, judge, node_of
from controller_manager.objects import available_after, is_finished, is_ready, is_terminating
from machinery.clock import Clock

DaemonSet = apps_v1.DaemonSet
Pod = core_v1.Pod


class Placement(NamedTuple):
    """Every node that has or should have a daemon pod: what should be there, and what is (oldest first)."""

    eligible: dict[str, Eligibility]
    pods: dict[str, list[Pod]]

    @property
    def desired(self) -> int:
        return sum(each.run for each in self.eligible.values())


class Plan(NamedTuple):
    """What to do: nodes to make a pod for, pods to delete, and those among them that have ended."""

    create: tuple[str, ...]
    delete: tuple[Pod, ...]
    ended: tuple[Pod, ...]


def place(ds: DaemonSet, nodes: Iterable[core_v1.Node], pods: Iterable[Pod]) -> Placement:
    """Sort pods by node and judge the nodes. Pods of nodes that do not exist are left to the pod garbage collector.

    Pods that have ended and are being deleted (a finalizer may hold them) are in nobody's way.
    """
    eligible = {node.metadata.name or "": judge(ds.spec.template, node) for node in nodes}
    found: dict[str, list[Pod]] = defaultdict(list)
    for pod in by_age(pods):
        if not (is_finished(pod) and is_terminating(pod)):
            found[node_of(pod)].append(pod)
    return Placement(eligible, dict(found))


def limits(ds: DaemonSet, desired: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) of a rolling update, percentages rounded up; never both 0, or nothing would move."""
    strategy = ds.spec.updateStrategy
    update = strategy.rollingUpdate if strategy is not None else None
    surge = _absolute(update.maxSurge if update is not None else None, desired, 0)
    unavailable = _absolute(update.maxUnavailable if update is not None else None, desired, 1)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def _absolute(value: int | str | None, total: int, default: int) -> int:
    if value is None:
        return default
    return value if isinstance(value, int) else -(-int(value.rstrip("%")) * total // 100)


def is_rolling(ds: DaemonSet) -> bool:
    return ds.spec.updateStrategy is None or ds.spec.updateStrategy.type != "OnDelete"


def plan(ds: DaemonSet, placement: Placement, revision_hash: str, clock: Clock) -> Plan:
    """First what is missing or misplaced; where nothing is, what is outdated."""
    surge, _ = limits(ds, placement.desired) if is_rolling(ds) else (0, 0)
    create: list[str] = []
    delete: list[Pod] = []
    ended: list[Pod] = []
    for name in placement.eligible.keys() | placement.pods.keys():
        verdict = placement.eligible.get(name)
        if verdict is None:
            continue
        pods = placement.pods.get(name, [])
        living = [pod for pod in pods if not is_terminating(pod)]
        if not verdict.stay:
            delete.extend(living)
            continue
        if verdict.run and not pods:
            create.append(name)
        ended.extend(pod for pod in living if is_finished(pod))
        running = [pod for pod in living if not is_finished(pod)]
        delete.extend(_surplus(ds, running, revision_hash, surge, clock))
    delete.extend(ended)
    if is_rolling(ds):
        more, outdated = _roll(ds, placement, revision_hash, clock)
        create.extend(name for name in more if name not in create)
        known = {pod.metadata.uid for pod in delete}
        delete.extend(pod for pod in outdated if pod.metadata.uid not in known)
    return Plan(tuple(sorted(create)), tuple(delete), tuple(ended))


def _surplus(ds: DaemonSet, running: Sequence[Pod], revision_hash: str, surge: int, clock: Clock) -> list[Pod]:
    """More than one pod on a node: the oldest that serves stays; during a surge one new pod beside one old."""
    if len(running) <= 1:
        return []
    running = sorted(running, key=lambda pod: not _available(ds, pod, clock))  # stable: oldest first among equals
    if surge:
        new = next((pod for pod in running if is_updated(pod, revision_hash)), None)
        old = next((pod for pod in running if not is_updated(pod, revision_hash)), None)
        if new is not None and old is not None:
            keep = [new] if _available(ds, new, clock) else [new, old]
            return [pod for pod in running if pod not in keep]
    return list(running[1:])


def _available(ds: DaemonSet, pod: Pod, clock: Clock) -> bool:
    return available_after(pod, ds.spec.minReadySeconds or 0, clock) == 0


def _roll(ds: DaemonSet, placement: Placement, revision_hash: str, clock: Clock) -> tuple[list[str], list[Pod]]:
    """One step of a rolling update: nodes for an additional new pod, and old pods to delete."""
    surge, unavailable = limits(ds, placement.desired)
    free: list[Pod] = []
    costly: list[Pod] = []
    at_once: list[str] = []
    candidates: list[str] = []
    surging = down = 0
    for name, verdict in sorted(placement.eligible.items()):
        living = [pod for pod in placement.pods.get(name, []) if not is_terminating(pod) and not is_finished(pod)]
        new = [pod for pod in living if is_updated(pod, revision_hash)]
        old = [pod for pod in living if not is_updated(pod, revision_hash)]
        if surge:
            if len(new) > 1 or len(old) > 1:
                surging += 1  # too many already: the first half of the plan sees to it
            elif new and old and not _available(ds, new[0], clock):
                surging += 1  # also where no pod should start any more
            elif not old or not verdict.run:
                continue
            elif new:
                free.extend(old)
            elif _available(ds, old[0], clock):
                candidates.append(name)
            else:
                at_once.append(name)
        elif not verdict.run:
            continue
        elif len(living) != 1:
            down += 1  # missing or double: the first half of the plan sees to it
        elif new:
            down += not _available(ds, new[0], clock)
        elif _available(ds, old[0], clock):
            costly.append(old[0])
        else:
            down += 1
            free.append(old[0])  # it serves nobody: replacing it costs nothing
    if surge:
        return [*at_once, *candidates[: max(0, surge - surging)]], free
    return [], [*free, *costly[: max(0, unavailable - down)]]


def observe(
    ds: DaemonSet, placement: Placement, revision_hash: str, collisions: int | None, clock: Clock
) -> tuple[apps_v1.DaemonSetStatus, float | None]:
    """The status, and after how many seconds another pod becomes available by mere waiting."""
    desired = current = misplaced = ready = available = updated = 0
    recheck: float | None = None
    for name, verdict in placement.eligible.items():
        pods = placement.pods.get(name, [])
        if not verdict.run:
            misplaced += bool(pods)
            continue
        desired += 1
        if not pods:
            continue
        current += 1
        updated += is_updated(pods[0], revision_hash)
        if not any(map(is_ready, pods)):
            continue
        ready += 1
        waits = [w for pod in pods if (w := available_after(pod, ds.spec.minReadySeconds or 0, clock)) is not None]
        if min(waits, default=1.0) == 0:
            available += 1
        elif waits and (recheck is None or min(waits) < recheck):
            recheck = min(waits)
    return (
        apps_v1.DaemonSetStatus(
            observedGeneration=ds.metadata.generation,
            desiredNumberScheduled=desired,
            currentNumberScheduled=current,
            numberMisscheduled=misplaced,
            numberReady=ready,
            updatedNumberScheduled=updated or None,
            numberAvailable=available or None,
            numberUnavailable=(desired - available) or None,
            collisionCount=collisions,
            conditions=ds.status.conditions if ds.status is not None else None,
        ),
        recheck,
    )
