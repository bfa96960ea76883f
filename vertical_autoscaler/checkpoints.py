"""Checkpoints: the models' memory across restarts, as VerticalPodAutoscalerCheckpoint objects.

Owns reading them once at start, writing some each turn (those whose last writing is longest ago) and removing those
whose autoscaler is gone. Run by app.py after each turn of the recommender.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from client.client import Client, PatchType
from machinery import log
from machinery.clock import Clock
from machinery.errors import NotFound, StatusError
from machinery.log import kv
from machinery.meta import ObjectKey
from vertical_autoscaler.model import Model
from vertical_autoscaler.objects import CHECKPOINTS
from vertical_autoscaler.recommender import Recommender
from vertical_autoscaler.world import World

PER_TURN: Final = 10
"""Autoscalers whose checkpoints are written each minute."""
COLLECT: Final = 600.0
_log = log.get(__name__)


class Checkpoints:
    """One per process."""

    def __init__(self, client: Client, world: World, recommender: Recommender, clock: Clock) -> None:
        self._client = client
        self._world = world
        self._recommender = recommender
        self._clock = clock
        self._written: dict[ObjectKey, float] = {}
        self._collected = clock.monotonic()

    async def read(self) -> None:
        """Fill the models of what there is. Raises StatusError."""
        try:
            found = (await self._client.list(CHECKPOINTS)).items
        except NotFound:
            return  # the kind is not served yet: nothing was ever saved
        for each in found:
            spec, key = each.get("spec") or {}, _key(each)
            container = str(spec.get("containerName") or "")
            if self._world.vpas.lister.get(key) is None or not container:
                continue
            model = self._recommender.models.setdefault(key, Model())
            try:
                model.load(container, each.get("status") or {}, self._recommender.timeline)
            except (ValueError, TypeError, AttributeError) as error:
                _log.warning("Skipped a checkpoint", extra=kv(vpa=key, container=container, error=error))

    async def turn(self) -> None:
        """Write some, and remove what is left behind now and then. Failures are logged: the next turn tries again."""
        models = self._recommender.models
        self._written = {key: at for key, at in self._written.items() if key in models}
        try:
            for key in sorted(models, key=lambda each: self._written.get(each, float("-inf")))[:PER_TURN]:
                await self._write(key, models[key])
                self._written[key] = self._clock.monotonic()
            if self._clock.monotonic() - self._collected >= COLLECT:
                await self._collect()
                self._collected = self._clock.monotonic()
        except StatusError as error:
            _log.warning("Could not keep checkpoints", extra=kv(error=error.message))

    async def _write(self, key: ObjectKey, model: Model) -> None:
        for container, aggregate in model.aggregates.items():
            if not aggregate.samples:
                continue
            name = f"{key.name}-{container}"
            body: dict[str, Any] = {
                "apiVersion": CHECKPOINTS.group_version,
                "kind": CHECKPOINTS.kind,
                "metadata": {"name": name, "namespace": key.namespace},
                "spec": {"vpaObjectName": key.name, "containerName": container},
                "status": model.saved(container, self._recommender.timeline),
            }
            try:
                await self._client.patch(
                    CHECKPOINTS, name, {"status": body["status"]}, key.namespace, type=PatchType.MERGE
                )
            except NotFound:
                await self._client.create(body, resource=CHECKPOINTS)

    async def _collect(self) -> None:
        for each in (await self._client.list(CHECKPOINTS)).items:
            if self._world.vpas.lister.get(_key(each)) is None:
                metadata = each["metadata"]
                await self._client.delete(CHECKPOINTS, metadata["name"], metadata["namespace"], uid=metadata["uid"])


def _key(checkpoint: Mapping[str, Any]) -> ObjectKey:
    """Of its autoscaler."""
    namespace = (checkpoint.get("metadata") or {}).get("namespace") or ""
    return ObjectKey(namespace, str((checkpoint.get("spec") or {}).get("vpaObjectName") or ""))
