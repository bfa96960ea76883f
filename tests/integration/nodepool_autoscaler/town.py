"""The site with a scheduler and workloads: pods come back elsewhere when their node goes."""

from __future__ import annotations

import contextlib
from typing import Any

from api.models import core_v1, meta_v1, policy_v1
from nodepool_autoscaler import names
from nodepool_autoscaler.objects import NODE_POOLS
from tests.harness.apiserver import RunningApiServer
from tests.integration.nodepool_autoscaler.site import Site, pool, until
from tests.integration.scheduler.cluster import running_scheduler
from tests.unit.scheduler.objects import pod as pod_object


class Town(Site):
    """`run` says how many pods of a workload there shall be; `notes` are the annotations of pods to come."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.notes: dict[str, str] = {}
        self._wanted: dict[str, tuple[int, str]] = {}
        self._made = 0

    def beside(self, server: RunningApiServer) -> contextlib.AbstractAsyncContextManager[object]:
        return running_scheduler(server)

    async def add_pool(self, **fields: Any) -> None:
        """That may disrupt all of its nodes at once."""
        disruption = {"consolidateAfter": "0s", "budgets": [{"nodes": "100%"}], **fields.pop("disruption", {})}
        await self.client.create(pool(disruption=disruption, **fields), resource=NODE_POOLS)

    async def run(self, app: str, count: int, cpu: str = "1") -> None:
        """So many pods; returns once each has a node."""
        self._wanted[app] = (count, cpu)
        await until(lambda: self.runs(app, count), f"{count} pods of {app} run")

    async def runs(self, app: str, count: int) -> bool:
        there = await self.pods(app)
        return len(there) == count and all(each.spec is not None and each.spec.nodeName for each in there)

    async def pods(self, app: str) -> list[core_v1.Pod]:
        """Those that stay."""
        found = (await self.client.list(core_v1.Pod, "default")).items
        return [
            each
            for each in found
            if each.metadata is not None
            and (each.metadata.labels or {}).get("app") == app
            and each.metadata.deletionTimestamp is None
        ]

    async def budget(self, app: str, least: int) -> None:
        """A PodDisruptionBudget, with the status that its controller would give it."""
        made = policy_v1.PodDisruptionBudget(
            metadata=meta_v1.ObjectMeta(name=app, namespace="default"),
            spec=policy_v1.PodDisruptionBudgetSpec(
                minAvailable=least, selector=meta_v1.LabelSelector(matchLabels={"app": app})
            ),
        )
        await self.client.create(made)
        status = {"currentHealthy": least, "desiredHealthy": least, "expectedPods": least, "observedGeneration": 1}
        patch = {"status": {**status, "disruptionsAllowed": self._wanted[app][0] - least}}
        await self.client.patch(policy_v1.PodDisruptionBudget, app, patch, "default", subresource="status")

    async def types(self) -> list[str]:
        """Of all machines."""
        return sorted(each.key[0] for each in self.provider.there.values())

    async def left(self, *types: str) -> None:
        """Wait until exactly these machines are left, all of them as nodes."""

        async def true() -> bool:
            ready = [each for each in await self.claims() if each.is_true(names.INITIALIZED_CONDITION)]
            return await self.types() == sorted(types) and len(ready) == len(await self.claims()) == len(types)

        await until(true, f"left are {', '.join(types) or 'no machines'}")

    # --- the controllers of workloads --------------------------------------------------------------------------------

    async def _beat(self) -> None:
        await super()._beat()
        for app, (count, cpu) in self._wanted.items():
            there = await self.pods(app)
            for _ in range(count - len(there)):
                self._made += 1
                made = pod_object(f"{app}-{self._made}", {"cpu": cpu}, labels={"app": app})
                assert made.metadata is not None
                made.metadata.uid = None
                made.metadata.annotations = self.notes or None
                await self.client.create(made)
            for pod in there[count:]:
                assert pod.metadata is not None and pod.metadata.name is not None
                await self.client.delete(core_v1.Pod, pod.metadata.name, "default", grace_period_seconds=0)
