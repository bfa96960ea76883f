"""Answers in other shapes: Table, PartialObjectMetadata, YAML.

Owns: cutting metadata out of stored bytes and wrapping what `apiserver.tables` renders. Never chooses the shape
(negotiation does) and knows no kind's columns. Called by the REST handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol, cast

import msgspec

from api.resources import Resource
from apiserver.crd.resource import CustomResource
from apiserver.registry.context import ListPage
from apiserver.rest.negotiation import PARTIAL, PARTIAL_LIST, PROTOBUF, TABLE, YAML, Accepted
from apiserver.rest.responses import JSON_TYPE, PROTOBUF_TYPE, encode_json
from apiserver.storage.entry import BOOKMARK, Event
from apiserver.tables.registry import WRITTEN_BY_CONVERSION, own_metadata
from machinery.clock import Clock
from machinery.errors import BadRequest, NotAcceptable
from machinery.field_errors import FieldError

Rendered = tuple[bytes, bytes]  # content type, body

YAML_TYPE = b"application/yaml"
INCLUDES = ("", "Metadata", "None", "Object")

decode_object: Callable[[bytes], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode


class Table(Protocol):
    """What `apiserver.tables` gives for a resource."""

    def render(
        self, resource: Resource, objects: list[dict[str, Any]], include_object: str, now: Any
    ) -> dict[str, Any]: ...


class _MetadataOnly(msgspec.Struct):
    metadata: msgspec.Raw


_metadata_of = msgspec.json.Decoder(_MetadataOnly).decode


def _table_for(resource: Resource) -> Table:
    return resource.table if isinstance(resource, CustomResource) else _built_in_table(resource)


@cache
def _built_in_table(resource: Resource) -> Table:
    return cast(Table, import_module("apiserver.tables").table_for(resource))


def include_object(value: str) -> str:
    """The `includeObject` option. Raises BadRequest."""
    if value not in INCLUDES:
        why = FieldError.invalid("includeObject", value, "must be 'Metadata', 'Object', 'None', or empty")
        raise BadRequest(f"Unable to convert to Table as requested: {why}")
    return value or "Metadata"


def partial(raw: bytes, version: str = "v1", resource: Resource | None = None) -> bytes:
    """One object as PartialObjectMetadata."""
    meta = bytes(_metadata_of(raw).metadata)
    if resource is not None and (resource.group, resource.plural) in WRITTEN_BY_CONVERSION:
        meta = encode_json(own_metadata(resource, decode_object(meta)))
    return b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/%b","metadata":%b}' % (version.encode(), meta)


def list_metadata(page: ListPage, *, always_continue: bool = False) -> bytes:
    """metav1.ListMeta of a page; upstream's lists of custom objects tell an empty `continue` as well."""
    meta: dict[str, Any] = {"resourceVersion": str(page.resource_version)} if page.resource_version else {}
    if page.continue_ or always_continue:
        meta["continue"] = page.continue_
        if page.remaining is not None:
            meta["remainingItemCount"] = page.remaining
    return encode_json(meta)


def list_parts(resource: Resource, page: ListPage, items: bytes) -> tuple[bytes, bytes, bytes]:
    """A list of whole objects around its joined items."""
    head = b'{"kind":"%b","apiVersion":"%b","metadata":%b,"items":[' % (
        resource.list_kind.encode(),
        resource.group_version.encode(),
        list_metadata(page, always_continue=isinstance(resource, CustomResource)),
    )
    return head, items, b"]}"


def partial_list(page: ListPage, version: str = "v1", resource: Resource | None = None) -> bytes:
    head = b'{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/%b","metadata":%b,"items":[' % (
        version.encode(),
        list_metadata(page),
    )
    if not page.items:  # upstream makes this list from nothing, and nothing is null
        return head[:-1] + b"null}"
    items = [partial(item, version, resource) for item in page.items]
    return b"".join((head, b",".join(items), b"]}"))


