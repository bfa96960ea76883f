"""The verbs of resources over HTTP: get, list, watch, create, update, patch, delete, deletecollection.

Owns: what each verb reads from the request and how the registry's answer is written. Never validates objects. Called
by the door after authentication and authorization.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from api.resources import RESOURCES, Resource
from apiserver.auth.virtual import VirtualResources
from apiserver.crd.resource import CustomResource
from apiserver.registry.context import DeleteResult, ListPage, RequestContext
from apiserver.registry.store import Registry, ResourceStore
from apiserver.rest import bodies, negotiation, query, transform
from apiserver.rest.framing import frame_log, frame_watch
from apiserver.rest.lists import JoinedLists
from apiserver.rest.negotiation import (
    APPLY_PATCH,
    JSON,
    JSON_PATCH,
    MERGE_PATCH,
    PARTIAL,
    PARTIAL_LIST,
    PLAIN,
    PROTOBUF,
    STRATEGIC_PATCH,
    TABLE,
    Accepted,
)
from apiserver.rest.paths import RequestInfo
from apiserver.rest.request import Request
from apiserver.rest.responses import ZIPPED, encode_json, send_bytes, send_not_found_page, send_object, warning_header
from apiserver.rest.watch import Render, WatchStreams, duration, render_lines
from apiserver.routing import check_fields, check_kind, check_route, internal_kind
from machinery.clock import Clock
from machinery.errors import NotAcceptable, NotFound, UnsupportedMediaType

PATCH_TYPES = frozenset({JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH})
BUILT_IN_GROUPS = frozenset(resource.group for resource in RESOURCES)
OBJECT_SHAPES = (TABLE, PARTIAL)
LIST_SHAPES = (TABLE, PARTIAL_LIST)
ANY_SHAPES = (TABLE, PARTIAL, PARTIAL_LIST)

# API versions that answer, but say that they will go.
DEPRECATED: Mapping[tuple[str, str, str], str] = {
    ("", "v1", "endpoints"): "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ("", "v1", "componentstatuses"): "v1 ComponentStatus is deprecated in v1.19+",
}

Handler = Callable[[Request, Resource, ResourceStore], Awaitable[None]]
# A subresource that is no object: streams, proxies. It answers by itself.
Connect = Callable[[Request], Awaitable[None]]


class ResourceHandlers:
    """Dispatches a resource request to its verb."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        streams: WatchStreams,
        virtual: VirtualResources,
        connects: Mapping[tuple[str, str, str], Connect],
        websockets: Mapping[tuple[str, str, str], Connect],
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._streams = streams
        self._virtual = virtual
        self._connects = connects
        self._websockets = websockets
        self._lists = JoinedLists()
        self._slow = asyncio.Semaphore(1)
        """One large YAML body at a time: reading it takes a processor."""
        self._verbs: dict[str, Handler] = {
            "get": self.get,
            "list": self.list,
            "watch": self.watch,
            "create": self.create,
            "update": self.update,
            "patch": self.patch,
            "delete": self.delete,
            "deletecollection": self.delete_collection,
        }

    async def serve(self, request: Request) -> None:
        """Answer a resource request. Raises StatusError."""
        info = request.info
        resource = self._registry.find(info.group, info.version, info.resource)
        if resource is None:
            if info.group not in BUILT_IN_GROUPS:
                await send_not_found_page(request)
                return
            raise NotFound.path()
        request.namespace = info.namespace if resource.namespaced else ""
        if isinstance(resource, CustomResource):
            if info.namespace and not resource.namespaced:
                await send_not_found_page(request)
                return
            if resource.deprecation:
                request.warnings.append(resource.deprecation)
        if DEPRECATED:
            text = DEPRECATED.get(resource.key())
            if text is not None:
                request.warnings.append(text)
        check_route(info, resource)
        if info.subresource:
            connect = self._connects.get((info.group, info.resource, info.subresource))
            if connect is not None:
                await connect(request)
                return
        if info.verb == "create" and self._virtual.serves(resource, info.subresource):
            await self._create_virtual(request, resource)
            return
        await self._verbs[info.verb](request, resource, self._registry.resource(*resource.key()))

    def serves(self, info: RequestInfo) -> bool:
        """Whether there is such a resource and subresource at all."""
        resource = self._registry.find(info.group, info.version, info.resource)
        return resource is not None and (not info.subresource or info.subresource in resource.subresources)

    def count(self, request: Request) -> int:
        """About how many objects a list goes through."""
        info = request.info
        resource = self._registry.find(info.group, info.version, info.resource)
        if resource is None or not resource.storable:
            return 0
        limit = text if (text := query.text(request.query, "limit")).isdigit() else ""
        stored = self._registry.resource(*resource.key()).cache.count(info.namespace if resource.namespaced else "")
        return min(stored, int(limit[:9])) if limit and int(limit[:9]) else stored

    async def serve_websocket(self, request: Request) -> None:
        """Answer a stream's handshake and carry the stream. Raises StatusError before it is accepted."""
        info = request.info
        stream = self._websockets.get((info.group, info.resource, info.subresource))
        if stream is None:
            if info.verb == "watch":
                frame_watch(request)
            elif info.subresource == "log":
                frame_log(request)
            else:
                raise NotFound.path()
            await self.serve(request)
            return
        resource = self._registry.find(info.group, info.version, info.resource)
        if resource is None:
            raise NotFound.path()
        check_route(info, resource)
        request.namespace = info.namespace
        await stream(request)

    # Reading.

    async def get(self, request: Request, resource: Resource, store: ResourceStore) -> None:
        accept = request.headers.get(b"accept")
        accepted = _shaped(accept, OBJECT_SHAPES, resource) if accept is not None else PLAIN
        info = request.info
        version = query.text(request.query, "resourceVersion") if request.query else ""
        context = request.context()
        raw = await store.get(
            context, request.namespace, info.name, subresource=info.subresource, resource_version=version
        )
        await self._answer(request, 200, resource, raw, accepted)

    async def list(self, request: Request, resource: Resource, store: ResourceStore) -> None:
        accept = request.headers.get(b"accept")
        accepted = _shaped(accept, LIST_SHAPES, resource) if accept is not None else PLAIN
        options = query.list_options(request.query)
        page = await store.list(request.context(), request.namespace, options)
        if request.record is not None and request.record.takes_response():
            request.record.answered(transform.many(resource, page, PLAIN, "", self._clock, store.form.bare)[1])
        if accepted is PLAIN:
            if type(store) is not ResourceStore:  # what other stores answer follows from more than the cache
                page = page._replace(state=0)
            items = self._lists.items((*resource.key(), request.namespace), page, store.form.bare)
            await send_object(request, 200, transform.list_parts(resource, page, items), extra=_warnings(request))
            return
        await self._answer_page(request, resource, page, accepted, store)

    async def _answer_page(
        self, request: Request, resource: Resource, page: ListPage, accepted: Accepted, store: ResourceStore
    ) -> None:
        include = self._include(request, accepted)
        content_type, body = transform.many(resource, page, accepted, include, self._clock, store.form.bare)
        await send_object(request, 200, (body,), content_type=content_type, extra=_warnings(request))

    async def watch(self, request: Request, resource: Resource, store: ResourceStore) -> None:
        info = request.info
        accepted = _accepted(request.headers.get(b"accept", b""), OBJECT_SHAPES, yaml=False)
        if not accepted.json_too and accepted.media_type == PROTOBUF:
            raise negotiation.not_acceptable()
        name = info.name if info.legacy_watch else ""
        options = query.watch_options(request.query, name=name)
        seconds = duration(query.number(request.query, "timeoutSeconds"), self._streams.least_seconds)
        render: Render = render_lines
        if accepted.kind:
            include = self._include(request, accepted)
            render = transform.watch_renderer(resource, accepted, include, self._clock)
        watcher = store.watch(request.context(), request.namespace, options)
        await self._streams.serve(request, watcher, seconds, render, key=resource.key())

    # Writing.

    async def create(self, request: Request, resource: Resource, store: ResourceStore) -> None:
        accepted = _accepted(request.headers.get(b"accept", b""), OBJECT_SHAPES)
        options = query.write_query(request.query, "CreateOptions")
        context = request.context(options)
        body = await self._body(request, resource, context)
        info = request.info
        raw = await store.create(context, request.namespace, body, name=info.name, subresource=info.subresource)
        await self._answer(request, 201, resource, raw, accepted)

    async def _create_virtual(self, request: Request, resource: Resource) -> None:
        accepted = _accepted(request.headers.get(b"accept", b""), ())
        context = request.context(query.write_query(request.query, "CreateOptions"))
        body = await self._body(request, resource, context)
        info = request.info
        made = await self._virtual.create(context, resource, request.namespace, info.name, info.subresource, body)
        await self._answer(request, 201, resource, made, accepted)

    async def update(self, request: Request, resource: Resource, store: ResourceStore) -> None:
        accepted = _accepted(request.headers.get(b"accept", b""), OBJECT_SHAPES)
        context = request.context(query.write_query(request.query, "UpdateOptions"))
        body = await self._body(request, resource, context)
        info = request.info
        raw, created = await store.update(context, request.namespace, info.name, body, subresource=info.subresource)
        await self._answer(request, 201 if created else 200, resource, raw, accepted)

    async def patch(self, request: Request, resource: Resource, store: ResourceStore) -> None:
        content_type = negotiation.media_type_of(request.header(b"content-type"))
        if content_type not in PATCH_TYPES:
            raise UnsupportedMediaType("415: Unsupported Media Type", details={})
        accepted = _accepted(request.headers.get(b"accept", b""), OBJECT_SHAPES)
        options = query.write_query(request.query, "PatchOptions", patch_type=content_type)
        context = request.context(options)
        context.force = options.force
        raw = bodies.clean(await bodies.read(request.receive))
        if request.record is not None:
            request.record.sent_raw(raw)
        info = request.info
        subresource = info.subresource
        if content_type == APPLY_PATCH:
            if bodies.is_slow(raw, content_type):
                async with self._slow:
                    config = await asyncio.to_thread(bodies.decode_apply, raw)
            else:
                config = bodies.decode_apply(raw)
            result, made = await store.apply(context, request.namespace, info.name, config, subresource=subresource)
            await self._answer(request, 201 if made else 200, resource, result, accepted)
            return
        result = await store.patch(context, request.namespace, info.name, content_type, raw, subresource=subresource)
        await self._answer(request, 200, resource, result, accepted)

    async def delete(self, request: Request, resource: Resource, store: ResourceStore) -> None:
        accepted = _accepted(request.headers.get(b"accept", b""), OBJECT_SHAPES)
        options, dry_run = query.delete_options(request.query, await self._delete_body(request))
        context = request.context()
        context.dry_run = dry_run
        info = request.info
        result: DeleteResult = await store.delete(context, request.namespace, info.name, options)
        # A request that asks for orphans to be collected and has to wait is "accepted"; all others are "ok".
        code = 202 if not result.deleted and options.orphan_dependents is False else 200
        if result.success is not None:
            if request.record is not None:
                request.record.status(result.success)
            await self._answer(request, code, resource, encode_json(result.success), accepted._replace(kind=""))
        else:
            await self._answer(request, code, resource, result.raw, accepted)

    async def delete_collection(self, request: Request, resource: Resource, store: ResourceStore) -> None:
        accepted = _accepted(request.headers.get(b"accept", b""), LIST_SHAPES)
        selection = query.list_options(request.query)
        options, dry_run = query.delete_options(request.query, await self._delete_body(request))
        context = request.context()
        context.dry_run = dry_run
        page = await store.delete_collection(context, request.namespace, selection, options)
        await self._answer_page(request, resource, page, accepted, store)

    # What the verbs share.

    async def _body(self, request: Request, resource: Resource, context: RequestContext) -> dict[str, Any]:
        raw = await bodies.read(request.receive)
        content_type = request.header(b"content-type")
        is_json = not content_type or content_type.startswith(JSON)
        if is_json:
            raw = bodies.clean(raw)
        kind = resource.subresources[request.info.subresource].kind if request.info.subresource else resource.kind
        body = await self._decoded(raw, content_type, kind)
        check_kind(body, resource, request.info.subresource)
        if request.record is not None:
            request.record.sent(body)
        return check_fields(body, raw if is_json else None, resource, request.info.subresource, context)

    async def _decoded(self, raw: bytes, content_type: str, kind: str) -> dict[str, Any]:
        if not bodies.is_slow(raw, content_type):
            return bodies.decode(raw, content_type, kind)
        async with self._slow:
            return await asyncio.to_thread(bodies.decode, raw, content_type, kind)

    async def _delete_body(self, request: Request) -> dict[str, Any] | None:
        if request.headers.get(b"content-length", b"") in (b"", b"0") and b"transfer-encoding" not in request.headers:
            return None
        raw = await bodies.read(request.receive)
        content_type = request.header(b"content-type")
        if not content_type or content_type.startswith(JSON):
            raw = bodies.clean(raw)
        body = await self._decoded(raw, content_type, "") if raw else None
        if request.record is not None and body is not None:
            request.record.sent(body)
        return body

    @staticmethod
    def _include(request: Request, accepted: Accepted) -> str:
        return transform.include_object(query.text(request.query, "includeObject")) if accepted.kind == TABLE else ""

    async def _answer(self, request: Request, code: int, resource: Resource, raw: bytes, accepted: Accepted) -> None:
        if request.record is not None:
            request.record.answered(raw)
        if accepted is PLAIN and not request.warnings and len(raw) <= ZIPPED:
            await send_bytes(request, code, raw)
            return
        include = self._include(request, accepted)
        content_type, body = transform.one(resource, raw, accepted, include, self._clock)
        await send_object(request, code, (body,), content_type=content_type, extra=_warnings(request))


def _accepted(header: bytes, shapes: tuple[str, ...], *, yaml: bool = True) -> Accepted:
    return negotiation.negotiate(header.decode("latin-1"), transforms=shapes, yaml=yaml)


def _shaped(header: bytes, shapes: tuple[str, ...], resource: Resource) -> Accepted:
    """What the client accepts of a read; the answer to the wrong one of list and object tells which it is."""
    accepted = _accepted(header, ANY_SHAPES)
    if accepted.kind and accepted.kind not in shapes:
        kind = internal_kind(resource)
        is_list = f"is not a list (*{kind})" if shapes is OBJECT_SHAPES else f"is a list (*{kind}List)"
        raise NotAcceptable(f"you requested {accepted.kind}, but the requested object {is_list}", details={})
    return accepted


def _warnings(request: Request) -> list[tuple[bytes, bytes]]:
    return [warning_header(text) for text in request.warnings]
