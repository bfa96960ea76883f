"""A registry on the memory store with the default plugins, and builders of small objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from api.resources import RESOURCES
from apiserver.admission.chain import default_plugins
from apiserver.auth.user import UserInfo
from apiserver.registry.store import Registry, RequestContext
from apiserver.storage.memory import MemoryStore
from machinery.clock import RealClock

Obj = dict[str, Any]


class Cluster:
    """Short names for what the tests do most."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.warnings: list[str] = []

    async def create(
        self, plural: str, obj: Obj, namespace: str = "team", *, group: str = "", dry: bool = False
    ) -> Obj:
        ctx = RequestContext(UserInfo("tester"), dry_run=dry)
        store = self.registry.resource(group, "v1", plural)
        try:
            answer: Obj = msgspec.json.decode(await store.create(ctx, namespace, obj))
        finally:
            self.warnings = ctx.warnings
        await store.sync()
        return answer

    async def patch(self, plural: str, name: str, patch: Obj, namespace: str = "team", *, sub: str = "") -> Obj:
        ctx = RequestContext(UserInfo("tester"))
        store = self.registry.resource("", "v1", plural)
        raw = await store.patch(
            ctx, namespace, name, "application/merge-patch+json", msgspec.json.encode(patch), subresource=sub
        )
        self.warnings = ctx.warnings
        await store.sync()
        answer: Obj = msgspec.json.decode(raw)
        return answer

    async def get(self, plural: str, name: str, namespace: str = "team") -> Obj:
        ctx = RequestContext(UserInfo("tester"))
        answer: Obj = msgspec.json.decode(await self.registry.resource("", "v1", plural).get(ctx, namespace, name))
        return answer


def a_pod(name: str, *containers: Obj, **spec: Any) -> Obj:
    """A pod; a container without name or image gets one."""
    filled = [{"name": f"c{i}", "image": "nginx", **each} for i, each in enumerate(containers or ({},))]
    return {"metadata": {"name": name}, "spec": {"containers": filled, **spec}}


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    registry = Registry(MemoryStore(), RealClock(), RESOURCES)
    registry.admission.extend(default_plugins(registry))
    task = asyncio.create_task(registry.run())
    await registry.wait_ready()
    made = Cluster(registry)
    for name in ("default", "team"):
        await made.create("namespaces", {"metadata": {"name": name}}, "")
        await made.create("serviceaccounts", {"metadata": {"name": "default"}}, name)
    yield made
    task.cancel()
    await asyncio.wait((task,))
