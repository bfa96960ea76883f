"""Follows FlowSchemas and PriorityLevelConfigurations, keeps the default ones, and tells which schema dangles.

Owns: the watches, the creation and reconciliation of defaults, the Dangling condition. Run by `apiserver.assembly` for
the life of the server; several servers on one store do the same work and agree.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from apiserver.auth.user import SYSTEM_API_SERVER
from apiserver.flowcontrol import defaults
from apiserver.flowcontrol.control import FlowControl
from apiserver.flowcontrol.defaults import AUTOUPDATE, GROUP, LEVELS, MANDATORY, SCHEMAS
from apiserver.registry.context import RequestContext, WatchOptions
from apiserver.registry.store import Registry
from apiserver.storage.entry import BOOKMARK, DELETED, Event
from machinery.clock import Clock
from machinery.errors import AlreadyExists, Conflict, NotFound, StatusError
from machinery.log import kv
from machinery.meta import rfc3339

RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)  # real seconds: this waits for the server's own store
RECONCILE_SECONDS = 60.0
MANAGER = "api-priority-and-fairness-config-producer-v1"
CONSUMER = "api-priority-and-fairness-config-consumer-v1"

log = logging.getLogger("apiserver.flowcontrol")
Obj = dict[str, Any]
_decode: Callable[[bytes], Obj] = msgspec.json.Decoder(dict[str, Any]).decode


def plan_default(wanted: Obj, found: Mapping[str, Any] | None) -> Obj | None:
    """What to write so that a default object is as it should be; None when it is, or a user keeps it otherwise."""
    if found is None:
        return wanted
    given = (found["metadata"].get("annotations") or {}).get(AUTOUPDATE)
    mandatory = wanted["metadata"]["name"] in MANDATORY
    if not mandatory and given is not None and given != "true":
        return None
    wanted = _with_own_share(wanted, found)
    if _covers(found.get("spec"), wanted["spec"]) and given == "true":
        return None
    meta = {**found["metadata"], "annotations": {**(found["metadata"].get("annotations") or {}), AUTOUPDATE: "true"}}
    return {**found, "metadata": meta, "spec": wanted["spec"]}


def _with_own_share(wanted: Obj, found: Mapping[str, Any]) -> Obj:
    """What the exempt level holds for itself and lends is the administrator's to say."""
    share = (found.get("spec") or {}).get("exempt")
    if "exempt" not in wanted["spec"] or not isinstance(share, dict):
        return wanted
    return {**wanted, "spec": {**wanted["spec"], "exempt": share}}


