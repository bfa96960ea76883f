"""Objects' metadata over REST: the verbs of the client for resources that only the REST door serves, aggregated ones.

Owns the paths, and the translation of answers to what the gRPC door would say. Asks for metadata alone, as upstream's
metadata client does; a backend that knows no such form sends whole objects, of which the reader takes what it wants.
Never creates or replaces objects. A `client.client.Client` over it serves the collector and the namespace controller.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import quote

import msgspec

from machinery.errors import MethodNotAllowed, StatusError
from proto.api.v1 import resource_pb2 as pb

_AS: Final = "application/json;as={};g=meta.k8s.io;v=v1,application/json"
_ONE, _MANY = _AS.format("PartialObjectMetadata"), _AS.format("PartialObjectMetadataList")
_WATCH_SECONDS: Final = "300"
_EVENTS: Final = {
    "ADDED": pb.EVENT_TYPE_ADDED,
    "MODIFIED": pb.EVENT_TYPE_MODIFIED,
    "DELETED": pb.EVENT_TYPE_DELETED,
    "BOOKMARK": pb.EVENT_TYPE_BOOKMARK,
}


class Requests(Protocol):
    """What sends the requests; `client.rest.RestClient` in a process."""

    async def get(self, path: str, params: Mapping[str, str] | None = None, accept: str = ...) -> dict[str, Any]: ...

    async def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        body: bytes = ...,
        content_type: str = ...,
        accept: str = ...,
    ) -> dict[str, Any]: ...

    def lines(self, path: str, params: Mapping[str, str] | None = None, accept: str = ...) -> AsyncIterator[bytes]: ...


class _Meta(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    resourceVersion: str = ""


class _Object(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)


class _ListMeta(msgspec.Struct, rename={"token": "continue"}):
    resourceVersion: str = ""
    token: str = ""
    remainingItemCount: int | None = None


class _List(msgspec.Struct):
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)
    items: list[dict[str, Any]] | None = None


class _Event(msgspec.Struct):
    type: str = ""
    object: msgspec.Raw = msgspec.Raw(b"{}")


class RestTransport:
    """`client.transport.Transport` over REST, for metadata: what writes whole objects is refused."""

    def __init__(self, rest: Requests) -> None:
        self._rest = rest

    async def get(self, request: pb.GetRequest) -> pb.Object:
        params = _given(resourceVersion=request.resource_version)
        return _object(await self._rest.get(_path(request.ref), params, _ONE))

    async def list(self, request: pb.ListRequest) -> pb.ListResponse:
        params = _given(
            labelSelector=request.label_selector,
            fieldSelector=request.field_selector,
            limit=str(request.limit or ""),
            resourceVersion=request.resource_version,
            resourceVersionMatch=request.resource_version_match,
            **{"continue": request.continue_token},
        )
        return _list(await self._rest.get(_path(request.ref), params, _MANY))

    async def patch(self, request: pb.PatchRequest) -> pb.Object:
        params = _given(fieldManager=request.options.field_manager, force="true" if request.force else "")
        answer = await self._rest.request(
            "PATCH", _path(request.ref), params, body=request.patch, content_type=request.patch_type, accept=_ONE
        )
        return _object(answer)

    async def delete(self, request: pb.DeleteRequest) -> pb.DeleteResponse:
        answer = await self._rest.request("DELETE", _path(request.ref), body=_options(request.options), accept=_ONE)
        if answer.get("kind") == "Status":
            return pb.DeleteResponse(deleted=True)
        marked = "deletionTimestamp" in (answer.get("metadata") or {})
        return pb.DeleteResponse(deleted=not marked, object=_object(answer))

    async def delete_collection(self, request: pb.DeleteCollectionRequest) -> pb.ListResponse:
        params = _given(labelSelector=request.label_selector, fieldSelector=request.field_selector)
        answer = await self._rest.request(
            "DELETE", _path(request.ref), params, body=_options(request.options), accept=_MANY
        )
        return pb.ListResponse() if answer.get("kind") == "Status" else _list(answer)

    async def watch(self, request: pb.WatchRequest) -> AsyncIterator[pb.WatchBatch]:
        params = _given(
            watch="true",
            timeoutSeconds=_WATCH_SECONDS,
            resourceVersion=request.resource_version,
            labelSelector=request.label_selector,
            fieldSelector=request.field_selector,
            allowWatchBookmarks="true" if request.bookmarks else "",
        )
        async for line in self._rest.lines(_path(request.ref), params, _ONE):
            if line.strip():
                yield pb.WatchBatch(events=[_event(line)])

    async def create(self, request: pb.CreateRequest) -> pb.Object:
        _refuse(request.ref, "create")

    async def update(self, request: pb.UpdateRequest) -> pb.Object:
        _refuse(request.ref, "update")

    async def close(self) -> None:
        """Nothing of its own: what sends the requests is its owner's."""


