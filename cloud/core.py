"""The cloud's decisions: what groups want, and from what is seen of machines, what is to be launched and taken away.

Owns all changes of the state. No I/O, no clock, no randomness: `now` (cluster seconds) and what is seen come in, and
effects come out; what became of them is reported back. An effect is given out again until that report has come, so
whoever carries it out must not mind doing it twice. Called by `cloud.engine`; requests arrive through `cloud.requests`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from cloud import cost, market
from cloud.model import SPOT_FACTOR, ZONES, Group, Health, Instance, Problem, State

CAPACITY_RETRY = 30.0
FAILED_RETRY = 10.0
REMEMBERED = 500  # instances that are gone
OUT_OF_CAPACITY = Problem("OUT_OF_CAPACITY", "the zone has no room for this instance type now", True)


@dataclass(frozen=True)
class Effect:
    """`launch` and `terminate` a machine, `kill` one so that it stays dead."""

    verb: Literal["launch", "terminate", "kill"]
    instance: str


@dataclass(frozen=True)
class Told:
    """Something that a user should hear about a node."""

    instance: str
    warning: bool
    reason: str
    message: str


class Core:
    """The state and the rules by which it changes."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.told: list[Told] = []
        """What happened since somebody last emptied this list."""

    # ---- one pass ----

    def tick(self, now: float, seen: Mapping[str, Health]) -> list[Effect]:
        """Bring the plan up to date with the world; what is to be done now. `seen` was looked at at `now` or later."""
        self._look(now, seen)
        for group in self.state.groups.values():
            self._size(group, now, seen)
        for instance in self.state.instances.values():
            self._advance(instance, now)
        self._forget()
        return list(self._effects(now))

    def _look(self, now: float, seen: Mapping[str, Health]) -> None:
        for instance in self.state.instances.values():
            if instance.phase != "running" or instance.launched is None or instance.launched >= now:
                continue  # what was launched after the look cannot have been seen
            health = seen.get(instance.name)
            if health is None:
                if instance.fault != "never-joins":
                    self._vanished(instance, now)
            elif health.healthy:
                instance.sick = None
            elif instance.sick is None:
                instance.sick = now
                self._tell(instance, True, "InstanceUnhealthy", "the machine does not work any more")
            if instance.sick is not None:
                self._heal(instance, now)

    def _vanished(self, instance: Instance, now: float) -> None:
        """Somebody took the machine away by hand: then one less is wanted."""
        self._end(instance, now, "removed by hand")
        group = self.state.groups.get(instance.group)
        if group is not None and instance.notice is None:
            group.desired = max(0, group.desired - 1)
            group.min = min(group.min, group.desired)

    def _heal(self, instance: Instance, now: float) -> None:
        group = self.state.groups.get(instance.group)
        after = group.healAfter if group is not None else 0.0
        if instance.phase == "running" and after and instance.sick is not None and now - instance.sick >= after:
            self.dismiss(instance, "unhealthy")
            self._tell(instance, True, "InstanceReplaced", f"the machine failed {after:g} s ago and is replaced")

    def _size(self, group: Group, now: float, seen: Mapping[str, Health]) -> None:
        """Honour `desired`: create what lacks, dismiss what is too much."""
        counting = [each for each in self.state.of(group.name) if each.counts]
        for _ in range(group.desired - len(counting)):
            self._create(group, now, seen)
        surplus = len(counting) - group.desired
        if surplus > 0:
            for each in sorted(counting, key=_dismissal_rank, reverse=True)[:surplus]:
                self.dismiss(each, "scaled in")

    def _create(self, group: Group, now: float, taken: Iterable[str]) -> None:
        names = {*self.state.instances, *taken}
        while f"{group.prefix}-{group.next}" in names:
            group.next += 1
        fault = group.fault
        mode = fault.mode if fault.count else ""
        if mode and fault.count > 0:
            fault.count -= 1
        price = self.state.types[group.type].pricePerHour * (SPOT_FACTOR if group.spot else 1.0)
        instance = Instance(
            name=f"{group.prefix}-{group.next}",
            group=group.name,
            type=group.type,
            zone=self._zone(group),
            price=round(price, 6),
            created=now,
            fault=mode,
            dieAt=fault.after if mode == "dies" else None,
            hollow=group.hollow,
            spot=group.spot,
        )
        group.next += 1
        self.state.instances[instance.name] = instance

    def _zone(self, group: Group) -> str:
        """The group's zone with the fewest of its machines, the first among equals."""
        zones = group.zones or ZONES[:1]
        held = Counter(each.zone for each in self.state.of(group.name) if each.counts)
        return min(zones, key=lambda zone: held[zone])

    def _advance(self, instance: Instance, now: float) -> None:
        """What time alone does to an instance."""
        if instance.phase == "running" and instance.interruptAt is not None and now >= instance.interruptAt:
            self.interrupt(instance, now + self.state.market.notice)
        if instance.notice is not None and instance.phase in ("pending", "running") and now >= instance.notice:
            self.dismiss(instance, "interrupted")
        if instance.phase != "pending" or instance.fault == "never-boots":
            return
        group = self.state.group_of(instance)
        if now < instance.created + (group.bootDelay if group is not None else 0.0) or now < instance.retryAt:
            return
        if instance.fault == "out-of-capacity":
            if group is not None and group.fault.mode == "out-of-capacity":
                instance.problem, instance.retryAt = OUT_OF_CAPACITY, now + CAPACITY_RETRY
                return
            instance.fault, instance.problem = "", None
        if instance.fault == "never-joins":  # it boots, costs money, and what should run on it does not
            self._start(instance, now)
            return
        instance.phase = "launching"

    def _effects(self, now: float) -> Iterable[Effect]:
        for instance in self.state.instances.values():
            if instance.phase == "launching" and now >= instance.retryAt:
                yield Effect("launch", instance.name)
            elif instance.phase == "deleting" and now >= instance.retryAt:
                yield Effect("terminate", instance.name)
            elif (
                instance.phase == "running"
                and instance.dieAt is not None
                and now >= max(instance.dieAt, instance.retryAt)
            ):
                yield Effect("kill", instance.name)

    def _forget(self) -> None:
        gone = [each for each in self.state.instances.values() if each.phase == "gone"]
        for each in sorted(gone, key=lambda one: one.ended or 0.0)[: max(0, len(gone) - REMEMBERED)]:
            spent = self.state.spent
            spent[each.group] = spent.get(each.group, 0.0) + cost.of_instance(each, each.ended or 0.0)
            del self.state.instances[each.name]

    # ---- what became of effects ----

    def done(self, effect: Effect, now: float) -> None:
        """It was carried out."""
        instance = self.state.instances[effect.instance]
        if effect.verb == "launch" and instance.phase == "launching":
            self._start(instance, now)
        elif effect.verb == "launch" and instance.launched is None:  # dismissed while it was launched
            instance.launched = now
        elif effect.verb == "terminate":
            self._end(instance, now, instance.reason)
        elif effect.verb == "kill":
            instance.dieAt = None

    def failed(self, effect: Effect, now: float, why: str, *, out_of_resources: bool = False) -> None:
        """It was not; it will be tried again, a launch as long as somebody wants the instance."""
        instance = self.state.instances[effect.instance]
        code = "OUT_OF_CAPACITY" if out_of_resources else "LAUNCH_FAILED" if effect.verb == "launch" else "FAILED"
        instance.problem = Problem(code, why, out_of_resources)
        instance.retryAt = now + FAILED_RETRY
        if effect.verb == "launch" and instance.phase == "launching":
            instance.phase = "pending"

    def _start(self, instance: Instance, now: float) -> None:
        instance.phase, instance.launched, instance.problem = "running", now, None
        instance.interruptAt = market.draw(self.state, instance, now)
        if instance.dieAt is not None:
            instance.dieAt += now

    def interrupt(self, instance: Instance, ends: float) -> None:
        """Announce that a machine will be taken away; its replacement is ordered at once. A notice is never moved."""
        instance.interruptAt = None
        if instance.notice is None:
            instance.notice = ends

    def draw_again(self, now: float) -> None:
        """The market's terms have changed: new lots for all machines without a notice."""
        self.state.market.draws += 1
        for instance in self.state.instances.values():
            if instance.phase == "running" and instance.notice is None:
                instance.interruptAt = market.draw(self.state, instance, now)

    def dismiss(self, instance: Instance, reason: str) -> None:
        """Let it be taken away; one that never was is gone at once."""
        if instance.phase in ("deleting", "gone"):
            return
        instance.reason, instance.retryAt, instance.problem = reason, 0.0, None
        if instance.phase == "pending":
            self._end(instance, instance.created, reason)
            return
        instance.phase = "deleting"

    def _end(self, instance: Instance, now: float, reason: str) -> None:
        instance.phase, instance.ended, instance.reason = "gone", now, reason

    def _tell(self, instance: Instance, warning: bool, reason: str, message: str) -> None:
        self.told.append(Told(instance.name, warning, reason, message))


def _dismissal_rank(instance: Instance) -> tuple[int, float, int]:
    """The higher, the sooner it goes: what does not work, then what is not there yet, then the youngest."""
    number = re.search(r"\d+$", instance.name)
    rank = 2 if instance.problem or instance.sick is not None else 1 if instance.phase != "running" else 0
    return rank, instance.created, int(number[0]) if number else 0
