"""Node TTL: tells every kubelet, by an annotation, how long it may keep Secrets and ConfigMaps before it asks anew.

The larger the cluster the longer, in steps that overlap, so that a cluster at a step's edge does not change its mind
with every node. A node is written only when it came, changed or is written anyway: a new step reaches all of them with
their next heartbeats. Owns that annotation. Called by app.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from typing import Final, NamedTuple

from api.models import core_v1
from client.controller import DONE, Controller, Result
from client.informer import Informer
from controller_manager.environment import Environment
from machinery.errors import NotFound
from machinery.meta import ObjectKey

ANNOTATION: Final = "node.alpha.kubernetes.io/ttl"


class Step(NamedTuple):
    """Holds for clusters of `least` to `most` nodes."""

    least: int
    most: int | None
    seconds: int


STEPS: Final = (
    Step(0, 100, 0),
    Step(90, 500, 15),
    Step(450, 1000, 30),
    Step(900, 2000, 60),
    Step(1800, 10000, 300),
    Step(9000, None, 600),
)


def plan_step(step: int, nodes: int) -> int:
    """The number of the step for so many nodes, coming from `step`."""
    while (most := STEPS[step].most) is not None and nodes > most:
        step += 1
    while nodes < STEPS[step].least:
        step -= 1
    return step


class NodeTtlController:
    """Reads nodes, writes their annotation; remembers the step."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._nodes: Informer[core_v1.Node] = env.informers.informer(core_v1.Node)
        self._step = 0
        self.controller = Controller("ttl", self.reconcile, clock=env.clock, informers=[self._nodes])
        self.controller.watches(self._nodes)

    async def reconcile(self, key: ObjectKey) -> Result:
        self._step = plan_step(self._step, len(self._nodes.lister))
        node = self._nodes.lister.get(key)
        wanted = str(STEPS[self._step].seconds)
        if node is None or (node.metadata.annotations or {}).get(ANNOTATION) == wanted:
            return DONE
        try:
            await self._client.patch(core_v1.Node, key.name, {"metadata": {"annotations": {ANNOTATION: wanted}}})
        except NotFound:
            return DONE
        return DONE


def build(env: Environment) -> list[Controller]:
    return [NodeTtlController(env).controller]