def _path(ref: pb.ResourceRef) -> str:
    root = f"/apis/{ref.group}/{ref.version}" if ref.group else f"/api/{ref.version}"
    scope = f"/namespaces/{quote(ref.namespace, safe='')}" if ref.namespace else ""
    name = f"/{quote(ref.name, safe='')}" if ref.name else ""
    return f"{root}{scope}/{ref.resource}{name}{'/' + ref.subresource if ref.subresource else ''}"


def _given(**params: str) -> dict[str, str]:
    return {name: value for name, value in params.items() if value}


def _options(options: pb.DeleteOptions) -> bytes:
    preconditions = _given(uid=options.uid, resourceVersion=options.resource_version)
    body: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
    if options.HasField("grace_period_seconds"):
        body["gracePeriodSeconds"] = options.grace_period_seconds
    if options.propagation_policy:
        body["propagationPolicy"] = options.propagation_policy
    if preconditions:
        body["preconditions"] = preconditions
    return msgspec.json.encode(body)


def _object(found: dict[str, Any]) -> pb.Object:
    try:
        meta = msgspec.convert(found, _Object).metadata
    except msgspec.ValidationError as error:
        raise StatusError(f"an answer is no object: {error}") from error
    return _filed(meta, msgspec.json.encode(found))


def _filed(meta: _Meta, raw: bytes) -> pb.Object:
    return pb.Object(
        namespace=meta.namespace, name=meta.name, resource_version=_revision(meta.resourceVersion), json=raw
    )


def _list(found: dict[str, Any]) -> pb.ListResponse:
    try:
        page = msgspec.convert(found, _List)
    except msgspec.ValidationError as error:
        raise StatusError(f"an answer is no list: {error}") from error
    left = page.metadata.remainingItemCount
    return pb.ListResponse(
        resource_version=_revision(page.metadata.resourceVersion),
        items=[_object(each) for each in page.items or ()],
        continue_token=page.metadata.token,
        remaining_item_count=-1 if left is None else left,
    )


def _event(line: bytes) -> pb.WatchEvent:
    """One line of a watch. Raises StatusError for an event of type ERROR, and for what is no event."""
    try:
        event = msgspec.json.decode(line, type=_Event)
        if event.type == "ERROR":
            raise StatusError.from_status(msgspec.json.decode(event.object))
        meta = msgspec.json.decode(event.object, type=_Object).metadata
    except msgspec.MsgspecError as error:
        raise StatusError(f"a line of a watch is no event: {error}") from error
    known = _EVENTS.get(event.type)
    if known is None:
        raise StatusError(f"a watch tells of an event of type {event.type!r}")
    raw = b"" if known == pb.EVENT_TYPE_BOOKMARK else bytes(event.object)
    return pb.WatchEvent(type=known, object=_filed(meta, raw))


def _revision(version: str) -> int:
    """Versions of a backend without a store may be empty or no numbers: then nothing can be told to be newer."""
    return int(version) if version.isascii() and version.isdigit() and len(version) < 19 else 0


def _refuse(ref: pb.ResourceRef, verb: str) -> NoReturn:
    raise MethodNotAllowed(f"{verb} of {ref.resource} is not supported over REST")
