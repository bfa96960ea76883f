"""Tells of claims that shall grow: upstream's persistentvolume-expander-controller, for storage that is not in-tree.

Owns the event that says who is waited for. The provisioner of the volume resizes it.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from typing import Final

from api import volumes as rules
from api.volumes import Claim
from client.client import key_of
from client.controller import DONE, Controller, Result
from client.events import NORMAL
from client.informer import EventHandler, Informer
from controller_manager.environment import Environment
from controller_manager.persistent_volume.writes import BOUND, phase_of
from machinery.meta import ObjectKey

COMPONENT: Final = "volume_expand"
WAITING: Final = "waiting for an external controller to expand this PVC"


def grows(claim: Claim) -> bool:
    """Whether a bound claim asks for more than it has."""
    if phase_of(claim) != BOUND:
        return False
    has = (claim.status.capacity or {}).get("storage")
    return has is not None and rules.requested(claim) > rules.size(has)


class ExpandController:
    """Reads a lister, writes events."""

    def __init__(self, env: Environment) -> None:
        self._events = env.recorder(COMPONENT)
        self._claims: Informer[Claim] = env.informers.informer(Claim)
        self.controller = Controller("volume-expand", self.reconcile, clock=env.clock, informers=[self._claims])
        self._claims.add_handler(EventHandler(lambda obj: None, self._changed))

    def _changed(self, old: Claim, new: Claim) -> None:
        if rules.requested(new) > rules.requested(old):
            self.controller.enqueue(key_of(new))

    async def reconcile(self, key: ObjectKey) -> Result:
        claim = self._claims.lister.get(key)
        if claim is not None and grows(claim):
            self._events.event(claim, NORMAL, "ExternalExpanding", WAITING)
        return DONE


def build(env: Environment) -> list[Controller]:
    return [ExpandController(env).controller]
