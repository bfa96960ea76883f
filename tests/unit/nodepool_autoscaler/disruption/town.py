"""A cluster on virtual time in which disruption can be watched. Plays everybody else: workloads, a scheduler that
spreads, machines that boot, claims that are drained, provisioning."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec

from api.models import core_v1, meta_v1
from machinery.clock import VirtualClock
from machinery.errors import ServiceUnavailable, StatusError
from machinery.selectors import LabelSelector
from nodepool_autoscaler import names
from nodepool_autoscaler.disruption.blocking import PodBudget
from nodepool_autoscaler.disruption.budgets import allowed
from nodepool_autoscaler.disruption.controller import Disruption, Options
from nodepool_autoscaler.disruption.pods import DISRUPTED_TAINT, protected
from nodepool_autoscaler.model import (
    Claim,
    Condition,
    DisruptionReason,
    NodeState,
    Offering,
    Outcome,
    PlannedClaim,
    Pool,
    World,
)
from nodepool_autoscaler.simulation import Simulator
from nodepool_autoscaler.solver import movable
from scheduler.framework import node_facts
from scheduler.framework.pod_info import PodInfo
from tests.unit.nodepool_autoscaler.scene import ON_DEMAND, Scene, offerings
from tests.unit.scheduler.objects import node as node_object

BOOT = 30.0
IDLE = 5.0
NOMINATION = 20.0
TAINT = core_v1.Taint(key=names.DISRUPTED, effect="NoSchedule")


def pool(name: str = "default", **rest: Any) -> Pool:
    """Without a budget that would slow everything down."""
    from nodepool_autoscaler.model import Budget

    return Pool(name, **{"node_class": "real", "requirements": (ON_DEMAND,), "budgets": (Budget("100%"),), **rest})


@dataclass
class Work:
    """A workload of so many pods. `least`: of a PodDisruptionBudget's minAvailable, None for no budget."""

    replicas: int
    cpu: str = "1"
    memory: str = "1Gi"
    least: int | None = None
    notes: dict[str, str] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)


