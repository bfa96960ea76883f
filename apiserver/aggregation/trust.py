"""The ConfigMap by which aggregated servers learn whom to believe, kept as it must be.

Owns: `kube-system/extension-apiserver-authentication` for the life of the server: what somebody deletes of it comes
back, what others add stays. Run by `aggregation.aggregator`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from apiserver.aggregation.follow import follow
from apiserver.aggregation.identity import CONFIG_MAP, FrontProxy
from apiserver.auth.user import SYSTEM_API_SERVER
from apiserver.registry.context import RequestContext
from apiserver.registry.store import Registry
from apiserver.storage.entry import DELETED, Event
from apiserver.storage.form import decode
from machinery.errors import AlreadyExists, NotFound, StatusError
from machinery.log import kv
from machinery.meta import ObjectKey

log = logging.getLogger("apiserver.aggregation")

CONFIG_MAPS = ("", "v1", "configmaps")
KEY = ObjectKey("kube-system", CONFIG_MAP)
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
RETRY_SECONDS = 1.0  # real: this waits for the server's own store
Obj = dict[str, Any]


def plan(found: Obj | None, wanted: Obj) -> Obj | None:
    """What has to be written, or None when all is well."""
    if found is None:
        return wanted
    data = dict(found.get("data") or {})
    for key, value in wanted["data"].items():
        data[key] = union(data.get(key) or "", value)
    return None if data == found.get("data") else {**found, "data": data}


def union(found: str, wanted: str) -> str:
    """Certificates or names of both: servers of one cluster may differ while authorities are exchanged."""
    blocks = _PEM.findall(wanted)
    if blocks:
        known = _PEM.findall(found)
        missing = [block for block in blocks if block not in known]
        return "".join(f"{block}\n" for block in (*known, *missing)) if missing else found
    try:
        names = msgspec.json.decode(found.encode(), type=list[str])
    except msgspec.MsgspecError:
        return wanted
    missing = [name for name in msgspec.json.decode(wanted.encode(), type=list[str]) if name not in names]
    return json.dumps([*names, *missing]) if missing else found


class TrustKeeper:
    """Keeps the ConfigMap."""

    def __init__(self, registry: Registry, front: FrontProxy) -> None:
        self._registry = registry
        self._front = front
        self._found: Obj | None = None
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(self._registry, CONFIG_MAPS, self._replace, self._apply))
            group.create_task(self._keep())

    def _replace(self, events: Sequence[Event]) -> None:
        self._found = None
        for event in events:
            self._apply(event)
        self._wake.set()

    def _apply(self, event: Event) -> None:
        if event.key == KEY:
            self._found = None if event.type == DELETED else decode(event.raw)
            self._wake.set()

    async def _keep(self) -> None:
        wanted = self._front.config_map()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if plan(self._found, wanted) is None:
                continue
            try:
                await self._write(wanted)
            except StatusError as error:
                log.warning("Could not tell whom to believe", extra=kv(error=error.message))
                await asyncio.sleep(RETRY_SECONDS)
                self._wake.set()

    async def _write(self, wanted: Obj) -> None:
        store = self._registry.resource(*CONFIG_MAPS)
        context = RequestContext(SYSTEM_API_SERVER, field_manager="kube-apiserver", user_agent="kube-apiserver")
        try:
            await store.mutate(
                context,
                KEY.namespace,
                KEY.name,
                lambda current: plan(current, wanted) or current,
                tracker=store.tracker,
            )
        except NotFound:
            try:
                await store.create(context, KEY.namespace, {**wanted, "metadata": dict(wanted["metadata"])})
            except AlreadyExists:
                return
