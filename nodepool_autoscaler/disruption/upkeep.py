"""What claims tell of themselves, and those that go without being asked: expired and interrupted ones.

Source: karpenter.sh, "Consolidation" (consolidateAfter), "Drift", "Expiration", "Interruption". Expiry and interruption
are forceful: they ask for no budget, and for no replacement first. Owns the conditions Consolidatable and Drifted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Final

from machinery import log
from machinery.clock import Clock
from machinery.errors import Conflict, StatusError
from machinery.log import kv
from nodepool_autoscaler import names
from nodepool_autoscaler.disruption.drift import drift_reason, hash_annotations, is_static_drift
from nodepool_autoscaler.disruption.pods import Elapsed
from nodepool_autoscaler.disruption.ports import Hands, Site
from nodepool_autoscaler.model import Claim, NodeState, Pool, World
from scheduler.framework.node_facts import taints

APART: Final = 1.0
"""However much happens, passes are so far apart; and so far, when nothing is said to have happened and nothing falls
due:"""
LOOK: Final = 10.0
POD_EVENT_EVERY: Final = 10.0
INTERRUPTION: Final = "nanokube.io/spot-interruption"
"""The taint by which our cloud announces that it takes a spot machine away."""
_log = log.get(__name__)


def is_consolidatable(claim: Claim, pool: Pool, last_pod_event: datetime | None, elapsed: Elapsed) -> bool:
    """Whether nothing has come to the node or left it for as long as the pool asks for. A node to which nothing ever
    came counts from when it was initialized."""
    initialized = claim.conditions.get(names.INITIALIZED_CONDITION)
    if pool.consolidate_after is None or initialized is None or initialized.status != "True":
        return False
    since = last_pod_event or initialized.since
    return since is None or elapsed(since) >= pool.consolidate_after


def why_drifted(state: NodeState, pool: Pool, world: World) -> str:
    """Upstream's word, or ""."""
    claim = state.claim
    if claim is None or not claim.is_true(names.LAUNCHED):
        return ""
    of_pool = hash_annotations(pool.hash)
    # A cloud that offers nothing at all, or does not answer, says nothing about this one type.
    offered = state.offering is not None or not world.offerings.get(claim.node_class)
    made_of, class_now = claim.annotations.get(names.CLASS_HASH), world.class_hashes.get(claim.node_class)
    return drift_reason(
        static=is_static_drift(of_pool, claim.annotations),
        meets_requirements=all(each.allows(claim.labels.get(each.key)) for each in pool.requirements),
        offered=offered,
        same_class=not made_of or not class_now or made_of == class_now,
    )


def changes(state: NodeState, world: World, last_pod_event: datetime | None, elapsed: Elapsed) -> dict[str, str | None]:
    """Conditions to set (to a reason) or to remove (None)."""
    claim = state.claim
    pool = world.pool(state.pool)
    if claim is None or claim.deleting or pool is None:
        return {}
    wanted: dict[str, str | None] = {
        names.CONSOLIDATABLE: names.CONSOLIDATABLE if is_consolidatable(claim, pool, last_pod_event, elapsed) else None,
        names.DRIFTED: why_drifted(state, pool, world) or None,
    }
    found: dict[str, str | None] = {}
    for condition, reason in wanted.items():
        known = claim.conditions.get(condition)
        now = known.reason if known is not None and known.status == "True" else None
        if reason != now or (reason is None and known is not None):
            found[condition] = reason
    return found


def expired(claim: Claim, elapsed: Elapsed) -> bool:
    return not claim.deleting and claim.expire_after is not None and elapsed(claim.created) >= claim.expire_after


def interrupted(state: NodeState) -> bool:
    """Whether the cloud has announced that it takes the machine away."""
    return (
        state.claim is not None
        and not state.claim.deleting
        and state.node is not None
        and any(taint[0] == INTERRUPTION for taint in taints(state.node))
    )


