"""The loop of disruption: one method after the other, until one has a command that still holds a while later.

Source: karpenter.sh, "Disruption Controller". Owns the order of a pass and what is told of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from machinery import log
from machinery.clock import Clock
from machinery.errors import StatusError
from machinery.log import kv
from machinery.meta import rfc3339
from nodepool_autoscaler.disruption.budgets import EMPTY, Allowance
from nodepool_autoscaler.disruption.candidates import (
    BLOCKED,
    UNCONSOLIDATABLE,
    Candidate,
    Look,
    Verdict,
    counts,
    find,
)
from nodepool_autoscaler.disruption.commands import Command
from nodepool_autoscaler.disruption.consolidation import Simulation, interpret
from nodepool_autoscaler.disruption.memory import Memory
from nodepool_autoscaler.disruption.methods import Method, Proposal, all_methods
from nodepool_autoscaler.disruption.metrics import Metrics, series
from nodepool_autoscaler.disruption.pods import DISRUPTED_TAINT, reschedulable
from nodepool_autoscaler.disruption.ports import Hands, Site
from nodepool_autoscaler.disruption.queue import CommandFailed, Queue
from nodepool_autoscaler.disruption.upkeep import Upkeep
from nodepool_autoscaler.disruption.validation import still_empty, still_valid
from nodepool_autoscaler.model import NodeState, World
from nodepool_autoscaler.names import DISRUPTION_REASON
from nodepool_autoscaler.simulation import without_node
from scheduler.framework import node_facts

POLL: Final = 10.0
AGAIN: Final = 1.0
VALIDATION_DELAY: Final = 15.0
SETTLED_FOR: Final = 300.0
KEPT: Final = 1.0
"""A search looks at the world anew after so long: looking costs more than a simulation, and what a search finds is
checked against a new look."""
QUIET: Final = {BLOCKED: 120.0, UNCONSOLIDATABLE: 900.0}
POOL_QUIET: Final = 60.0
_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """`spot_to_spot`: upstream's feature gate SpotToSpotConsolidation."""

    spot_to_spot: bool = False
    validation_delay: float = VALIDATION_DELAY


@dataclass(frozen=True, slots=True)
class View:
    """What a method starts from. `found`: candidates and why others are none, by whether the disruption is eventual;
    `state`: equal to that of another view while nothing has changed that a decision depends on; `until`: cluster
    seconds."""

    look: Look
    found: Mapping[bool, tuple[list[Candidate], list[Verdict]]]
    state: object
    until: float