def table(
    resource: Resource, objects: Sequence[bytes], accepted: Accepted, include: str, clock: Clock, meta: bytes
) -> bytes:
    """Objects as a Table with the given metadata."""
    decoded = [decode_object(raw) for raw in objects]
    made = _table_for(resource).render(resource, decoded, include, clock.now())
    return encode_json({**_table_document(made, accepted.version), "metadata": msgspec.Raw(meta)})


def _table_document(made: dict[str, Any], version: str) -> dict[str, Any]:
    """A rendered Table in the version of meta.k8s.io that was asked for; its rows' objects are of the same version."""
    if version == "v1beta1":
        for row in made.get("rows") or ():
            shown = row.get("object")
            if shown and shown.get("kind") == PARTIAL:
                shown["apiVersion"] = "meta.k8s.io/v1beta1"
    return {"kind": "Table", "apiVersion": f"meta.k8s.io/{version or 'v1'}", **made}


def one(resource: Resource, raw: bytes, accepted: Accepted, include: str, clock: Clock) -> Rendered:
    """A single object in the accepted shape."""
    if accepted.kind == TABLE:
        version = decode_object(raw).get("metadata", {}).get("resourceVersion", "")
        return JSON_TYPE, table(resource, [raw], accepted, include, clock, encode_json({"resourceVersion": version}))
    if accepted.kind == PARTIAL:
        raw = partial(raw, accepted.version, resource)
    return _written(raw, accepted)


def many(
    resource: Resource, page: ListPage, accepted: Accepted, include: str, clock: Clock, bare: Callable[[bytes], bytes]
) -> Rendered:
    """A page in the accepted shape."""
    if accepted.kind == TABLE:
        return JSON_TYPE, table(resource, page.items, accepted, include, clock, list_metadata(page))
    if accepted.kind == PARTIAL_LIST:
        raw = partial_list(page, accepted.version, resource)
    else:
        raw = b"".join(list_parts(resource, page, b",".join(map(bare, page.items))))
    if accepted.media_type == PROTOBUF and accepted.json_too:
        return JSON_TYPE, raw
    return _written(raw, accepted)


def _written(raw: bytes, accepted: Accepted) -> Rendered:
    """JSON in the accepted media type."""
    if accepted.media_type == YAML:
        from apiserver.rest.yaml_values import dump

        return YAML_TYPE, dump(decode_object(raw))
    if accepted.media_type == PROTOBUF:
        from machinery import protobuf

        try:
            return PROTOBUF_TYPE, protobuf.encode(decode_object(raw))
        except BadRequest as exc:  # kinds without a message, such as custom resources
            if not accepted.json_too:
                raise _not_marshalable(raw) from exc
    return JSON_TYPE, raw


def _not_marshalable(raw: bytes) -> NotAcceptable:
    kind = "UnstructuredList" if "items" in decode_object(raw) else "Unstructured"
    why = "does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    return NotAcceptable(f"object *unstructured.{kind} {why}", details={})


def watch_renderer(
    resource: Resource, accepted: Accepted, include: str, clock: Clock
) -> Callable[[Sequence[Event]], bytes]:
    """Events in the accepted shape. The first Table of a stream names its columns, later ones do not."""
    if accepted.kind == PARTIAL:

        def partials(batch: Sequence[Event]) -> bytes:
            return b"".join(
                [
                    b'{"type":"%b","object":%b}\n' % (event.type, partial(event.raw, accepted.version, resource))
                    for event in batch
                ]
            )

        return partials
    named = False

    def tables(batch: Sequence[Event]) -> bytes:
        nonlocal named
        lines = []
        for event in batch:
            meta = {"resourceVersion": str(event.resource_version)}
            objects = [] if event.type == BOOKMARK else [decode_object(event.raw)]
            made = _table_for(resource).render(resource, objects, include, clock.now())
            if named:
                made = {**made, "columnDefinitions": None}
            named = True
            document = {**_table_document(made, accepted.version), "metadata": meta}
            lines.append(b'{"type":"%b","object":%b}\n' % (event.type, encode_json(document)))
        return b"".join(lines)

    return tables