class PodEvents:
    """When a pod last came to a node or left it, by name; what was written is not written again too soon."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[str, datetime] = {}

    def note(self, node: str, moment: datetime) -> None:
        """Something happened then; what is older than what is known is no news."""
        moment = moment.replace(microsecond=0)
        self._last[node] = max(moment, self._last.get(node, moment))

    def last(self, state: NodeState) -> datetime | None:
        """The latest that is known, written or not."""
        known = state.claim.last_pod_event if state.claim is not None else None
        moment = self._last.get(state.name)
        return max(known, moment) if known is not None and moment is not None else known or moment

    def due(self, claim: Claim, last: datetime | None) -> datetime | None:
        """What the claim's status should say, if that is worth a write."""
        known = claim.last_pod_event
        if last is None or known is None:
            return last
        return last if (last - known).total_seconds() >= self._clock.real(POD_EVENT_EVERY) else None

    def keep(self, nodes: Collection[str]) -> None:
        """Forget all others."""
        self._last = {name: moment for name, moment in self._last.items() if name in nodes}


class Upkeep:
    """One pass over all claims; `lost(reason, state)` is told of claims that were ended by force."""

    def __init__(
        self,
        site: Site,
        hands: Hands,
        clock: Clock,
        lost: Callable[[str, NodeState], None] = lambda reason, state: None,
    ) -> None:
        self._site = site
        self._hands = hands
        self._clock = clock
        self._lost = lost
        self._pod_events = PodEvents(clock)
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Something has changed: a node, a claim, a pool."""
        self._changed.set()

    def pod_event(self, node: str, moment: datetime) -> None:
        """A pod has come to a node or is leaving it. Not to be told of pods of DaemonSets, which say nothing about how
        a node is used."""
        self._pod_events.note(node, moment)
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            left = LOOK
            try:
                left = await self.pass_once()
            except Exception:  # noqa: BLE001  a defect in one pass must not be the end of all
                _log.exception("Pass failed")
            await self._clock.sleep(APART)
            with contextlib.suppress(TimeoutError):
                async with self._clock.timeout(max(0.0, left - APART)):
                    await self._changed.wait()

    async def pass_once(self) -> float:
        """Look at every claim. Seconds after which one has to be looked at again, whatever happens."""
        self._changed.clear()
        world = self._site.world()
        for state in world.nodes:
            if state.claim is None or state.claim.deleting:
                continue
            try:
                await self._attend(state, state.claim, world)
            except Conflict:
                self._changed.set()  # somebody wrote at the same moment: look again
            except StatusError as error:
                _log.warning("Did not keep claim up", extra=kv(claim=state.claim.name, error=error))
        self._pod_events.keep({state.name for state in world.nodes})
        return min([LOOK, *(self._left(state, world) for state in world.nodes)])

    def _left(self, state: NodeState, world: World) -> float:
        """Seconds until time alone changes something about a claim; what is due already is no reason to look again."""
        claim, pool = state.claim, world.pool(state.pool)
        if claim is None or claim.deleting:
            return LOOK
        left = [LOOK]
        if claim.expire_after is not None:
            left.append(claim.expire_after - self._clock.elapsed(claim.created))
        initialized = claim.conditions.get(names.INITIALIZED_CONDITION)
        since = self._pod_events.last(state) or (initialized.since if initialized is not None else None)
        if pool is not None and pool.consolidate_after is not None and since is not None:
            left.append(pool.consolidate_after - self._clock.elapsed(since))
        return min(each for each in left if each > 0)

    async def _attend(self, state: NodeState, claim: Claim, world: World) -> None:
        if interrupted(state):
            self._tell_interruption(state, claim)
            await self._end(state, claim, "interrupted")
        elif expired(claim, self._clock.elapsed):
            await self._end(state, claim, "expired")
        else:
            last = self._pod_events.last(state)
            due = self._pod_events.due(claim, last)
            found = changes(state, world, last, self._clock.elapsed)
            if found or due is not None:
                await self._hands.set_status(claim, found, due)

    def _tell_interruption(self, state: NodeState, claim: Claim) -> None:
        warned = "Spot interruption warning was triggered"
        ended = "Interruption triggered termination for the"
        self._hands.node_event(state.name, "SpotInterrupted", warned, warning=True)
        self._hands.claim_event(claim.name, "SpotInterrupted", warned, warning=True)
        self._hands.node_event(state.name, "TerminatingOnInterruption", f"{ended} Node", warning=True)
        self._hands.claim_event(claim.name, "TerminatingOnInterruption", f"{ended} NodeClaim", warning=True)

    async def _end(self, state: NodeState, claim: Claim, reason: str) -> None:
        await self._hands.delete_claim(claim)
        _log.info("Deleted claim", extra=kv(claim=claim.name, reason=reason))
        self._lost(reason, state)
