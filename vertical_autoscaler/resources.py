"""What a recommendation makes of a pod's requests and limits: policy, limits in proportion, LimitRanges. Pure.

Amounts are whole: CPU in millicores, memory in bytes. Source of the rules: the vertical pod autoscaler's documentation
(controlledValues, "Limits control") and the notes that it leaves on pods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vertical_autoscaler.objects import ContainerPolicy, ContainerRecommendation, Vpa, amounts, texts

Amounts = dict[str, int]
SCALED = ("cpu", "memory")


class ContainerSpec(NamedTuple):
    """One container's resources; `place` is where it stands in spec.containers."""

    place: int
    name: str
    requests: Amounts
    limits: Amounts


class Range(NamedTuple):
    """One item of a LimitRange."""

    type: str
    lowest: Amounts
    highest: Amounts
    default: Amounts


class Change(NamedTuple):
    """What a container is to have; only resources that are recommended."""

    container: ContainerSpec
    requests: Amounts
    limits: Amounts
    notes: tuple[str, ...]

    @property
    def changes(self) -> bool:
        """Whether anything would be different."""
        container = self.container
        return any(container.requests.get(name) != value for name, value in self.requests.items()) or any(
            container.limits.get(name) != value for name, value in self.limits.items()
        )

    def told(self) -> dict[str, dict[str, str]]:
        """As ResourceRequirements; only what the change is about."""
        found = {"requests": texts(self.requests), "limits": texts(self.limits)}
        return {key: value for key, value in found.items() if value}

    def described(self) -> str:
        """`container 0: cpu request, memory limit`."""
        told = [*self.notes, *(f"{name} request" for name in self.requests), *(f"{name} limit" for name in self.limits)]
        return f"container {self.container.place}: {', '.join(told)}"


def ranges_of(items: Sequence[Any]) -> list[Range]:
    """Of core/v1 LimitRangeItems."""
    return [Range(each.type, amounts(each.min), amounts(each.max), amounts(each.default)) for each in items]


def plan(
    vpa: Vpa,
    containers: Sequence[ContainerSpec],
    recommended: Mapping[str, ContainerRecommendation],
    ranges: Sequence[Range] = (),
) -> list[Change]:
    """One change for each container that has a recommendation and may be scaled."""
    wanted: list[tuple[ContainerSpec, ContainerPolicy, Amounts, list[str]]] = []
    for container in containers:
        policy, found = vpa.policy(container.name), recommended.get(container.name)
        if found is None or policy.off:
            continue
        target = {name: found.target[name] for name in SCALED if name in found.target}
        notes: list[str] = []
        target = _within_policy(target, policy, notes)
        if not policy.limits_too:
            target = _below_limit(target, container, notes)
        for each in ranges:
            if each.type == "Container":
                target = _within_range(target, container, policy, each, notes)
        wanted.append((container, policy, target, notes))
    for each in ranges:
        if each.type == "Pod":
            wanted = _within_pod(wanted, containers, each)
    default: Amounts = {}
    for each in ranges:
        if each.type == "Container":
            default |= each.default
    return [
        Change(container, target, proportional(container, target, default) if policy.limits_too else {}, tuple(notes))
        for container, policy, target, notes in wanted
    ]


def proportional(container: ContainerSpec, target: Mapping[str, int], default: Mapping[str, int]) -> Amounts:
    """Limits that stand to the new requests as the old ones did to theirs; none where there was none."""
    found: Amounts = {}
    for name, amount in target.items():
        limit = container.limits.get(name) or default.get(name)
        if not limit:
            continue
        request = container.requests.get(name) or limit
        found[name] = amount if request == limit else limit * amount // request
    return found


def qos(containers: Sequence[ContainerSpec]) -> str:
    """The class of a pod with these containers."""
    if not any(each.requests.get(name) or each.limits.get(name) for each in containers for name in SCALED):
        return "BestEffort"
    for each in containers:
        for name in SCALED:
            limit = each.limits.get(name)
            if not limit or each.requests.get(name, limit) != limit:
                return "Burstable"
    return "Guaranteed"


def after(containers: Sequence[ContainerSpec], changes: Sequence[Change]) -> list[ContainerSpec]:
    """The containers as the changes make them."""
    by_place = {change.container.place: change for change in changes}
    made = []
    for each in containers:
        change = by_place.get(each.place)
        made.append(
            each
            if change is None
            else each._replace(requests={**each.requests, **change.requests}, limits={**each.limits, **change.limits})
        )
    return made


def _within_policy(target: Amounts, policy: ContainerPolicy, notes: list[str]) -> Amounts:
    found = {}
    for name, amount in target.items():
        low, high = policy.lowest(name), policy.highest(name)
        if low is not None and amount < low:
            amount = low
            notes.append(f"{name} capped to minAllowed")
        if high is not None and amount > high:
            amount = high
            notes.append(f"{name} capped to maxAllowed")
        found[name] = amount
    return found


def _below_limit(target: Amounts, container: ContainerSpec, notes: list[str]) -> Amounts:
    found = {}
    for name, amount in target.items():
        limit = container.limits.get(name)
        if limit and amount > limit:
            amount = limit
            notes.append(f"{name} capped to container limit")
        found[name] = amount
    return found


def _within_range(
    target: Amounts, container: ContainerSpec, policy: ContainerPolicy, each: Range, notes: list[str]
) -> Amounts:
    found = {}
    for name, amount in target.items():
        highest, lowest = each.highest.get(name), each.lowest.get(name)
        if highest is not None:
            limit = container.limits.get(name) or each.default.get(name)
            request = container.requests.get(name) or limit
            boundary = highest * request // limit if limit and request and policy.limits_too else highest
            if amount > boundary:
                amount = boundary
                notes.append(f"{name} capped to fit Max in container LimitRange")
        if lowest is not None and amount < lowest:
            amount = lowest
            notes.append(f"{name} capped to fit Min in container LimitRange")
        found[name] = amount
    return found


def _within_pod(
    wanted: list[tuple[ContainerSpec, ContainerPolicy, Amounts, list[str]]],
    containers: Sequence[ContainerSpec],
    each: Range,
) -> list[tuple[ContainerSpec, ContainerPolicy, Amounts, list[str]]]:
    """All targets of a resource by one factor, so that the sum over the pod fits."""
    for name in SCALED:
        mine = [(container, policy, target) for container, policy, target, _ in wanted if name in target]
        touched = {container.place for container, _, _ in mine}
        rest = [container for container in containers if container.place not in touched]
        highest, lowest = each.highest.get(name), each.lowest.get(name)
        if highest is not None:
            sums = [
                (proportional(container, {name: target[name]}, {}) if policy.limits_too else container.limits).get(name)
                or target[name]
                for container, policy, target in mine
            ]
            room = highest - sum(container.limits.get(name) or container.requests.get(name, 0) for container in rest)
            if sum(sums) > room > 0:
                for _, _, target in mine:
                    target[name] = target[name] * room // sum(sums)
        if lowest is not None:
            missing = lowest - sum(container.requests.get(name, 0) for container in rest)
            total = sum(target[name] for _, _, target in mine)
            if 0 < total < missing:
                for _, _, target in mine:
                    target[name] = math.ceil(target[name] * missing / total)
    return wanted
