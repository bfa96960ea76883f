"""What belongs to nobody: machines without a claim, claims without a machine, machines that will never come.

Owns one pass over all of them, every ten seconds. Source: karpenter.sh, "NodeClaims" (garbage collection).
"""
# mypy: disable-error-code="union-attr"

from __future__ import annotations

from typing import Final

from client.client import Client
from client.events import WARNING, EventRecorder
from machinery import log
from machinery.clock import Clock
from machinery.errors import NotFound, StatusError
from machinery.log import kv
from nodepool_autoscaler import names
from nodepool_autoscaler.cluster import Cluster
from nodepool_autoscaler.objects import CLAIMS, NodeClaim, reference_to
from nodepool_autoscaler.provider import Machine, MachineNotFound, Provider, ProviderError

PERIOD: Final = 10.0
UNCLAIMED_FOR: Final = 30.0
_log = log.get(__name__)


class GarbageCollector:
    """Remembers only since when something looks wrong."""

    def __init__(
        self, client: Client, cluster: Cluster, provider: Provider, events: EventRecorder, clock: Clock
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._provider = provider
        self._events = events
        self._clock = clock
        self._since: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.pass_once()
            except (ProviderError, StatusError) as error:
                _log.warning("Did not collect", extra=kv(error=error))
            except Exception:  # noqa: BLE001  a defect in one pass must not be the end of all
                _log.exception("Pass failed")
            await self._clock.sleep(PERIOD)

    async def pass_once(self) -> None:
        """One look. Raises ProviderError and StatusError."""
        machines = await self._provider.machines()
        claims = self._cluster.all_claims()
        await self._unclaimed(machines, {each.metadata.uid or "" for each in claims})
        by_token = {each.token: each for each in machines}
        for claim in claims:
            if claim.metadata.deletionTimestamp is not None:
                continue
            machine = by_token.get(claim.metadata.uid or "")
            if machine is None:
                await self._without_machine(claim)
            elif machine.out_of_capacity and not claim.is_true(names.REGISTERED_CONDITION):
                await self._never_came(claim, machine)

    async def _unclaimed(self, machines: list[Machine], known: set[str]) -> None:
        """Machines whose claim nobody knows for a while: the cache may not show a new one yet."""
        now = self._clock.monotonic()
        lost = {each.name for each in machines if each.token not in known and not each.terminating}
        self._since = {name: self._since.get(name, now) for name in lost}
        for name, since in self._since.items():
            if now - since >= UNCLAIMED_FOR:
                _log.warning("Terminating a machine without a claim", extra=kv(machine=name))
                try:
                    await self._provider.terminate(name)
                except MachineNotFound:
                    continue

    async def _without_machine(self, claim: NodeClaim) -> None:
        """The cloud knows nothing of it; a node that is Ready tells otherwise, and what never registered has its own
        time limit."""
        if not claim.is_true(names.REGISTERED_CONDITION):
            return
        for node in self._cluster.nodes_of(claim):
            conditions = (node.status.conditions if node.status is not None else None) or ()
            if any(each.type == "Ready" and each.status == "True" for each in conditions):
                return
        _log.warning("Deleting a claim without a machine", extra=kv(claim=claim.name))
        await self._delete(claim)

    async def _never_came(self, claim: NodeClaim, machine: Machine) -> None:
        node_class = self._cluster.node_class(claim.spec.nodeClassRef.name)
        self._cluster.catalog.refuse(node_class is not None and node_class.hollow, [machine.key])
        told = f"NodeClaim {claim.name} event: {machine.problem}"
        self._events.event(reference_to(claim), WARNING, "InsufficientCapacityError", told)
        await self._delete(claim)

    async def _delete(self, claim: NodeClaim) -> None:
        try:
            await self._client.delete(CLAIMS, claim.name, uid=claim.metadata.uid)
        except NotFound:
            return
