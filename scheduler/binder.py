"""The scheduler's writes: bindings and PodScheduled conditions, in bounded concurrency.

Owns when a write is sent and what its failure means to the caller (a callback). Never decides about pods. A decision
takes microseconds and a write milliseconds, so many writes are under way at once; when too many are, the scheduling
loop waits for room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from api.models import core_v1
from machinery import log
from machinery.clock import Clock
from machinery.errors import InternalError, NotFound, StatusError
from machinery.log import kv
from machinery.meta import rfc3339
from scheduler.framework.interface import BindPlugin, PreBindPlugin
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.framework.waiting import Rejected, WaitingPod

CONCURRENT_BINDINGS: Final = 64
CONCURRENT_CONDITIONS: Final = 8
WAITING: Final = "waiting on permit"
BINDING: Final = "binding rejected"
_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Binding:
    """A decided pod on its way. `held`: a Permit plugin lets it wait; `pre_bind`: plugins with something to do first.

    `on_failed` is told the error and at which stage it came.
    """

    info: PodInfo
    node: str
    snapshot: ClusterSnapshot
    held: WaitingPod | None
    pre_bind: Sequence[PreBindPlugin]
    before: Callable[[], Awaitable[None]]
    bind: Sequence[BindPlugin]
    on_bound: Callable[[], None]
    on_failed: Callable[[StatusError | Rejected, str], None]

    @property
    def is_slow(self) -> bool:
        """Whether it may wait for others, for minutes."""
        return self.held is not None or bool(self.pre_bind)


class BindPipeline:
    """At most `CONCURRENT_BINDINGS` at once; `submit` waits for room. Pods that wait for others wait aside."""

    def __init__(self, clock: Clock, concurrency: int = CONCURRENT_BINDINGS) -> None:
        self._clock = clock
        self._concurrency = concurrency
        self._queue: asyncio.Queue[Binding] = asyncio.Queue(concurrency)
        self._slow: dict[str, tuple[Binding, asyncio.Task[None] | None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self.under_way = 0

    async def submit(self, binding: Binding) -> None:
        if binding.is_slow:
            self._put_aside(binding)
        else:
            await self._queue.put(binding)

    def has_room(self) -> bool:
        return not self._queue.full()

    def submit_nowait(self, binding: Binding) -> None:
        if binding.is_slow:
            self._put_aside(binding)
        else:
            self._queue.put_nowait(binding)

    def _put_aside(self, binding: Binding) -> None:
        task = self._group.create_task(self._prepare(binding)) if self._group is not None else None
        self._slow[binding.info.uid] = (binding, task)

    def abandon(self, uid: str) -> None:
        """The pod is gone: stop waiting for whatever it waits for."""
        binding, task = self._slow.pop(uid, (None, None))
        if task is not None:
            task.cancel()
        if binding is not None:
            binding.on_failed(NotFound.of(resource="pods", name=binding.info.name), WAITING)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            for binding, task in tuple(self._slow.values()):
                if task is None:
                    self._put_aside(binding)
            for _ in range(self._concurrency):
                group.create_task(self._work())

    async def _prepare(self, binding: Binding) -> None:
        """What comes before the binding itself."""
        stage = WAITING
        try:
            if binding.held is not None:
                await binding.held.wait(self._clock)
            for plugin in binding.pre_bind:
                stage = f'running PreBind plugin "{plugin.name}"'
                await plugin.pre_bind(binding.info, binding.node, binding.snapshot)
        except (StatusError, Rejected) as error:
            self._slow.pop(binding.info.uid, None)
            binding.on_failed(error, stage)
        except Exception as error:  # noqa: BLE001  logged, and the pod is retried
            _log.exception("Preparing failed unexpectedly", extra=kv(pod=binding.info.key, node=binding.node))
            self._slow.pop(binding.info.uid, None)
            binding.on_failed(InternalError(str(error)), stage)
        else:
            self._slow.pop(binding.info.uid, None)
            await self._queue.put(binding)

    async def _work(self) -> None:
        while True:
            binding = await self._queue.get()
            self.under_way += 1
            try:
                await self._carry_out(binding)
            finally:
                self.under_way -= 1

    @staticmethod
    async def _carry_out(binding: Binding) -> None:
        try:
            await binding.before()
            for plugin in binding.bind:
                await plugin.bind(binding.info, binding.node)
        except StatusError as error:
            binding.on_failed(error, BINDING)
        except Exception as error:  # noqa: BLE001  logged, and the pod is retried
            _log.exception("Binding failed unexpectedly", extra=kv(pod=binding.info.key, node=binding.node))
            binding.on_failed(InternalError(str(error)), BINDING)
        else:
            binding.on_bound()


def find_condition(pod: core_v1.Pod, type_: str) -> core_v1.PodCondition | None:
    for condition in (pod.status.conditions if pod.status is not None else None) or ():
        if condition.type == type_:
            return condition
    return None


def plan_condition(
    pod: core_v1.Pod, reason: str, message: str, now: str, nominated: str | None = None
) -> dict[str, Any] | None:
    """The strategic merge patch that says why a pod is not scheduled, and where it may be soon (None: as before).

    None when the pod says so already.
    """
    known = find_condition(pod, "PodScheduled")
    condition: dict[str, Any] = {
        "type": "PodScheduled",
        "status": "False",
        "reason": reason,
        "message": message,
    }
    generation = pod.metadata.generation if pod.metadata is not None else None
    if generation:
        condition["observedGeneration"] = generation
    status: dict[str, Any] = {}
    if nominated is not None and nominated != ((pod.status.nominatedNodeName if pod.status else None) or ""):
        status["nominatedNodeName"] = nominated or None
    if known is None or known.status != "False":
        condition["lastProbeTime"] = None
        condition["lastTransitionTime"] = now
        status["conditions"] = [condition]
    elif known.reason != reason or known.message != message or (known.observedGeneration or None) != generation:
        status["conditions"] = [condition]
    return {"status": status} if status else None


PatchStatus = Callable[[PodInfo, dict[str, Any]], Awaitable[object]]


class ConditionWriter:
    """Writes the newest condition of each pod; one that is overtaken before its turn is never sent."""

    def __init__(self, clock: Clock, patch: PatchStatus, concurrency: int = CONCURRENT_CONDITIONS) -> None:
        self._clock = clock
        self._patch = patch
        self._concurrency = concurrency
        self._pending: dict[str, tuple[PodInfo, dict[str, Any]]] = {}
        self._sending: dict[str, asyncio.Event] = {}
        self._wake = asyncio.Semaphore(0)

    def failed(self, info: PodInfo, reason: str, message: str, nominated: str | None = None) -> None:
        """Say that the pod could not be scheduled, and which node it was promised."""
        self._write(info, plan_condition(info.pod, reason, message, rfc3339(self._clock.now()), nominated))

    def displaced(self, info: PodInfo) -> None:
        """Take back what the pod was promised."""
        self._write(info, {"status": {"nominatedNodeName": None}})

    def _write(self, info: PodInfo, patch: dict[str, Any] | None) -> None:
        if patch is None:
            self._pending.pop(info.uid, None)
            return
        if info.uid not in self._pending:
            self._wake.release()
        self._pending[info.uid] = (info, patch)

    def forget(self, uid: str) -> None:
        """The pod is scheduled or gone: what was to be said is no longer true."""
        self._pending.pop(uid, None)

    async def settle(self, uid: str) -> None:
        """Before a binding: drop what is not sent yet and wait for what is, lest it overwrite PodScheduled=True."""
        self._pending.pop(uid, None)
        sent = self._sending.get(uid)
        if sent is not None:
            await sent.wait()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self._wake.acquire()
            uid = next((uid for uid in self._pending if uid not in self._sending), None)
            if uid is None:
                continue
            info, patch = self._pending.pop(uid)
            sent = self._sending[uid] = asyncio.Event()
            try:
                await self._patch(info, patch)
            except StatusError as error:
                # The next attempt says it again; a pod that is gone needs no condition.
                _log.debug("Lost a pod condition", extra=kv(pod=info.key, error=error.message))
            finally:
                sent.set()
                del self._sending[uid]
                if uid in self._pending:
                    self._wake.release()
