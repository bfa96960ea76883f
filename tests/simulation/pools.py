"""The other mode of the simulation: machines of a NodePool, by Karpenter's rules as the product has them.

Waiting pods are given to the solver, which names the cheapest machine that holds them; disruption's methods look for
nodes that can go or be replaced by a cheaper one, and a command has to hold for a while before it is begun. Ordered
from the simulated cloud one by one. As with the other mode, a pass that could find nothing new is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cloud.model import Group, SingleOrder, node_labels, provider_id
from cloud.orders import Offer, Orders, Wanted
from cluster_autoscaler.node_facts import allocatable
from nodepool_autoscaler import names
from nodepool_autoscaler.disruption.budgets import EMPTY, Allowance
from nodepool_autoscaler.disruption.candidates import Candidate, Look, counts, find
from nodepool_autoscaler.disruption.commands import Command
from nodepool_autoscaler.disruption.consolidation import Simulation, interpret
from nodepool_autoscaler.disruption.controller import VALIDATION_DELAY
from nodepool_autoscaler.disruption.methods import Method, all_methods
from nodepool_autoscaler.disruption.pods import reschedulable
from nodepool_autoscaler.disruption.queue import TIMEOUT
from nodepool_autoscaler.disruption.upkeep import is_consolidatable
from nodepool_autoscaler.disruption.validation import still_empty, still_valid
from nodepool_autoscaler.model import Claim, Condition, NodeState, Offering, Outcome, PlannedClaim, Pool, World
from nodepool_autoscaler.requirements import Requirement
from nodepool_autoscaler.simulation import without_node
from nodepool_autoscaler.solver import Solver
from scheduler.framework.pod_info import PodInfo
from tests.simulation.replicas import finished
from tests.simulation.site import Site

POOL: Final = "default"
CLASS: Final = "simulated"
DRAIN: Final = 30.0  # of the pods' grace
NOMINATED: Final = 20.0
TYPES: Final = ("standard-2x8", "standard-4x16", "standard-8x32")
RESTLESS: Final = 60.0  # after a change everything is looked at for so long
SETTLED: Final = 300.0


@dataclass
class Made:
    """A machine that was ordered."""

    offering: Offering
    created: datetime
    initialized: datetime | None = None
    nominated: float = 0.0
    marked: bool = False


@dataclass
class Under:
    """A command under way. `leaves`: when its nodes are empty, once their replacements are there."""

    command: Command
    began: float
    replacements: list[str] = field(default_factory=list)
    leaves: float | None = None


class PoolScaler:
    """One pool; `look` is one pass over everything that its controllers do."""

    def __init__(self, site: Site, *, spot: bool, consolidate_after: float = 30.0) -> None:
        self._site = site
        self._orders = Orders(site.core)
        self._solver = Solver(site.snapshot)
        self._methods = all_methods(site.clock)
        kinds = (names.SPOT, names.ON_DEMAND) if spot else (names.ON_DEMAND,)
        self._pool = Pool(
            POOL,
            node_class=CLASS,
            requirements=(
                Requirement.of(names.CAPACITY_TYPE, "In", kinds),
                Requirement.of(names.INSTANCE_TYPE, "In", TYPES),
            ),
            consolidate_after=consolidate_after,
        )
        self._made: dict[str, Made] = {}
        self._known: dict[tuple[str, str, str], Offering] = {}
        self._waiting_for: tuple[Method, Command, float] | None = None
        self._under: list[Under] = []
        self._pods_changed: dict[str, tuple[frozenset[str], datetime]] = {}
        self._seen, self._changed_at, self._next = -1, 0.0, 0.0
        self._settled: object = None
        self._tokens = 0
        self.passes = 0

    # ---- a pass ----

    def look(self) -> None:
        """A pass, when it could matter."""
        site, now = self._site, self._site.now
        if site.version != self._seen:
            self._seen, self._changed_at = site.version, now
        busy = self._waiting_for or self._under or site.waiting or now - self._changed_at < RESTLESS
        if not busy and now < self._next:
            return
        self._next = now + SETTLED
        self.passes += 1
        self._notice()
        self._provision()
        self._finish_commands()
        if self._waiting_for is not None:
            self._validate(*self._waiting_for)
        else:
            self._disrupt()

    def _notice(self) -> None:
        """Nodes that have joined, machines that are gone, pods that came and went."""
        site = self._site
        gone = [name for name in self._made if self._site.core.state.instances[name].phase in ("gone", "deleting")]
        for name in gone:
            del self._made[name]
            self._pods_changed.pop(name, None)
        for name, made in self._made.items():
            record = site.snapshot.record(name)
            if made.initialized is None and name in site.nodes:
                made.initialized = site.clock.now()
            if record is not None:
                pods = frozenset(record.pods)
                known = self._pods_changed.get(name)
                if known is None or known[0] != pods:
                    self._pods_changed[name] = pods, site.clock.now()

    # ---- the world ----

    def _world(self) -> World:
        site = self._site
        states = [self._state(name, made) for name, made in self._made.items()]
        return World(site.clock.now(), tuple(states), (self._pool,), {CLASS: self._offerings()})

    def _state(self, name: str, made: Made) -> NodeState:
        site, done = self._site, Condition("True", since=made.initialized)
        conditions = {names.LAUNCHED: Condition("True", since=made.created)}
        if made.initialized is not None:
            conditions[names.INITIALIZED_CONDITION] = done
        claim = self._claim(name, made, conditions)
        changed = self._pods_changed.get(name)
        if is_consolidatable(claim, self._pool, changed[1] if changed else None, site.clock.elapsed):
            conditions[names.CONSOLIDATABLE] = Condition("True", names.CONSOLIDATABLE)
        record = site.snapshot.record(name)
        return NodeState(
            name,
            site.nodes.get(name),
            self._claim(name, made, conditions),
            made.offering,
            tuple(record.pods.values()) if record is not None else (),
            marked=made.marked or self._site.core.state.instances[name].notice is not None,
            nominated=made.nominated > site.now,
        )

    @staticmethod
    def _claim(name: str, made: Made, conditions: dict[str, Condition]) -> Claim:
        return Claim(
            name,
            made.created,
            uid=name,
            pool=POOL,
            node_class=CLASS,
            labels={**made.offering.labels, names.NODE_POOL: POOL},
            conditions=conditions,
            provider_id=provider_id("sim", name),
            node_name=name if made.initialized is not None else "",
            capacity=made.offering.capacity,
            allocatable=made.offering.allocatable,
        )

    def _offerings(self) -> tuple[Offering, ...]:
        offers = self._orders.offers(self._site.now)
        return tuple(self._offering(each) for each in offers if each.available and each.type.name in TYPES)

    def _offering(self, offer: Offer) -> Offering:
        key = offer.type.name, offer.zone, offer.capacity_type
        known = self._known.get(key)
        if known is None:
            group: Group = offer.as_group(hollow=True)
            amounts = allocatable(self._site.template(group))
            labels = {**node_labels(group, offer.zone), names.CAPACITY_TYPE: offer.capacity_type}
            known = self._known[key] = Offering(*key, offer.price, amounts, amounts, labels)
        return known

    # ---- more ----

    def _provision(self) -> None:
        waiting = [PodInfo(pod) for pod in self._site.waiting]
        world = self._world()
        moving = [without_node(pod) for state in world.nodes if state.marked for pod in state.pods]
        if not waiting and not moving:
            return
        self._carry_out(self._solver.solve(world, [*waiting, *moving]))

    def _carry_out(self, outcome: Outcome) -> None:
        for name in outcome.placed.values():
            self._made[name].nominated = self._site.now + NOMINATED
        for planned in outcome.claims:
            self._launch(planned)

    def _launch(self, planned: PlannedClaim) -> str:
        """Name of the machine; "" when nothing of all that can be had now."""
        site = self._site
        assert planned.offerings[0].price == min(each.price for each in planned.offerings), "not the cheapest first"
        self._tokens += 1
        wanted = [Wanted(*each.key) for each in planned.offerings]
        order = SingleOrder(f"claim-{self._tokens}", bootDelay=self._site.boot)
        instance, _ = self._orders.launch(order, wanted, hollow=True, now=site.now)
        site.wake()
        if instance is None:
            return ""
        kind = names.SPOT if instance.spot else names.ON_DEMAND
        offering = self._known[(instance.type, instance.zone, kind)]
        self._made[instance.name] = Made(offering, site.clock.now(), nominated=site.now + NOMINATED)
        return instance.name

    # ---- less ----

    def _disrupt(self) -> None:
        look = self._look()
        candidates = find(look)[0]
        ripe = frozenset(
            each.name for each in candidates if each.state.claim and each.state.claim.is_true(names.CONSOLIDATABLE)
        )
        state = self._site.version, ripe
        if state == self._settled:
            return
        for method in self._methods:
            wanted = [each for each in candidates if method.wants(each) is True]
            if not wanted:
                continue
            proposal = finished(method.propose(wanted, self._allowance(method, look.world), self._simulate))
            if proposal.command is None:
                continue
            if method.checked:
                self._waiting_for = method, proposal.command, self._site.now + VALIDATION_DELAY
            else:
                self._start(proposal.command)
            return
        self._settled = state

    def _validate(self, method: Method, command: Command, due: float) -> None:
        if self._site.now < due:
            return
        self._waiting_for = None
        look = self._look()
        wanted = [each for each in find(look)[0] if method.wants(each) is True]
        allowance = self._allowance(method, look.world)
        if method.reason == EMPTY:
            found = still_empty(command, wanted, allowance)
        else:
            found = finished(still_valid(command, wanted, allowance, self._simulate))
        if isinstance(found, Command):
            self._start(found)

    def _start(self, command: Command) -> None:
        assert not command.replacements or command.after < command.before, "a replacement that saves nothing"
        begun = Under(command, self._site.now)
        for planned in command.replacements:
            name = self._launch(planned)
            if not name:
                return
            begun.replacements.append(name)
        for each in command.candidates:
            self._made[each.name].marked = True
            self._site.mark(each.name)
        self._under.append(begun)

    def _finish_commands(self) -> None:
        now = self._site.now
        for each in list(self._under):
            there = all(name in self._site.nodes for name in each.replacements)
            if each.leaves is None and not there and now - each.began < TIMEOUT:
                continue
            if each.leaves is None and not there:
                self._under.remove(each)
                self._unmark(each.command)
            elif each.leaves is None:
                each.leaves = now + DRAIN
                for candidate in each.command.candidates:
                    self._site.evict(candidate.name)
            elif now >= each.leaves:
                self._under.remove(each)
                self._terminate(each.command)

    def _unmark(self, command: Command) -> None:
        for each in command.candidates:
            if each.name in self._made:
                self._made[each.name].marked = False
                self._site.unmark(each.name)

    def _terminate(self, command: Command) -> None:
        for each in command.candidates:
            if each.name in self._made:
                self._orders.terminate(each.name)
        self._site.wake()

    def _look(self) -> Look:
        return Look(self._world(), (), self._site.clock.elapsed)

    def _allowance(self, method: Method, world: World) -> Allowance:
        return Allowance.of({POOL: self._pool.budgets}, counts(world), self._site.clock.now(), method.reason)

    async def _simulate(self, candidates: Sequence[Candidate]) -> Simulation | None:
        world = self._world()
        chosen = {each.name for each in candidates}
        if not chosen <= {state.name for state in world.nodes if not state.marked}:
            return None
        leaving = [pod for state in world.nodes if state.marked for pod in state.pods if reschedulable(pod)]
        waiting = [PodInfo(pod) for pod in self._site.waiting]
        moving = [pod for state in world.nodes if state.name in chosen for pod in state.pods]
        outcome = self._solver.solve(world, [*waiting, *map(without_node, leaving)], without=chosen)
        pods = {pod.uid: pod for pod in (*waiting, *leaving, *moving)}
        return interpret(
            world,
            outcome,
            pods,
            waiting={pod.uid for pod in waiting},
            leaving={pod.uid for pod in leaving},
        )
