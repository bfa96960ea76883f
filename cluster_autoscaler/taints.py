"""The marks that the autoscaler leaves on nodes: on their way out, and candidates for it.

Owns the writing of both taints and of the cordon. Raises StatusError.
"""
# mypy: disable-error-code="union-attr"

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from api.models import core_v1
from client.client import Client, PatchType
from cluster_autoscaler import node_facts as facts
from machinery.clock import Clock
from machinery.errors import Conflict, NotFound

TRIES: Final = 5


class Taints:
    """Writes, with the version it read, so that no other hand's taint is lost."""

    def __init__(self, client: Client, clock: Clock, cordon: bool) -> None:
        self._client = client
        self._clock = clock
        self._cordon = cordon

    async def mark_deleted(self, name: str) -> None:
        """No new pod shall come."""
        await self._set(name, facts.TO_BE_DELETED, "NoSchedule", True, self._cordon)

    async def unmark_deleted(self, name: str) -> None:
        """It stays after all."""
        await self._set(name, facts.TO_BE_DELETED, "NoSchedule", False, False if self._cordon else None)

    async def mark_candidate(self, name: str) -> None:
        """Better no new pod."""
        await self._set(name, facts.CANDIDATE, "PreferNoSchedule", True, None)

    async def unmark_candidate(self, name: str) -> None:
        await self._set(name, facts.CANDIDATE, "PreferNoSchedule", False, None)

    async def clean(self, nodes: Iterable[core_v1.Node]) -> None:
        """What an earlier process left behind."""
        for node in nodes:
            name = facts.name(node)
            if facts.has_taint(node, facts.TO_BE_DELETED):
                await self.unmark_deleted(name)
            if facts.has_taint(node, facts.CANDIDATE):
                await self.unmark_candidate(name)

    async def _set(self, name: str, key: str, effect: str, wanted: bool, unschedulable: bool | None) -> None:
        for attempt in range(TRIES):
            try:
                node = await self._client.get(core_v1.Node, name)
            except NotFound:
                if wanted:
                    raise
                return
            before: Sequence[core_v1.Taint] = (node.spec.taints if node.spec is not None else None) or ()
            after: list[dict[str, Any]] = [_as_dict(each) for each in before if each.key != key]
            if wanted:
                since = str(int(self._clock.now().timestamp()))
                after.append({"key": key, "value": since, "effect": effect})
            spec: dict[str, Any] = {"taints": after or None}
            if unschedulable is not None:
                spec["unschedulable"] = unschedulable or None
            patch = {"metadata": {"resourceVersion": node.metadata.resourceVersion}, "spec": spec}
            try:
                await self._client.patch(core_v1.Node, name, patch, type=PatchType.MERGE)
                return
            except Conflict:
                if attempt == TRIES - 1:
                    raise


def _as_dict(taint: core_v1.Taint) -> dict[str, Any]:
    told: dict[str, Any] = {"key": taint.key, "effect": taint.effect}
    if taint.value:
        told["value"] = taint.value
    if taint.timeAdded is not None:
        told["timeAdded"] = taint.timeAdded.strftime("%Y-%m-%dT%H:%M:%SZ")
    return told
