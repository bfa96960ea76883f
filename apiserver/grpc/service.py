"""ResourceService: the components' door to the registry.

Owns: the translation between proto/api/v1 messages and registry calls, and the caller's identity by client
certificate. Validation, admission and errors are the registry's, as for REST. Watch answers with one message per turn
of the loop; every event is serialized once for all watchers. Registered by `apiserver.app`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from api.resources import Resource
from apiserver.auth.attributes import Attributes
from apiserver.auth.authentication import user_from_pem
from apiserver.auth.gate import Gate
from apiserver.auth.user import SYSTEM_API_SERVER, UserInfo
from apiserver.auth.virtual import VirtualResources
from apiserver.grpc.session import Session
from apiserver.grpc.wire import batches
from apiserver.metrics import RequestMetrics
from apiserver.registry.context import DeleteOptions, ListOptions, ListPage, RequestContext, WatchOptions
from apiserver.registry.patching import APPLY_PATCH
from apiserver.registry.store import Registry
from apiserver.routing import check_fields, check_kind, check_route
from apiserver.storage.watcher import Watcher
from machinery.errors import BadRequest, InternalError, NotFound, StatusError, Unauthorized
from machinery.grpc import abort, peer_identity
from machinery.log import kv
from proto.api.v1 import resource_pb2 as pb

if TYPE_CHECKING:
    import grpc.aio

log = logging.getLogger("apiserver.grpc")

SERVICE = "nanokube.api.v1.ResourceService"
PEER_LIMIT = 4096
Context = Any  # grpc.aio.ServicerContext; its generics say nothing here


class _Meta(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    resourceVersion: str = ""


class _Object(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)


_head: Callable[[bytes], _Object] = msgspec.json.Decoder(_Object).decode
_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode


def to_object(raw: bytes) -> pb.Object:
    """An object with its key and revision beside it."""
    meta = _head(raw).metadata
    version = int(meta.resourceVersion) if meta.resourceVersion else 0
    return pb.Object(namespace=meta.namespace, name=meta.name, resource_version=version, json=raw)


def to_list(page: ListPage) -> pb.ListResponse:
    return pb.ListResponse(
        resource_version=page.resource_version,
        items=[to_object(raw) for raw in page.items],
        continue_token=page.continue_,
        remaining_item_count=-1 if page.remaining is None else page.remaining,
    )


def delete_options(options: pb.DeleteOptions) -> DeleteOptions:
    return DeleteOptions(
        grace_period_seconds=options.grace_period_seconds if options.HasField("grace_period_seconds") else None,
        propagation_policy=options.propagation_policy or None,
        uid=options.uid,
        resource_version=options.resource_version,
    )


def decode_body(raw: bytes) -> dict[str, Any]:
    """Raises BadRequest."""
    try:
        body = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRequest(f"the object provided is unrecognized: {exc}") from exc
    if not isinstance(body, dict):
        raise BadRequest("the object provided is not an object")
    return body


class ResourceService:
    """The methods of the service. `secure` is False only for a door without TLS, whose callers are trusted wholly."""

    def __init__(
        self, registry: Registry, gate: Gate, virtual: VirtualResources, metrics: RequestMetrics, *, secure: bool
    ) -> None:
        self._registry = registry
        self._gate = gate
        self._virtual = virtual
        self._metrics = metrics
        self._secure = secure
        self._peers: dict[bytes, UserInfo] = {}
        self._watchers: set[Watcher] = set()
        self._sessions: set[Session] = set()

    def handler(self) -> grpc.GenericRpcHandler:
        """What a grpc.aio server registers."""
        import grpc

        unary: dict[str, tuple[Callable[[Any, UserInfo], Awaitable[Any]], Any]] = {
            "Get": (self.get, pb.GetRequest),
            "List": (self.list, pb.ListRequest),
            "Create": (self.create, pb.CreateRequest),
            "Update": (self.update, pb.UpdateRequest),
            "Patch": (self.patch, pb.PatchRequest),
            "Delete": (self.delete, pb.DeleteRequest),
            "DeleteCollection": (self.delete_collection, pb.DeleteCollectionRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._unary(method), request_deserializer=message.FromString, response_serializer=_serialize
            )
            for name, (method, message) in unary.items()
        }
        handlers["Watch"] = grpc.unary_stream_rpc_method_handler(
            self.watch, request_deserializer=pb.WatchRequest.FromString, response_serializer=None
        )
        handlers["Session"] = grpc.stream_stream_rpc_method_handler(
            self.session, request_deserializer=pb.CallBatch.FromString, response_serializer=_serialize
        )
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def _unary(self, method: Callable[[Any, UserInfo], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Any:
            try:
                return await method(request, self._user(context))
            except StatusError as error:
                await abort(context, error)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                log.exception("Failed a call", extra=kv(method=method.__name__))
                await abort(context, InternalError.of(type(error).__name__))

        return call

    def _user(self, context: Context) -> UserInfo:
        if not self._secure:
            return SYSTEM_API_SERVER
        pem = peer_identity(context)
        if pem is None:
            raise Unauthorized
        user = self._peers.get(pem)
        if user is None:
            found = user_from_pem(pem)
            if found is None:
                raise Unauthorized
            if len(self._peers) >= PEER_LIMIT:
                self._peers.clear()
            user = self._peers[pem] = found
        return user

    @staticmethod
    def _asked(verb: str, ref: pb.ResourceRef, field_selector: str = "") -> Attributes:
        return Attributes(
            verb=verb,
            is_resource=True,
            group=ref.group,
            version=ref.version,
            resource=ref.resource,
            # A namespace lies in itself, as far as rights go; REST reads it so from the path.
            namespace=ref.namespace or (ref.name if ref.resource == "namespaces" else ""),
            name=ref.name,
            subresource=ref.subresource,
            field_selector=field_selector,
        )

    def _enter(self, user: UserInfo, verb: str, ref: pb.ResourceRef, field_selector: str = "") -> Resource:
        """Authorize and route. Raises Forbidden, NotFound, MethodNotAllowed."""
        asked = self._asked(verb, ref, field_selector)
        self._gate.authorize(user, asked)
        resource = self._registry.find(ref.group, ref.version, ref.resource)
        if resource is None:
            raise NotFound.path()
        check_route(asked, resource)
        return resource

    @staticmethod
    def _context(user: UserInfo, options: pb.WriteOptions) -> RequestContext:
        manager = options.field_manager or user.name.removeprefix("system:").partition(":")[0]
        if manager == "node":
            manager = "kubelet"
        return RequestContext(user, options.dry_run, manager, options.field_validation, manager)

    async def get(self, request: pb.GetRequest, user: UserInfo) -> pb.Object:
        ref = request.ref
        store = self._registry.resource(*self._enter(user, "get", ref).key())
        raw = await store.get(
            RequestContext(user),
            ref.namespace,
            ref.name,
            subresource=ref.subresource,
            resource_version=request.resource_version,
        )
        return to_object(raw)

    async def list(self, request: pb.ListRequest, user: UserInfo) -> pb.ListResponse:
        ref = request.ref
        store = self._registry.resource(*self._enter(user, "list", ref, request.field_selector).key())
        options = ListOptions(
            label_selector=request.label_selector,
            field_selector=request.field_selector,
            limit=request.limit,
            continue_=request.continue_token,
            resource_version=request.resource_version,
            resource_version_match=request.resource_version_match,
        )
        return to_list(await store.list(RequestContext(user), ref.namespace, options))

    async def create(self, request: pb.CreateRequest, user: UserInfo) -> pb.Object:
        ref = request.ref
        resource = self._enter(user, "create", ref)
        body = decode_body(request.json)
        check_kind(body, resource, ref.subresource)
        context = self._context(user, request.options)
        body = check_fields(body, request.json, resource, ref.subresource, context)
        if self._virtual.serves(resource, ref.subresource):
            raw = await self._virtual.create(context, resource, ref.namespace, ref.name, ref.subresource, body)
        else:
            store = self._registry.resource(*resource.key())
            raw = await store.create(context, ref.namespace, body, name=ref.name, subresource=ref.subresource)
        return to_object(raw)

    async def update(self, request: pb.UpdateRequest, user: UserInfo) -> pb.Object:
        ref = request.ref
        resource = self._enter(user, "update", ref)
        body = decode_body(request.json)
        check_kind(body, resource, ref.subresource)
        store = self._registry.resource(*resource.key())
        context = self._context(user, request.options)
        body = check_fields(body, request.json, resource, ref.subresource, context)
        context.may_create = self._gate.creates(user, self._asked("create", ref))
        raw, _ = await store.update(context, ref.namespace, ref.name, body, subresource=ref.subresource)
        return to_object(raw)

    async def patch(self, request: pb.PatchRequest, user: UserInfo) -> pb.Object:
        ref = request.ref
        store = self._registry.resource(*self._enter(user, "patch", ref).key())
        if request.patch_type == APPLY_PATCH:
            context = self._context(user, request.options)
            context.force = request.force
            context.may_create = self._gate.creates(user, self._asked("create", ref))
            raw, _ = await store.apply(
                context, ref.namespace, ref.name, decode_body(request.patch), subresource=ref.subresource
            )
            return to_object(raw)
        raw = await store.patch(
            self._context(user, request.options),
            ref.namespace,
            ref.name,
            request.patch_type,
            request.patch,
            subresource=ref.subresource,
        )
        return to_object(raw)

    async def delete(self, request: pb.DeleteRequest, user: UserInfo) -> pb.DeleteResponse:
        ref = request.ref
        store = self._registry.resource(*self._enter(user, "delete", ref).key())
        context = RequestContext(user, dry_run=request.options.dry_run)
        result = await store.delete(context, ref.namespace, ref.name, delete_options(request.options))
        return pb.DeleteResponse(deleted=result.deleted, object=to_object(result.raw))

    async def delete_collection(self, request: pb.DeleteCollectionRequest, user: UserInfo) -> pb.ListResponse:
        ref = request.ref
        store = self._registry.resource(*self._enter(user, "deletecollection", ref).key())
        selection = ListOptions(label_selector=request.label_selector, field_selector=request.field_selector)
        context = RequestContext(user, dry_run=request.options.dry_run)
        options = delete_options(request.options)
        return to_list(await store.delete_collection(context, ref.namespace, selection, options))

    async def watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[bytes]:
        """Batches until the caller leaves, the server stops (plain end) or the watch fails (RPC error)."""
        ref = request.ref
        watcher: Watcher | None = None
        series = ("WATCH", ref.group, ref.version, ref.resource, "", "namespace" if ref.namespace else "cluster")
        try:
            user = self._user(context)
            verb_ref = pb.ResourceRef(
                group=ref.group, version=ref.version, resource=ref.resource, namespace=ref.namespace, name=ref.name
            )
            resource = self._enter(user, "watch", verb_ref, request.field_selector)
            initial = True if request.send_initial_events else None
            options = WatchOptions(
                label_selector=request.label_selector,
                field_selector=request.field_selector,
                resource_version=request.resource_version,
                resource_version_match="NotOlderThan" if initial else "",
                allow_bookmarks=request.bookmarks,
                send_initial_events=initial,
            )
            store = self._registry.resource(*resource.key())
            watcher = store.watch(RequestContext(user), ref.namespace, options)
            self._watchers.add(watcher)
            self._metrics.long_running(series, 1)
            # The head goes out at once: the caller learns that the watch stands before anything happens.
            await context.send_initial_metadata(())
            async for events in watcher:
                for message in batches(events):
                    yield message
        except StatusError as error:
            await abort(context, error)
        finally:
            if watcher is not None:
                self._watchers.discard(watcher)
                self._metrics.long_running(series, -1)
                await watcher.aclose()

    async def session(self, _: Any, context: Context) -> None:
        """Calls of one component until it leaves or the server stops."""
        try:
            user = self._user(context)
        except StatusError as error:
            await abort(context, error)
        session = Session(context, lambda call: self._carry(call, user))
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)

    async def _carry(self, call: pb.Call, user: UserInfo) -> pb.Reply:
        kind = call.WhichOneof("request")
        try:
            match kind:
                case "delete":
                    return pb.Reply(id=call.id, deleted=await self.delete(call.delete, user))
                case "create":
                    found = await self.create(call.create, user)
                case "update":
                    found = await self.update(call.update, user)
                case "patch":
                    found = await self.patch(call.patch, user)
                case "get":
                    found = await self.get(call.get, user)
                case _:
                    raise BadRequest("the call has no request")
            return pb.Reply(id=call.id, object=found)
        except StatusError as error:
            status = error.to_status()
        except Exception as error:
            log.exception("Failed a call", extra=kv(method=kind))
            status = InternalError.of(type(error).__name__).to_status()
        return pb.Reply(id=call.id, status_json=msgspec.json.encode(status))

    async def stop(self) -> None:
        """End every watch and session; callers reconnect elsewhere."""
        for session in list(self._sessions):
            session.close()
        for watcher in list(self._watchers):
            await watcher.aclose()


def _serialize(message: Any) -> bytes:
    raw: bytes = message.SerializeToString()
    return raw
