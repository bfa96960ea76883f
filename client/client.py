"""The typed client: one request to the API server at a time.

Owns: building requests, typing answers, remembering what was written so that a controller can wait for its caches.
Never: retries (loops do, with their own back-off), caches, knows a kind's rules. Used by every component.

A kind is a model class (typed objects), an `api.resources.Resource` (plain dicts) or a `View` (a resource read as a
smaller type).
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, overload

import msgspec

from api import codec
from api.resources import Resource
from client.kinds import Target, Unstructured, View, parent_of, resolve, resource_of
from client.transport import GrpcTransport, Transport
from machinery.clock import Clock
from machinery.meta import ObjectKey
from machinery.tls import KeyPair
from proto.api.v1 import resource_pb2 as pb

T = TypeVar("T")


class PatchType(Enum):
    """The content types of a patch."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class ListResult(NamedTuple, Generic[T]):
    """One page of a list."""

    items: list[T]
    resource_version: str
    continue_: str = ""


class WatchEvent(NamedTuple, Generic[T]):
    """ADDED, MODIFIED, DELETED with the object, or BOOKMARK (object is None; only the version counts)."""

    type: str
    object: T | None
    resource_version: str


Batch = list[WatchEvent[T]]
Patch = dict[str, Any] | list[Any]


class Write(NamedTuple):
    """A write this process made: a cache has caught up when it is at `revision` and, if `gone`, lost the object."""

    resource: Resource
    key: ObjectKey
    revision: int
    gone: bool = False


_recorder: ContextVar[list[Write] | None] = ContextVar("writes", default=None)

EVENT_TYPES = {
    pb.EVENT_TYPE_ADDED: "ADDED",
    pb.EVENT_TYPE_MODIFIED: "MODIFIED",
    pb.EVENT_TYPE_DELETED: "DELETED",
    pb.EVENT_TYPE_BOOKMARK: "BOOKMARK",
}


@contextmanager
def recorded_writes() -> Iterator[list[Write]]:
    """Collect every write made inside the block, by child tasks too (KEP-5647: read your own writes)."""
    writes: list[Write] = []
    token = _recorder.set(writes)
    try:
        yield writes
    finally:
        _recorder.reset(token)