class Disruption:
    """Everything about nodes that should not stay."""

    def __init__(self, site: Site, hands: Hands, clock: Clock, options: Options | None = None) -> None:
        self._site = site
        self._hands = hands
        self._clock = clock
        self._options = options or Options()
        self._methods = all_methods(clock, spot_to_spot=self._options.spot_to_spot)
        self._settled: dict[str, tuple[float, object]] = {}
        self._told: dict[tuple[str, str, str], float] = {}
        self.queue = Queue(site, hands, clock, self._command_done)
        self.upkeep = Upkeep(site, hands, clock, self._lost)
        self.memory = Memory()
        self._seen = 0.0, World(clock.now())
        self.metrics = Metrics()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.upkeep.run())
                group.create_task(self._loop())
        finally:
            await self.queue.stop()

    async def _loop(self) -> None:
        while True:
            done: Command | None = None
            try:
                done = await self.pass_once()
            except Exception:  # noqa: BLE001  a defect in one pass must not be the end of all
                _log.exception("Pass failed")
            await self._clock.sleep(AGAIN if done is not None else POLL)

    async def pass_once(self) -> Command | None:
        """The command that was begun, if there was any."""
        await self._clean()
        self.memory.at = rfc3339(self._clock.now())
        verdicts: dict[str, Verdict] = {}
        view = self._view()
        for method in self._methods:
            if self._clock.monotonic() >= view.until:  # the method before took its time
                view = self._view()
            command = await self._try(method, view, verdicts)
            if command is not None:
                return command
        self.memory.verdicts = verdicts
        return None

    # --- one method --------------------------------------------------------------------------------------------------

    async def _try(self, method: Method, view: View, verdicts: dict[str, Verdict]) -> Command | None:
        found, blocked = view.found[method.eventual]
        candidates, unwanted = self._wanted(method, found)
        refused = [*blocked, *unwanted]
        if not method.eventual:
            self._tell(refused)
        verdicts.update({each.node: each for each in refused})
        key = f"{method.reason}/{method.consolidation}"
        self.metrics.set(series("voluntary_disruption_eligible_nodes", reason=method.reason.lower()), len(candidates))
        if not candidates:
            return None
        settled = self._settled.get(key)
        if settled is not None and self._clock.monotonic() < settled[0] and settled[1] == view.state:
            verdicts.update({name: each for name, each in self.memory.verdicts.items() if name not in verdicts})
            return None
        proposal = await method.propose(candidates, self._allowance(method, view.look.world), self._simulate)
        self._note(proposal, method, verdicts)
        if proposal.command is None:
            if method.settles and not proposal.constrained and not proposal.timed_out:
                self._settled[key] = self._clock.monotonic() + SETTLED_FOR, view.state
            return None
        command = await self._checked(method, proposal.command) if method.checked else proposal.command
        return await self._start(command) if command is not None else None

    def _wanted(self, method: Method, found: Iterable[Candidate]) -> tuple[list[Candidate], list[Verdict]]:
        """Those that the method would take, and what is to be told of others."""
        wanted: list[Candidate] = []
        verdicts: list[Verdict] = []
        for each in found:
            wants = method.wants(each)
            if wants is True:
                wanted.append(each)
            elif wants:
                verdicts.append(Verdict(each.name, UNCONSOLIDATABLE, str(wants)))
        return wanted, verdicts

    def _note(self, proposal: Proposal, method: Method, verdicts: dict[str, Verdict]) -> None:
        self._tell(proposal.verdicts)
        verdicts.update({each.node: each for each in proposal.verdicts})
        if proposal.timed_out:
            timeouts = "voluntary_disruption_consolidation_timeouts_total"
            self.metrics.add(series(timeouts, consolidation_type=method.consolidation))

    async def _checked(self, method: Method, command: Command) -> Command | None:
        """The command, if it still holds when some time has passed."""
        await self._clock.sleep(self._options.validation_delay)
        look = self._look()
        candidates, _ = self._wanted(method, find(look, eventual=method.eventual)[0])
        allowance = self._allowance(method, look.world)
        if method.reason == EMPTY:
            found = still_empty(command, candidates, allowance)
        else:
            found = await still_valid(command, candidates, allowance, self._simulate)
        if isinstance(found, Command):
            return found
        _log.info("Abandoned disruption", extra=kv(command=command, because=found))
        failed = "voluntary_disruption_failed_validations_total"
        self.metrics.add(series(failed, consolidation_type=method.consolidation))
        self.memory.began(rfc3339(self._clock.now()), command, f"abandoned: {found}")
        return None

    async def _start(self, command: Command) -> Command | None:
        _log.info("Disrupting nodes", extra=kv(reason=command.reason, command=command))
        try:
            begun = await self.queue.start(command)
        except CommandFailed as error:
            _log.warning("Did not begin disruption", extra=kv(command=command, error=error))
            self.memory.began(rfc3339(self._clock.now()), command, f"failed: {error}")
            return None
        self.metrics.add(series("voluntary_disruption_decisions_total", **_labels(begun)))
        self.memory.began(rfc3339(self._clock.now()), begun)
        return begun

    # --- the world ---------------------------------------------------------------------------------------------------

    def _view(self) -> View:
        look = self._look()
        found = {eventual: find(look, eventual=eventual) for eventual in (False, True)}
        return View(look, found, self._fingerprint(look), self._clock.monotonic() + KEPT)

    def _look(self) -> Look:
        world = self._fresh_world()
        self.memory.world = world
        return Look(world, self._site.pod_budgets(), self._clock.elapsed)

    def _fresh_world(self) -> World:
        world = self._site.world()
        self._seen = self._clock.monotonic() + KEPT, world
        return world

    async def _simulate(self, candidates: Sequence[Candidate]) -> Simulation | None:
        await asyncio.sleep(0)  # a search may be long: let others have their turn
        until, world = self._seen
        if self._clock.monotonic() >= until:
            world = self._fresh_world()
        names = {each.name for each in candidates}
        present = {state.name for state in world.nodes if not state.marked}
        if not names <= present:
            return None
        leaving = [pod for state in world.nodes if state.marked for pod in state.pods if reschedulable(pod)]
        waiting = self._site.waiting()
        moving = [pod for state in world.nodes if state.name in names for pod in state.pods]
        outcome = self._site.solve(world, [*waiting, *map(without_node, leaving)], without=names)
        pods = {pod.uid: pod for pod in (*waiting, *leaving, *moving)}
        return interpret(
            world,
            outcome,
            pods,
            waiting={pod.uid for pod in waiting},
            leaving={pod.uid for pod in leaving},
        )

    def _allowance(self, method: Method, world: World) -> Allowance:
        pools = {pool.name: pool.budgets for pool in world.pools}
        allowance = Allowance.of(pools, counts(world), self._clock.now(), method.reason)
        for name, count in allowance.configured.items():
            self.metrics.set(
                series("nodepools_allowed_disruptions", nodepool=name, reason=method.reason.lower()), count
            )
            self.memory.allowed.setdefault(name, {})[method.reason] = (count, allowance.left[name])
        for name in allowance.blocked():
            message = f"No allowed disruptions for disruption reason {method.reason} due to blocking budget"
            if self._is_news(("pool", name, message), POOL_QUIET):
                self._hands.pool_event(name, BLOCKED, message)
        return allowance

    def _fingerprint(self, look: Look) -> object:
        return (
            [_state_key(state) for state in look.world.nodes],
            look.world.pools,
            look.world.offerings,
            sorted(pod.uid for pod in self._site.waiting()),
            list(look.budgets),
        )

    # --- after a command, or a crash ---------------------------------------------------------------------------------

    async def _clean(self) -> None:
        """Nodes that bear our mark without being ours any more: of a process before this one."""
        for state in self._site.world().nodes:
            claim = state.claim
            if claim is None or claim.deleting or state.node is None or claim.name in self.queue.busy:
                continue
            if DISRUPTED_TAINT in node_facts.taints(state.node) or claim.is_true(DISRUPTION_REASON):
                try:
                    await self._hands.unmark(state)
                except StatusError as error:
                    _log.warning("Left marks on node", extra=kv(node=state.name, error=error))

    def _command_done(self, command: Command, error: str) -> None:
        self.memory.ended(command, f"failed: {error}" if error else "done")
        reason = command.reason.lower()
        if error:
            self.metrics.add(series("voluntary_disruption_queue_failures_total", **_labels(command)))
            return
        for each in command.candidates:
            self._lost(reason, each.state)

    def _lost(self, reason: str, state: NodeState) -> None:
        kind = state.offering.capacity_type if state.offering is not None else ""
        self.metrics.add(series("nodeclaims_disrupted_total", reason=reason, nodepool=state.pool, capacity_type=kind))

    # --- telling -----------------------------------------------------------------------------------------------------

    def _tell(self, verdicts: Iterable[Verdict]) -> None:
        for each in verdicts:
            if self._is_news((each.node, each.reason, each.message), QUIET[each.reason]):
                world = self.memory.world
                state = next((one for one in world.nodes if one.name == each.node), None) if world is not None else None
                if state is not None and state.node is not None:
                    self._hands.node_event(state.name, each.reason, each.message)
                if state is not None and state.claim is not None:
                    self._hands.claim_event(state.claim.name, each.reason, each.message)

    def _is_news(self, key: tuple[str, str, str], quiet: float) -> bool:
        """Whether this was not told for as long as `quiet`."""
        now = self._clock.monotonic()
        if now < self._told.get(key, now):
            return False
        self._told = {known: until for known, until in self._told.items() if until > now}
        self._told[key] = now + quiet
        return True


def _labels(command: Command) -> dict[str, str]:
    return {
        "decision": command.decision,
        "reason": command.reason.lower(),
        "consolidation_type": command.consolidation,
    }


def _state_key(state: NodeState) -> object:
    claim = state.claim
    spec = state.node.spec if state.node is not None else None
    metadata = state.node.metadata if state.node is not None else None
    return (
        state.name,
        state.marked,
        state.nominated,
        state.offering,
        [(pod.uid, pod.terminating) for pod in state.pods],
        {name: each.status for name, each in claim.conditions.items()} if claim is not None else None,
        claim.labels if claim is not None else None,
        (spec.taints, spec.unschedulable) if spec is not None else None,
        (metadata.labels, metadata.annotations) if metadata is not None else None,
    )