class Town:
    """Implements Site and Hands."""

    def __init__(
        self, *pools: Pool, offers: Sequence[Offering] | None = None, options: Options | None = None, calm: float = 0.0
    ) -> None:
        self.clock = VirtualClock(datetime.fromisoformat("2026-01-05T00:00:00Z"))
        self.scene = Scene(*(pools or (pool(),)), offers=offers if offers is not None else offerings())
        self._simulator = Simulator(self.scene.snapshot)
        self.work: dict[str, Work] = {}
        self.pending: dict[str, PodInfo] = {}
        self.disruption = Disruption(self, self, self.clock, options)
        self.told: list[tuple[str, str, str, str]] = []
        self.wrong: list[str] = []
        self.ended: list[tuple[float, str, DisruptionReason | None]] = []
        self.calm = calm
        """Seconds until disruption begins."""
        self.boots = True
        self.refuses_launches = False
        self.fails: dict[str, list[StatusError]] = {}
        """Errors of coming calls, by verb and name of the node: `mark node-1`."""
        self.cost = 0.0
        """Dollars so far."""
        self._nominated: dict[str, float] = {}
        self._booting: dict[str, float] = {}
        self._made = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Town:
        self._tasks = [asyncio.ensure_future(self._disrupt()), asyncio.ensure_future(self._live())]
        return self

    async def _disrupt(self) -> None:
        await self.clock.sleep(self.calm)
        await self.disruption.run()

    async def __aexit__(self, *failure: object) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        assert not self.wrong, self.wrong

    async def wait(self, seconds: float) -> None:
        await self.clock.advance(seconds, settle=30)

    # --- what there is -----------------------------------------------------------------------------------------------

    @property
    def states(self) -> dict[str, NodeState]:
        return self.scene.states

    @property
    def nodes(self) -> list[str]:
        return sorted(self.states)

    @property
    def price(self) -> float:
        return sum(each.price for each in self.states.values())

    @property
    def types(self) -> list[str]:
        return sorted(each.offering.instance_type for each in self.states.values() if each.offering is not None)

    def running(self, app: str = "") -> list[PodInfo]:
        found = [pod for state in self.world().nodes for pod in state.pods]
        return [pod for pod in found if not app or pod.labels.get("app") == app]

    def reasons(self, reason: str) -> list[str]:
        return [message for _, _, told, message in self.told if told == reason]

    # --- Site --------------------------------------------------------------------------------------------------------

    def world(self) -> World:
        self.scene.now = self.clock.now()
        now = self.clock.monotonic()
        found = self.scene.world
        marked = self.disruption.queue.marked
        nodes = tuple(
            replace(
                each,
                marked=each.claim is not None and (each.claim.deleting or each.claim.name in marked),
                nominated=self._nominated.get(each.name, -1.0) > now,
            )
            for each in found.nodes
        )
        return replace(found, nodes=nodes)

    def claim(self, name: str) -> Claim | None:
        state = self.states.get(name)
        return state.claim if state is not None else None

    def waiting(self) -> Sequence[PodInfo]:
        return list(self.pending.values())

    def pod_budgets(self) -> Sequence[PodBudget]:
        found = []
        for app, work in self.work.items():
            if work.least is not None:
                spare = max(0, len(self.running(app)) - work.least)
                selector = LabelSelector.from_object(meta_v1.LabelSelector(matchLabels={"app": app}))
                found.append(PodBudget("default", app, selector, spare))
        return found

    def solve(self, world: World, pods: Sequence[PodInfo], *, without: Collection[str] = ()) -> Outcome:
        return self.scene.solver.solve(world, pods, without=without)

    # --- Hands -------------------------------------------------------------------------------------------------------

    def _change(self, name: str, taint: bool | None = None, **changes: Any) -> None:
        state = self.states[name]
        assert state.claim is not None
        node = state.node
        if node is not None and taint is not None:
            assert node.spec is not None
            taints = [each for each in node.spec.taints or () if each.key != names.DISRUPTED]
            spec = msgspec.structs.replace(node.spec, taints=[*taints, TAINT] if taint else taints or None)
            node = msgspec.structs.replace(node, spec=spec)
            self.scene.snapshot.set_node(node)
        self.states[name] = replace(state, node=node, claim=replace(state.claim, **changes))
        self.disruption.upkeep.wake()

    def _fail(self, call: str) -> None:
        if self.fails.get(call):
            raise self.fails[call].pop(0)

    async def mark(self, state: NodeState, reason: DisruptionReason) -> None:
        self._fail(f"mark {state.name}")
        self._watch(state, reason)
        assert state.claim is not None
        conditions = {**self.states[state.name].claim.conditions, names.DISRUPTION_REASON: Condition("True", reason)}  # type: ignore[union-attr]
        self._change(state.name, True, conditions=conditions)

    async def unmark(self, state: NodeState) -> None:
        self._fail(f"unmark {state.name}")
        if state.name in self.states:
            conditions = dict(self.states[state.name].claim.conditions)  # type: ignore[union-attr]
            conditions.pop(names.DISRUPTION_REASON, None)
            self._change(state.name, False, conditions=conditions)

    async def launch(self, planned: PlannedClaim, reason: DisruptionReason) -> str:
        if self.refuses_launches:
            raise ServiceUnavailable("no launches today")
        return self.order(planned.offerings[0], planned.pool.name)

    def nominate(self, placed: Mapping[str, str], launched: Mapping[str, Sequence[PodInfo]]) -> None:
        until = self.clock.monotonic() + NOMINATION
        self._nominated |= dict.fromkeys([*placed.values(), *launched], until)

    async def delete_claim(self, claim: Claim) -> None:
        self._fail(f"delete {claim.name}")
        if claim.name in self.states:
            known = self.states[claim.name].claim
            assert known is not None
            found = known.conditions.get(names.DISRUPTION_REASON)
            self.ended.append((self.clock.monotonic(), claim.name, found.reason if found is not None else None))  # type: ignore[arg-type]
            self._change(claim.name, True, deleting=True)

    async def set_status(
        self, claim: Claim, conditions: Mapping[str, str | None], last_pod_event: datetime | None = None
    ) -> None:
        known = dict(self.states[claim.name].claim.conditions)  # type: ignore[union-attr]
        for name, reason in conditions.items():
            known.pop(name, None)
            if reason is not None:
                known[name] = Condition("True", reason, reason, self.clock.now())
        before = self.states[claim.name].claim
        assert before is not None
        self._change(claim.name, conditions=known, last_pod_event=last_pod_event or before.last_pod_event)

    def node_event(self, node: str, reason: str, message: str, *, warning: bool = False) -> None:
        self.told.append(("Node", node, reason, message))

    def claim_event(self, claim: str, reason: str, message: str, *, warning: bool = False) -> None:
        self.told.append(("NodeClaim", claim, reason, message))

    def pool_event(self, pool: str, reason: str, message: str) -> None:
        self.told.append(("NodePool", pool, reason, message))

    # --- what must never be ------------------------------------------------------------------------------------------

    def _watch(self, state: NodeState, reason: DisruptionReason) -> None:
        world = self.world()
        mine = next(each for each in world.nodes if each.name == state.name)
        of_pool = [each for each in world.nodes if each.pool == state.pool and each.initialized]
        leaving = {each.name for each in of_pool if self._leaves(each)} | {state.name}
        found = world.pool(state.pool)
        assert found is not None
        if len(leaving) > allowed(found.budgets, self.clock.now(), len(of_pool), reason):
            self.wrong.append(f"{len(leaving)} of {len(of_pool)} nodes of {state.pool} leave at once, for {reason}")
        if any(protected(pod, self.clock.elapsed) for pod in mine.pods):
            self.wrong.append(f"{state.name} has protected pods")
        for budget in self.pod_budgets():
            if budget.allowed == 0 and any(budget.covers(pod) for pod in mine.pods):
                self.wrong.append(f"{state.name} has pods that {budget.key} holds")

    @staticmethod
    def _leaves(state: NodeState) -> bool:
        tainted = state.node is not None and DISRUPTED_TAINT in node_facts.taints(state.node)
        return tainted or (state.claim is not None and state.claim.deleting)

    # --- life --------------------------------------------------------------------------------------------------------

    def order(self, offer: Offering, of: str = "default") -> str:
        """A machine that will boot."""
        name = self.scene.node(offer, of, ready=False, age=0.0)
        self._change(name, created=self.clock.now(), expire_after=self._pool(of).expire_after)
        self._booting[name] = self.clock.monotonic() + BOOT
        return name

    def add(self, offer: Offering, of: str = "default", *, age: float = 3600.0) -> str:
        """A machine that is there already."""
        self.scene.now = self.clock.now()
        name = self.scene.node(offer, of, age=age)
        found = self._pool(of)
        notes = {names.POOL_HASH: found.hash, names.POOL_HASH_VERSION: names.HASH_VERSION}
        self._change(name, expire_after=found.expire_after, annotations=notes)
        self._ready(name)
        return name

    def set_grace(self, name: str, seconds: float | None) -> None:
        """The claim's terminationGracePeriod."""
        self._change(name, termination_grace=seconds)

    def _pool(self, name: str) -> Pool:
        return next(each for each in self.scene.pools if each.name == name)

    def change_pool(self, name: str = "default", **changes: Any) -> None:
        self.scene.pools = [replace(each, **changes) if each.name == name else each for each in self.scene.pools]
        self.disruption.upkeep.wake()

    def _ready(self, name: str) -> None:
        state = self.states[name]
        assert state.claim is not None and state.offering is not None
        amounts = state.offering.allocatable
        node = state.node or node_object(
            name, cpu=f"{amounts['cpu']}m", memory=str(amounts["memory"]), labels=dict(state.claim.labels)
        )
        assert node.status is not None
        status = msgspec.structs.replace(node.status, conditions=[core_v1.NodeCondition(type="Ready", status="True")])
        node = msgspec.structs.replace(node, status=status)
        self.scene.snapshot.set_node(node)
        now = Condition("True", since=self.clock.now())
        conditions = {**state.claim.conditions, names.INITIALIZED_CONDITION: now}
        self.states[name] = replace(state, node=node, claim=replace(state.claim, conditions=conditions))
        self.disruption.upkeep.wake()

    async def _live(self) -> None:
        while True:
            self.step()
            pause = 1.0 if self._is_busy() else IDLE
            self.cost += self.price * pause / 3600.0
            await self.clock.sleep(pause)

    def _is_busy(self) -> bool:
        leaving = any(each.claim is not None and each.claim.deleting for each in self.states.values())
        return leaving or bool(self.pending) or (self.boots and bool(self._booting))

    def step(self) -> None:
        """A moment of everybody else's work."""
        now = self.clock.monotonic()
        for name in [name for name, due in self._booting.items() if now >= due and self.boots]:
            del self._booting[name]
            if name in self.states:
                self._ready(name)
        self._replicate()
        self._drain()
        self._schedule()
        self._provision()

    def _replicate(self) -> None:
        for app, work in self.work.items():
            mine = [*self.running(app), *(pod for pod in self.pending.values() if pod.labels.get("app") == app)]
            for _ in range(work.replicas - len(mine)):
                self._made += 1
                name = f"{app}-{self._made}"
                pod = self.scene.pod(name, work.cpu, work.memory, labels={"app": app}, **work.spec)
                assert pod.pod.metadata is not None
                pod.pod.metadata.annotations = dict(work.notes) or None
                self.pending[name] = pod
            for pod in mine[work.replicas :]:
                self._end(pod)

    def _end(self, pod: PodInfo) -> None:
        home = self.scene.snapshot.home_of(pod.uid)
        if home:
            self.disruption.upkeep.pod_event(home, self.clock.now())
            self.scene.snapshot.remove_pod(pod.uid)
        self.pending.pop(pod.uid, None)

    def _drain(self) -> None:
        for name in self.nodes:
            state = self.states[name]
            if state.claim is None or not state.claim.deleting:
                continue
            record = self.scene.snapshot.record(name)
            for pod in list(record.pods.values()) if record is not None else ():
                if all(each.allowed > 0 for each in self.pod_budgets() if each.covers(pod)):
                    self._end(pod)
            record = self.scene.snapshot.record(name)
            if record is None or not record.pods:
                self._booting.pop(name, None)
                self.scene.remove(name)

    def _schedule(self) -> None:
        """Where there is most room, as the scheduler does it."""
        simulator, snapshot = self._simulator, self.scene.snapshot
        for uid, pod in list(self.pending.items()):
            hits = simulator.feasible(pod)
            free = snapshot.free[snapshot.rows["cpu"], : len(hits)]
            able = hits.nonzero()[0].tolist()
            if able:
                name = snapshot.name_at(max(able, key=lambda column: int(free[column])))
                bound = self.scene.pod(uid, node=name, labels=pod.labels)
                made = msgspec.structs.replace(pod.pod, spec=msgspec.structs.replace(pod.spec, nodeName=name))
                snapshot.remove_pod(bound.uid)
                snapshot.add_pod(PodInfo(made), name)
                self.disruption.upkeep.pod_event(name, self.clock.now())
                del self.pending[uid]

    def _provision(self) -> None:
        world = self.world()
        leaving = [pod for state in world.nodes if state.marked for pod in movable(state)]
        pods = [*self.pending.values(), *leaving]
        if not pods:
            return
        outcome = self.solve(world, pods)
        self.nominate(outcome.placed, {})
        for planned in outcome.claims:
            self.order(planned.offerings[0], planned.pool.name)
