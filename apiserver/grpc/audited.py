"""The gRPC door's side of the audit log: every call as the REST request that it stands for.

Owns: the translation of a call into an event. Wraps the methods of a `ResourceService` once, at assembly, so that a
server without a policy pays nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from apiserver.audit.auditor import Auditor
from apiserver.audit.record import Head, Record
from apiserver.auth.attributes import Attributes
from apiserver.auth.gate import Gate
from apiserver.auth.user import UserInfo
from apiserver.grpc.service import ResourceService
from apiserver.registry.context import ANNOTATIONS
from machinery.errors import StatusError
from proto.api.v1 import resource_pb2 as pb

VERBS = {
    "get": "get",
    "list": "list",
    "create": "create",
    "update": "update",
    "patch": "patch",
    "delete": "delete",
    "delete_collection": "deletecollection",
}
_PEER: ContextVar[str] = ContextVar("peer of the call", default="")


def attributes_of(verb: str, ref: pb.ResourceRef) -> Attributes:
    """What is asked, as the REST path would say it."""
    parts = ["", "apis", ref.group, ref.version] if ref.group else ["", "api", ref.version]
    if ref.namespace:
        parts += ["namespaces", ref.namespace]
    parts += [part for part in (ref.resource, ref.name, ref.subresource) if part]
    return Attributes(
        path="/".join(parts),
        verb=verb,
        is_resource=True,
        group=ref.group,
        version=ref.version,
        resource=ref.resource,
        namespace=ref.namespace or (ref.name if ref.resource == "namespaces" else ""),
        name=ref.name,
        subresource=ref.subresource,
    )


def source_of(peer: str) -> list[str]:
    """The address in gRPC's `ipv4:10.0.0.1:4711` or `ipv6:[::1]:4711`."""
    family, _, rest = peer.partition(":")
    return [rest.rpartition(":")[0].strip("[]").replace("%5B", "").replace("%5D", "")] if family[:2] == "ip" else []


class _Calls:
    def __init__(self, auditor: Auditor, gate: Gate) -> None:
        self._auditor = auditor
        self._gate = gate

    def begin(self, verb: str, request: Any, user: UserInfo) -> Record | None:
        asked = attributes_of(verb, request.ref)
        verdict = self._auditor.verdict(user, asked)
        if not self._auditor.wants(verdict):
            return None
        uri = asked.path + ("?watch=true" if verb == "watch" else "")
        agent = user.name.removeprefix("system:").partition(":")[0]
        head = Head(str(uuid.uuid4()), uri, source_of(_PEER.get()), agent)
        record = self._auditor.record(verdict, user, asked, head)
        if self._gate.synced:
            record.decided(self._gate.decide(user, asked))
        ANNOTATIONS.set(record.annotations)
        return record

    def unary(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        verb = VERBS[name]

        async def call(request: Any, user: UserInfo) -> Any:
            record = self.begin(verb, request, user)
            if record is None:
                return await method(request, user)
            if verb in ("create", "update"):
                record.sent_raw(request.json)
            elif verb == "patch":
                record.sent_raw(request.patch)
            try:
                answer = await method(request, user)
            except StatusError as error:
                record.status(error.to_status())
                record.complete(error.code)
                raise
            except Exception as error:
                record.panicked(type(error).__name__)
                raise
            if isinstance(answer, pb.Object):
                record.answered(answer.json)
                record.named(answer.name)
            record.complete(201 if verb == "create" else 200)
            return answer

        return call

    def watch(self, method: Callable[..., AsyncIterator[bytes]], service: Any) -> Callable[..., AsyncIterator[bytes]]:
        async def call(request: pb.WatchRequest, context: Any) -> AsyncIterator[bytes]:
            try:
                record = self.begin("watch", request, service._user(context))
            except StatusError:
                record = None  # refused for who it is; the method says so
            if record is not None:
                record.started(200)
            try:
                async for message in method(request, context):
                    yield message
            finally:
                if record is not None:
                    record.complete(200)

        return call


def audit_calls(service: ResourceService, auditor: Auditor, gate: Gate) -> None:
    """Record the calls of a service. Must come before its handler is made."""
    calls = _Calls(auditor, gate)
    identify = service._user

    def user(context: Any) -> UserInfo:
        _PEER.set(context.peer() or "")
        return identify(context)

    replaced: dict[str, Any] = {name: calls.unary(name, getattr(service, name)) for name in VERBS}
    replaced |= {"_user": user, "watch": calls.watch(service.watch, service)}
    for name, method in replaced.items():
        setattr(service, name, method)
