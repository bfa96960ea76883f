"""The cloud's loop: look at the machines, let the core decide, carry out, remember.

Owns time and tasks. Decides nothing. A look that fails changes nothing: the last good plan holds until the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from cloud.core import Core, Effect, Told
from cloud.machines import MachineError, Machines, NoCapacity, Order
from cloud.model import Health
from cloud.store import Store
from machinery import log
from machinery.clock import Clock
from machinery.log import kv

PERIOD: Final = 2.0  # cluster seconds between looks
SHORTEST: Final = 0.2  # real seconds: looking costs the supervisor something, however fast time runs
AT_ONCE: Final = 4  # machines that are made or taken away side by side
_log = log.get(__name__)


class Engine:
    """Runs a core. `wake` shortens the wait, after a request."""

    def __init__(self, core: Core, machines: Machines, store: Store, clock: Clock) -> None:
        self.core = core
        self._machines = machines
        self._store = store
        self._clock = clock
        self._wanted = asyncio.Event()
        self._busy: set[str] = set()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._failing = False
        self.seen: dict[str, Health] = {}
        self.looked = False
        self.on_change: Callable[[list[Told]], None] = lambda told: None
        """Called after every pass, with what is to be told about nodes."""

    def now(self) -> float:
        """Cluster seconds since the epoch."""
        return self._clock.now().timestamp() * self._clock.scale

    def wake(self) -> None:
        """Something was asked for: look soon."""
        self.save()
        self._wanted.set()

    async def run(self) -> None:
        """Until cancelled."""
        period = max(PERIOD, SHORTEST * self._clock.scale)
        async with asyncio.TaskGroup() as group:
            while True:
                await self.turn(group)
                await self._pause(period)

    async def _pause(self, seconds: float) -> None:
        timer = self._clock.call_later(seconds, self._wanted.set)
        try:
            await self._wanted.wait()
        finally:
            timer.cancel()
        self._wanted.clear()

    async def turn(self, group: asyncio.TaskGroup) -> None:
        """One pass; what is to be done is done in tasks of `group`."""
        now = self.now()
        try:
            self.seen = await self._machines.look()
        except MachineError as error:
            if not self._failing:
                _log.warning("Lost sight of the machines", extra=kv(error=error))
            self._failing = True
            return
        self._failing = False
        self.looked = True
        for effect in self.core.tick(now, self.seen):
            if effect.instance not in self._busy:
                self._busy.add(effect.instance)
                group.create_task(self._carry_out(effect))
        self.save()
        told, self.core.told = self.core.told, []
        self.on_change(told)

    async def _carry_out(self, effect: Effect) -> None:
        try:
            async with self._slots:
                await self._act(effect)
        except MachineError as error:
            _log.warning("Failed", extra=kv(verb=effect.verb, instance=effect.instance, error=error))
            self.core.failed(effect, self.now(), str(error), out_of_resources=isinstance(error, NoCapacity))
        else:
            _log.info("Done", extra=kv(verb=effect.verb, instance=effect.instance))
            self.core.done(effect, self.now())
        finally:
            self._busy.discard(effect.instance)
        self.wake()

    async def _act(self, effect: Effect) -> None:
        state = self.core.state
        instance = state.instances[effect.instance]
        match effect.verb:
            case "launch":
                group = state.group_of(instance)
                if group is None or instance.phase != "launching":
                    return  # dismissed while it waited for its turn; what follows takes it away
                await self._machines.launch(Order(instance, group, state.types[instance.type]))
            case "terminate":
                await self._machines.terminate(instance)
            case "kill":
                await self._machines.kill(instance)

    def save(self) -> None:
        """Write the state down, when it differs from what is written."""
        try:
            self._store.save(self.core.state)
        except OSError as error:  # a full disk: what is planned is still carried out, and written when there is room
            _log.error("Could not save the state", extra=kv(error=error))
