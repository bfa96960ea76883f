# mypy: disable-error-code="no-any-return"
"""A transport that plays a script: what the API server would answer, step by step, with requests recorded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from machinery.errors import ServiceUnavailable, StatusError
from proto.api.v1 import resource_pb2 as pb

AWAY = ServiceUnavailable("connection refused")


def pod(name: str, version: int, namespace: str = "default", **labels: str) -> pb.Object:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": labels,
            "managedFields": [{"manager": "test"}],
        },
        "spec": {"containers": [], "nodeName": labels.get("node", "")},
    }
    return pb.Object(namespace=namespace, name=name, resource_version=version, json=msgspec.json.encode(body))


def page(version: int, *items: pb.Object, token: str = "") -> pb.ListResponse:
    return pb.ListResponse(resource_version=version, items=items, continue_token=token)


def event(kind: int, item: pb.Object) -> pb.WatchEvent:
    return pb.WatchEvent(type=kind, object=item)  # type: ignore[arg-type]


def added(item: pb.Object) -> pb.WatchEvent:
    return event(pb.EVENT_TYPE_ADDED, item)


def modified(item: pb.Object) -> pb.WatchEvent:
    return event(pb.EVENT_TYPE_MODIFIED, item)


def deleted(item: pb.Object) -> pb.WatchEvent:
    return event(pb.EVENT_TYPE_DELETED, item)


def bookmark(version: int) -> pb.WatchEvent:
    return event(pb.EVENT_TYPE_BOOKMARK, pb.Object(resource_version=version))


class ScriptedTransport:
    """Each call takes the next step of its verb: an answer or an exception. A watch takes a list of them."""

    HANG = object()

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.steps: dict[str, deque[Any]] = {}
        self.open_watches = 0

    def script(self, verb: str, *steps: Any) -> None:
        self.steps.setdefault(verb, deque()).extend(steps)

    def sent(self, kind: type[Any]) -> list[Any]:
        return [request for request in self.requests if isinstance(request, kind)]

    async def _next(self, verb: str, request: Any) -> Any:
        self.requests.append(request)
        await asyncio.sleep(0)
        steps = self.steps.get(verb)
        step = steps.popleft() if steps else AWAY
        if step is self.HANG:
            await asyncio.get_running_loop().create_future()
        if isinstance(step, StatusError):
            raise step
        return step(request) if callable(step) else step

    async def get(self, request: pb.GetRequest) -> pb.Object:
        return await self._next("get", request)

    async def list(self, request: pb.ListRequest) -> pb.ListResponse:
        return await self._next("list", request)

    async def create(self, request: pb.CreateRequest) -> pb.Object:
        return await self._next("create", request)

    async def update(self, request: pb.UpdateRequest) -> pb.Object:
        return await self._next("update", request)

    async def patch(self, request: pb.PatchRequest) -> pb.Object:
        return await self._next("patch", request)

    async def delete(self, request: pb.DeleteRequest) -> pb.DeleteResponse:
        return await self._next("delete", request)

    async def delete_collection(self, request: pb.DeleteCollectionRequest) -> pb.ListResponse:
        return await self._next("delete_collection", request)

    async def watch(self, request: pb.WatchRequest) -> AsyncIterator[pb.WatchBatch]:
        steps: Sequence[Any] = await self._next("watch", request)
        self.open_watches += 1
        try:
            for step in steps:
                if step is self.HANG:
                    await asyncio.get_running_loop().create_future()
                if isinstance(step, StatusError):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                    continue
                yield pb.WatchBatch(events=step if isinstance(step, list) else [step])
        finally:
            self.open_watches -= 1

    async def close(self) -> None:
        pass