class Client:
    """All verbs over one transport. Raises machinery.errors.StatusError; ServiceUnavailable if nothing answers."""

    def __init__(self, transport: Transport, *, field_manager: str = "") -> None:
        self._transport = transport
        self._field_manager = field_manager

    @classmethod
    def connect(cls, target: str, pair: KeyPair | None = None, *, field_manager: str = "") -> Client:
        """A client over gRPC to host:port or unix:path; connects lazily and reconnects by itself."""
        from machinery import grpc as machinery_grpc

        return cls(GrpcTransport(machinery_grpc.channel(target, pair)), field_manager=field_manager)

    async def close(self) -> None:
        await self._transport.close()

    @overload
    async def get(
        self, kind: Resource, name: str, namespace: str | None = ..., *, subresource: str = ...
    ) -> Unstructured: ...
    @overload
    async def get(
        self, kind: type[T] | View[T], name: str, namespace: str | None = ..., *, subresource: str = ...
    ) -> T: ...
    async def get(self, kind: Any, name: str, namespace: str | None = None, *, subresource: str = "") -> Any:
        """A live read of one object."""
        target = resolve(kind)
        request = pb.GetRequest(ref=_ref(target.resource, namespace, name, subresource))
        return target.decode((await self._transport.get(request)).json)

    @overload
    async def list(
        self,
        kind: Resource,
        namespace: str | None = ...,
        *,
        label_selector: str = ...,
        field_selector: str = ...,
        limit: int = ...,
        continue_: str = ...,
        resource_version: str = ...,
    ) -> ListResult[Unstructured]: ...
    @overload
    async def list(
        self,
        kind: type[T] | View[T],
        namespace: str | None = ...,
        *,
        label_selector: str = ...,
        field_selector: str = ...,
        limit: int = ...,
        continue_: str = ...,
        resource_version: str = ...,
    ) -> ListResult[T]: ...
    async def list(
        self,
        kind: Any,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_: str = "",
        resource_version: str = "",
    ) -> ListResult[Any]:
        """All objects of a kind, or one page of them (`limit`, `continue_`)."""
        target = resolve(kind)
        answer = await self.list_raw(
            target,
            namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            limit=limit,
            continue_=continue_,
            resource_version=resource_version,
        )
        items = [target.decode(item.json) for item in answer.items]
        return ListResult(items, str(answer.resource_version), answer.continue_token)

    async def list_raw(
        self,
        target: Target[Any],
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_: str = "",
        resource_version: str = "",
    ) -> pb.ListResponse:
        """A list as it came: keys and revisions beside undecoded bytes (for informers)."""
        return await self._transport.list(
            pb.ListRequest(
                ref=_ref(target.resource, namespace),
                label_selector=label_selector,
                field_selector=field_selector,
                limit=limit,
                continue_token=continue_,
                resource_version=resource_version,
            )
        )

    async def create(
        self,
        obj: T,
        *,
        namespace: str | None = None,
        name: str = "",
        subresource: str = "",
        dry_run: bool = False,
        resource: Resource | None = None,
    ) -> T:
        """Create the object. With `subresource`, `name` is the parent's, whose kind follows from the subresource's.

        `resource` is what the object is, for kinds that are not built in.
        """
        if resource is None:
            resource = parent_of(obj, subresource) if subresource else resource_of(obj)
        namespace = namespace or _namespace_of(obj)
        request = pb.CreateRequest(
            ref=_ref(resource, namespace, name, subresource), json=_encode(obj), options=self._options(dry_run)
        )
        answer = await self._transport.create(request)
        if not dry_run and not subresource:
            self._record(resource, answer)
        return _decode_like(obj, answer.json)

    async def create_subresource(self, kind: Any, name: str, namespace: str | None, subresource: str, obj: T) -> T:
        """POST to a subresource of one object, such as a Binding to `binding` of a pod."""
        resource = resolve(kind).resource
        request = pb.CreateRequest(
            ref=_ref(resource, namespace, name, subresource), json=_encode(obj), options=self._options(False)
        )
        answer = await self._transport.create(request)
        return _decode_like(obj, answer.json)

    async def update(self, obj: T, *, subresource: str = "", resource: Resource | None = None) -> T:
        """Replace the object; its metadata.resourceVersion, if set, must be the stored one (Conflict otherwise)."""
        resource = resource or resource_of(obj)
        key = key_of(obj)
        request = pb.UpdateRequest(
            ref=_ref(resource, key.namespace, key.name, subresource), json=_encode(obj), options=self._options(False)
        )
        answer = await self._transport.update(request)
        self._record(resource, answer)
        return _decode_like(obj, answer.json)

    @overload
    async def patch(
        self,
        kind: Resource,
        name: str,
        patch: Patch,
        namespace: str | None = ...,
        *,
        type: PatchType = ...,
        subresource: str = ...,
        resource_version: str | None = ...,
    ) -> Unstructured: ...
    @overload
    async def patch(
        self,
        kind: type[T] | View[T],
        name: str,
        patch: Patch,
        namespace: str | None = ...,
        *,
        type: PatchType = ...,
        subresource: str = ...,
        resource_version: str | None = ...,
    ) -> T: ...
    async def patch(
        self,
        kind: Any,
        name: str,
        patch: Patch,
        namespace: str | None = None,
        *,
        type: PatchType = PatchType.MERGE,
        subresource: str = "",
        resource_version: str | None = None,
    ) -> Any:
        """Change parts of an object; `resource_version` makes it conditional (dict patches only)."""
        target = resolve(kind)
        if resource_version is not None and isinstance(patch, dict):
            patch = {**patch, "metadata": {**(patch.get("metadata") or {}), "resourceVersion": resource_version}}
        request = pb.PatchRequest(
            ref=_ref(target.resource, namespace, name, subresource),
            patch_type=type.value,
            patch=msgspec.json.encode(patch),
            force=type is PatchType.APPLY,
            options=self._options(False),
        )
        answer = await self._transport.patch(request)
        self._record(target.resource, answer)
        return target.decode(answer.json)

    async def delete(
        self,
        kind: Any,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period_seconds: int | None = None,
        propagation_policy: str | None = None,
    ) -> None:
        """Delete one object; `uid` and `resource_version` are preconditions (Conflict if they do not hold)."""
        resource = resolve(kind).resource
        options = pb.DeleteOptions(
            uid=uid or "",
            resource_version=resource_version or "",
            propagation_policy=propagation_policy or "",
            grace_period_seconds=grace_period_seconds,
        )
        answer = await self._transport.delete(pb.DeleteRequest(ref=_ref(resource, namespace, name), options=options))
        revision = answer.object.resource_version if answer.HasField("object") else 0
        writes = _recorder.get()
        if writes is not None:
            writes.append(Write(resource, ObjectKey(_scope(resource, namespace), name), revision, answer.deleted))

    async def delete_collection(
        self, kind: Any, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> int:
        """Delete everything that matches; returns how many objects were deleted or marked."""
        request = pb.DeleteCollectionRequest(
            ref=_ref(resolve(kind).resource, namespace), label_selector=label_selector, field_selector=field_selector
        )
        return len((await self._transport.delete_collection(request)).items)

    @overload
    def watch(
        self,
        kind: Resource,
        namespace: str | None = ...,
        *,
        resource_version: str,
        label_selector: str = ...,
        field_selector: str = ...,
    ) -> AsyncIterator[Batch[Unstructured]]: ...
    @overload
    def watch(
        self,
        kind: type[T] | View[T],
        namespace: str | None = ...,
        *,
        resource_version: str,
        label_selector: str = ...,
        field_selector: str = ...,
    ) -> AsyncIterator[Batch[T]]: ...
    async def watch(
        self,
        kind: Any,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[Batch[Any]]:
        """Batches of changes after `resource_version`. Raises Gone when that is too old: list again."""
        target = resolve(kind)
        async for batch in self.watch_raw(
            target,
            namespace,
            resource_version=resource_version,
            label_selector=label_selector,
            field_selector=field_selector,
        ):
            yield [
                WatchEvent(
                    EVENT_TYPES.get(event.type, "UNSPECIFIED"),
                    target.decode(event.object.json) if event.object.json else None,
                    str(event.object.resource_version),
                )
                for event in batch.events
            ]

    def watch_raw(
        self,
        target: Target[Any],
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[pb.WatchBatch]:
        """A watch as it came (for informers)."""
        return self._transport.watch(
            pb.WatchRequest(
                ref=_ref(target.resource, namespace),
                resource_version=resource_version,
                label_selector=label_selector,
                field_selector=field_selector,
                bookmarks=True,
            )
        )

    def _options(self, dry_run: bool) -> pb.WriteOptions:
        return pb.WriteOptions(dry_run=dry_run, field_manager=self._field_manager)

    @staticmethod
    def _record(resource: Resource, answer: pb.Object) -> None:
        writes = _recorder.get()
        if writes is not None:
            writes.append(Write(resource, ObjectKey(answer.namespace, answer.name), answer.resource_version))


def key_of(obj: Any) -> ObjectKey:
    """Namespace and name of a typed or unstructured object."""
    if isinstance(obj, dict):
        metadata = obj.get("metadata") or {}
        return ObjectKey(metadata.get("namespace") or "", metadata.get("name") or "")
    return ObjectKey(obj.metadata.namespace or "", obj.metadata.name or "")


def _namespace_of(obj: Any) -> str:
    if isinstance(obj, dict):
        return (obj.get("metadata") or {}).get("namespace") or ""
    return (obj.metadata.namespace or "") if obj.metadata is not None else ""


def _scope(resource: Resource, namespace: str | None) -> str:
    return (namespace or "") if resource.namespaced else ""


def _ref(resource: Resource, namespace: str | None = None, name: str = "", subresource: str = "") -> pb.ResourceRef:
    return pb.ResourceRef(
        group=resource.group,
        version=resource.version,
        resource=resource.plural,
        namespace=_scope(resource, namespace),
        name=name,
        subresource=subresource,
    )


def _encode(obj: Any) -> bytes:
    if not isinstance(obj, dict) and obj.kind is None:
        resource = resource_of(obj)
        obj.apiVersion, obj.kind = resource.group_version, resource.kind
    return codec.encode(obj)


class _Kind(msgspec.Struct):
    kind: str = ""


_decode_kind = msgspec.json.Decoder(_Kind).decode


def _decode_like(obj: T, raw: bytes) -> T:
    """The answer as what was sent; a bare Status (bindings, evictions) tells nothing more than that it worked."""
    if not raw or _decode_kind(raw).kind == "Status":
        return obj
    if isinstance(obj, dict):
        decoded: T = msgspec.json.decode(raw)
        return decoded
    typed: T = codec.decode(raw, type(obj))
    return typed


def add_client_flags(parser: argparse.ArgumentParser) -> None:
    """The flags by which every component finds the API server."""
    group = parser.add_argument_group("API server")
    group.add_argument("--api-server", required=True, metavar="HOST:PORT", help="gRPC door of the API server")
    group.add_argument("--ca", type=Path, help="CA certificate that signed the API server's (PEM)")
    group.add_argument("--cert", type=Path, help="client certificate: who this component is (PEM)")
    group.add_argument("--key", type=Path, help="key of the client certificate (PEM)")


def client_from_args(args: argparse.Namespace, clock: Clock | None = None, *, field_manager: str = "") -> Client:
    """The client that the flags of `add_client_flags` describe; plaintext when no CA is given (tests)."""
    del clock  # requests are bounded in real time; kept so that callers need not change if that ever differs
    pair = None
    if args.ca is not None:
        if args.cert is None or args.key is None:
            raise SystemExit("--ca needs --cert and --key")
        pair = KeyPair(args.ca, args.cert, args.key)
    return Client.connect(args.api_server, pair, field_manager=field_manager)
