"""The loop that finds nodes for pods that wait: batch, look, solve, create claims, tell.

Owns what is told of a decision: events on pods, and the memory of the last decisions. A pass that fails changes nothing
after the failure; pods that still wait are looked at again every ten seconds.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from client.events import WARNING, EventRecorder
from machinery import log
from machinery.clock import Clock
from machinery.errors import StatusError
from machinery.log import kv
from machinery.meta import rfc3339
from nodepool_autoscaler.batcher import Batcher
from nodepool_autoscaler.cluster import Cluster
from nodepool_autoscaler.hands import Hands
from nodepool_autoscaler.model import Offering, Outcome, PlannedClaim, World
from scheduler.framework.pod_info import PodInfo

AGAIN: Final = 10.0
"""Pods that wait are looked at again after so long, whatever happens."""
ERROR_TOLD_EVERY: Final = 300.0
REMEMBERED: Final = 200
_log = log.get(__name__)


@dataclass(slots=True)
class Made:
    """A claim and the offerings that it was made from; whole worlds, one for each pass, would be too much to keep."""

    at: str
    planned: PlannedClaim
    considered: tuple[Offering, ...]


@dataclass(slots=True)
class LastPass:
    """What was decided, and what it was decided from."""

    at: str = ""
    seconds: float = 0.0
    waiting: tuple[PodInfo, ...] = ()
    world: World | None = None
    outcome: Outcome = field(default_factory=Outcome)
    failures: dict[str, str] = field(default_factory=dict)
    """By pool: why a claim that was decided could not be created."""


class Provisioner:
    """`last` and `made` are for explanations."""

    def __init__(self, cluster: Cluster, hands: Hands, events: EventRecorder, clock: Clock) -> None:
        self._cluster = cluster
        self._hands = hands
        self._events = events
        self._clock = clock
        self.batcher = Batcher(clock)
        self.last = LastPass()
        self.made: OrderedDict[str, Made] = OrderedDict()
        self.created: dict[str, int] = {}
        self._errors: dict[str, tuple[str, float]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        self.batcher.trigger()
        while True:
            await self.batcher.wait(AGAIN)
            try:
                await self.pass_once()
            except Exception:  # noqa: BLE001  a defect in one pass must not be the end of all
                _log.exception("Pass failed")

    async def pass_once(self) -> Outcome:
        """One decision, carried out."""
        cluster = self._cluster
        waiting = list(cluster.waiting())
        self._hands.forget_pods(waiting)
        self._errors = {uid: each for uid, each in self._errors.items() if any(uid == info.uid for info in waiting)}
        world = cluster.world()
        moving = cluster.homeless(world)
        if not waiting and not moving:
            self.last = LastPass(at=rfc3339(self._clock.now()), world=world)
            return self.last.outcome
        await cluster.catalog.refresh()
        world = cluster.world()  # nothing is awaited between this look and the decision
        waiting, moving = list(cluster.waiting()), cluster.homeless(world)
        started = time.perf_counter()
        outcome = cluster.solve(world, [*waiting, *moving])
        seconds = time.perf_counter() - started
        self.last = LastPass(rfc3339(self._clock.now()), seconds, tuple(waiting), world, outcome)
        await self._carry_out(world, outcome, {info.uid: info for info in waiting})
        return outcome

    async def _carry_out(self, world: World, outcome: Outcome, waiting: dict[str, PodInfo]) -> None:
        by_name = {each.name: each for each in world.nodes}
        for uid, name in outcome.placed.items():
            info, state = waiting.get(uid), by_name.get(name)
            self._cluster.nominate(name)
            if info is not None and state is not None:
                claim = state.claim.name if state.claim is not None else ""
                self._hands.tell_nominated(info, claim, state.name if state.node is not None else "")
        for planned in outcome.claims:
            await self._create(planned, world, waiting)
        for uid, error in outcome.errors.items():
            if uid in waiting:
                self._tell_error(waiting[uid], error)

    async def _create(self, planned: PlannedClaim, world: World, waiting: dict[str, PodInfo]) -> None:
        pool = planned.pool.name
        try:
            claim = await self._hands.create(planned, "provisioned")
        except StatusError as error:
            _log.warning("Did not create a claim", extra=kv(pool=pool, error=error.message))
            self.last.failures[pool] = error.message
            for info in planned.pods:
                if info.uid in waiting:
                    self._tell_error(info, f'creating nodeclaim for nodepool "{pool}", {error.message}')
            return
        self.created[pool] = self.created.get(pool, 0) + 1
        self.made[claim.name] = Made(
            rfc3339(self._clock.now()), planned, world.offerings.get(planned.pool.node_class, ())
        )
        while len(self.made) > REMEMBERED:
            self.made.popitem(last=False)
        self._cluster.nominate(claim.name)
        for info in planned.pods:
            if info.uid in waiting:
                self._hands.tell_nominated(info, claim.name)

    def _tell_error(self, info: PodInfo, error: str) -> None:
        """The same words only every five minutes."""
        now = self._clock.monotonic()
        told, until = self._errors.get(info.uid, ("", 0.0))
        if told != error or now >= until:
            self._errors[info.uid] = (error, now + ERROR_TOLD_EVERY)
            self._events.event(info.pod, WARNING, "FailedScheduling", f"Failed to schedule pod, {error}")