def _covers(found: Any, wanted: Any) -> bool:
    """Whether a stored value is the wanted one, defaulted fields aside."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return False
        extra = {key: value for key, value in found.items() if key not in wanted and value is not None}
        return all(_covers(found.get(key), value) for key, value in wanted.items()) and not extra
    if isinstance(wanted, list):
        same = isinstance(found, list) and len(found) == len(wanted)
        return same and all(_covers(here, there) for here, there in zip(found, wanted, strict=True))
    return bool(found == wanted)


def dangling(schema: Mapping[str, Any], levels: Mapping[str, Any], now: str) -> Obj | None:
    """The Dangling condition that a schema should get, None when it has it."""
    name = ((schema.get("spec") or {}).get("priorityLevelConfiguration") or {}).get("name") or ""
    here = name in levels
    text = f'This FlowSchema references the PriorityLevelConfiguration object named "{name}"'
    wanted = {
        "type": "Dangling",
        "status": "False" if here else "True",
        "reason": "Found" if here else "NotFound",
        "message": f"{text} and it exists" if here else f"{text} but there is no such object",
    }
    for condition in (schema.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Dangling":
            if all(condition.get(key) == value for key, value in wanted.items()):
                return None
            if condition.get("status") == wanted["status"]:
                return {**wanted, "lastTransitionTime": condition.get("lastTransitionTime") or now}
    return {**wanted, "lastTransitionTime": now}


class FlowControlFeed:
    """Two watches and the loop that keeps the defaults."""

    def __init__(self, registry: Registry, control: FlowControl, clock: Clock) -> None:
        self._registry = registry
        self._control = control
        self._clock = clock
        self._objects: dict[str, dict[str, Obj]] = {LEVELS: {}, SCHEMAS: {}}
        self._waiting = {LEVELS, SCHEMAS}
        self._synced = asyncio.Event()
        self._changed = asyncio.Event()
        self._made = asyncio.Event()

    @property
    def synced(self) -> bool:
        """The objects are known."""
        return self._synced.is_set()

    @property
    def ready(self) -> bool:
        """The defaults exist."""
        return self._made.is_set()

    async def wait_ready(self) -> None:
        await self._made.wait()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(LEVELS))
            group.create_task(self._follow(SCHEMAS))
            group.create_task(self._tell())
            group.create_task(self._keep())

    # What is stored.

    async def _follow(self, plural: str) -> None:
        failures = 0
        options = WatchOptions(allow_bookmarks=True, send_initial_events=True, resource_version_match="NotOlderThan")
        while True:
            try:
                context = RequestContext(SYSTEM_API_SERVER)
                async with self._registry.resource(GROUP, "v1", plural).watch(context, "", options) as watcher:
                    fresh: dict[str, Obj] | None = {}
                    async for batch in watcher:
                        failures = 0
                        for event in batch:
                            fresh = self._take(plural, event, fresh)
                        self._configure()
            except StatusError as error:
                if failures == 1:
                    log.warning("Lost a watch", extra=kv(resource=plural, error=error.message))
            await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
            failures += 1

    def _take(self, plural: str, event: Event, fresh: dict[str, Obj] | None) -> dict[str, Obj] | None:
        """Events up to the first bookmark replace what was known, later ones change it."""
        if event.type == BOOKMARK:
            if fresh is not None:
                self._objects[plural] = fresh
                self._waiting.discard(plural)
                if not self._waiting:
                    self._synced.set()
            return None
        known = self._objects[plural] if fresh is None else fresh
        name = event.key[1]
        if event.type == DELETED:
            known.pop(name, None)
        else:
            known[name] = _decode(event.raw)
        return fresh

    def _configure(self) -> None:
        if self._synced.is_set():
            self._control.configure(self._objects[LEVELS].values(), self._objects[SCHEMAS].values())
            self._changed.set()

    # What is written.

    async def _tell(self) -> None:
        """Keep the conditions of schemas true."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            now = rfc3339(self._clock.now())
            levels = self._objects[LEVELS]
            for name, schema in list(self._objects[SCHEMAS].items()):
                condition = dangling(schema, levels, now)
                if condition is not None:
                    await self._condition(name, schema, condition)

    async def _condition(self, name: str, schema: Obj, condition: Obj) -> None:
        config = {
            "apiVersion": schema["apiVersion"],
            "kind": schema["kind"],
            "metadata": {"name": name, "resourceVersion": schema["metadata"]["resourceVersion"]},
            "status": {"conditions": [condition]},
        }
        store = self._registry.resource(GROUP, "v1", SCHEMAS)
        context = RequestContext(SYSTEM_API_SERVER, field_manager=CONSUMER, force=True)
        try:
            await store.apply(context, "", name, config, subresource="status")
        except (Conflict, NotFound):
            return  # it has changed: the watch brings it again
        except StatusError as error:
            log.warning("Could not tell whether a FlowSchema dangles", extra=kv(name=name, error=error.message))

    async def _keep(self) -> None:
        """Create and reconcile the defaults, at the start and every minute."""
        await self._synced.wait()
        failures = 0
        while True:
            try:
                # Side by side: the store writes them to its disk together.
                async with asyncio.TaskGroup() as group:
                    for each in defaults.levels():
                        group.create_task(self._ensure(LEVELS, each))
                    for each in defaults.schemas():
                        group.create_task(self._ensure(SCHEMAS, each))
                self._made.set()
                failures = 0
                await self._clock.sleep(RECONCILE_SECONDS)
            except ExceptionGroup as errors:
                refused = errors.subgroup(StatusError)
                if refused is None:
                    raise
                log.warning("Could not keep the default flow control objects", extra=kv(error=refused.exceptions[0]))
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1

    async def _ensure(self, plural: str, wanted: Obj) -> None:
        name = wanted["metadata"]["name"]
        found = self._objects[plural].get(name)
        change = plan_default(wanted, found)
        if change is None:
            return
        store = self._registry.resource(GROUP, "v1", plural)
        context = RequestContext(SYSTEM_API_SERVER, field_manager=MANAGER)
        try:
            if found is None:
                await store.create(context, "", msgspec.json.decode(msgspec.json.encode(change)))
            else:
                await store.update(context, "", name, msgspec.json.decode(msgspec.json.encode(change)))
        except (AlreadyExists, Conflict, NotFound):
            return  # another server, or a user, was quicker: the next round looks again
