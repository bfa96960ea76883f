"""Schema access: the OpenAPI definitions of Kubernetes 1.36 as compact, lazily built nodes.

Owns: where the definitions lie, lookup by definition name and by group-version-kind, and the few facts per field that
merging, pruning and decoding need. Never: keeps descriptions in memory (``raw_definition`` reads them from disk when a
document is made), never decides what a kind is called in a URL (that is ``api.resources``). Called by the API server's
registry, its OpenAPI documents, field validation and strategic merge.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

KUBERNETES_VERSION = "1.36.0"

_REF_PREFIXES = ("#/$defs/", "#/definitions/", "#/components/schemas/")
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_EMPTY: Mapping[str, SchemaNode] = {}


class SchemaError(RuntimeError):
    """The definitions are missing or unreadable: an installation fault, not a user's."""


class _Json(msgspec.Struct):
    """The part of a JSON schema that nodes are built from; decoding into it skips the descriptions."""

    type: str | list[str] | None = None
    format: str = ""
    ref: str = msgspec.field(default="", name="$ref")
    properties: dict[str, _Json] | None = None
    items: _Json | None = None
    additional: _Json | bool | None = msgspec.field(default=None, name="additionalProperties")
    required: list[str] | None = None
    list_type: str = msgspec.field(default="", name="x-kubernetes-list-type")
    list_map_keys: list[str] | None = msgspec.field(default=None, name="x-kubernetes-list-map-keys")
    map_type: str = msgspec.field(default="", name="x-kubernetes-map-type")
    merge_key: str = msgspec.field(default="", name="x-kubernetes-patch-merge-key")
    strategy: str = msgspec.field(default="", name="x-kubernetes-patch-strategy")
    preserve_unknown: bool = msgspec.field(default=False, name="x-kubernetes-preserve-unknown-fields")
    embedded: bool = msgspec.field(default=False, name="x-kubernetes-embedded-resource")
    int_or_string: bool = msgspec.field(default=False, name="x-kubernetes-int-or-string")


class _Gvk(msgspec.Struct):
    group: str
    version: str
    kind: str


class _Indexed(msgspec.Struct):
    gvks: list[_Gvk] = msgspec.field(default_factory=list, name="x-kubernetes-group-version-kind")


class _RawFile(msgspec.Struct):
    defs: dict[str, msgspec.Raw] = msgspec.field(name="$defs")


class SchemaNode:
    """One place in a schema: structure is read through a reference, merge facts belong to the place itself."""

    __slots__ = (
        "_additional",
        "_items",
        "_properties",
        "_resolved",
        "embedded",
        "format",
        "int_or_string",
        "list_map_keys",
        "list_type",
        "map_type",
        "name",
        "patch_merge_key",
        "patch_strategy",
        "preserve_unknown",
        "quantity",
        "ref",
        "required",
        "type",
    )

    def __init__(self, json: _Json) -> None:
        kind = json.type
        self.type: str = (next((t for t in kind if t != "null"), "") if isinstance(kind, list) else kind) or ""
        self.format = json.format
        self.ref = _ref_name(json.ref)
        self.name = self.ref  # of the definition that this place shows, or that this node is; "" for nameless types
        self.required: tuple[str, ...] = tuple(json.required or ())
        self.list_type = json.list_type
        self.list_map_keys: tuple[str, ...] = tuple(json.list_map_keys or ())
        self.map_type = json.map_type
        self.patch_merge_key = json.merge_key
        self.patch_strategy: tuple[str, ...] = tuple(json.strategy.split(",")) if json.strategy else ()
        self.quantity = self.ref == _QUANTITY
        self.int_or_string = json.int_or_string or self.ref == _INT_OR_STRING
        self.preserve_unknown = json.preserve_unknown
        self.embedded = json.embedded
        self._properties: Mapping[str, SchemaNode] | None = (
            {name: SchemaNode(child) for name, child in json.properties.items()} if json.properties else None
        )
        self._items = SchemaNode(json.items) if json.items is not None else None
        self._additional = SchemaNode(json.additional) if isinstance(json.additional, _Json) else None
        if json.additional is True:
            self.preserve_unknown = True
        self._resolved = not self.ref

    def _resolve(self) -> None:
        self._resolved = True
        if self.quantity or self.int_or_string:
            return
        target = definition(self.ref)
        if target is None:
            self.preserve_unknown = True
            return
        self.type = target.type
        self.format = target.format
        self.required = target.required
        self.map_type = self.map_type or target.map_type
        self.list_type = self.list_type or target.list_type
        self.list_map_keys = self.list_map_keys or target.list_map_keys
        self.preserve_unknown = target.preserve_unknown
        self._properties = target._properties
        self._items = target._items
        self._additional = target._additional

    def resolve(self) -> SchemaNode:
        """This node with its reference followed: ``type``, ``format`` and ``required`` of a reference need it."""
        if not self._resolved:
            self._resolve()
        return self

    @property
    def properties(self) -> Mapping[str, SchemaNode]:
        if not self._resolved:
            self._resolve()
        return self._properties or _EMPTY

    @property
    def items(self) -> SchemaNode | None:
        if not self._resolved:
            self._resolve()
        return self._items

    @property
    def additional_properties(self) -> SchemaNode | None:
        if not self._resolved:
            self._resolve()
        return self._additional

    @property
    def open(self) -> bool:
        """Anything may stand here: raw JSON, or an object whose fields no schema names."""
        if not self._resolved:
            self._resolve()
        if self.quantity or self.int_or_string:
            return False
        if self.preserve_unknown:
            return True
        return self.type in ("", "object") and not self._properties and self._additional is None

    def child(self, key: str) -> SchemaNode | None:
        """The node of a field, or of a map's value; None where the schema says nothing."""
        if not self._resolved:
            self._resolve()
        found = self._properties.get(key) if self._properties else None
        return found if found is not None else self._additional

    def __repr__(self) -> str:
        return f"SchemaNode({self.ref or self.type or 'any'})"


def _ref_name(ref: str) -> str:
    for prefix in _REF_PREFIXES:
        if ref.startswith(prefix):
            return ref[len(prefix) :]
    return ref


class _Index:
    """Where each definition lies in the file, and which kind it is."""

    def __init__(self) -> None:
        self.path = _definitions_path()
        data = self.path.read_bytes()
        raws = msgspec.json.decode(data, type=_RawFile).defs
        gvk_decoder = msgspec.json.Decoder(_Indexed)
        self.spans: dict[str, tuple[int, int]] = {}
        self.by_kind: dict[tuple[str, str, str], str] = {}
        position = 0
        for name, raw in raws.items():
            text = bytes(raw)
            start = data.index(text, data.index(f'"{name}"'.encode(), position))
            position = start + len(text)
            self.spans[name] = (start, len(text))
            if b'"x-kubernetes-group-version-kind"' in text:
                for gvk in gvk_decoder.decode(text).gvks:
                    self.by_kind.setdefault((gvk.group, gvk.version, gvk.kind), name)

    def read(self, name: str) -> bytes:
        start, length = self.spans[name]
        handle = os.open(self.path, os.O_RDONLY)
        try:
            return os.pread(handle, length, start)
        finally:
            os.close(handle)


def _definitions_path() -> Path:
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise SchemaError("the package kubernetes-validate is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "kubernetes-json-schema" / f"v{KUBERNETES_VERSION}-local"
    path = folder / "_definitions.json"
    if not path.is_file():
        raise SchemaError(f"the definitions of Kubernetes {KUBERNETES_VERSION} are missing: {path}")
    return path


@lru_cache(maxsize=1)
def _index() -> _Index:
    return _Index()


_decoder = msgspec.json.Decoder(_Json)
_definitions: dict[str, SchemaNode] = {}


def definition(name: str) -> SchemaNode | None:
    """The node of a definition such as ``io.k8s.api.core.v1.Pod``; built once, then shared."""
    node = _definitions.get(name)
    if node is None:
        index = _index()
        if name not in index.spans:
            return None
        node = SchemaNode(_decoder.decode(index.read(name)))
        node.name = name
        # Quantity and IntOrString are `oneOf` in the file: say so on the definition itself as well.
        node.quantity = name == _QUANTITY
        node.int_or_string = name == _INT_OR_STRING
        _definitions[name] = node
    return node


def definition_name(group: str, version: str, kind: str) -> str | None:
    """The definition of a kind, e.g. ``("apps", "v1", "Deployment")``."""
    return _index().by_kind.get((group, version, kind))


def for_kind(group: str, version: str, kind: str) -> SchemaNode | None:
    """The node of a kind's root; None for kinds the schema does not know (custom resources)."""
    name = definition_name(group, version, kind)
    return definition(name) if name else None


def definition_names() -> Iterator[str]:
    return iter(_index().spans)


def raw_definition(name: str) -> bytes:
    """The definition's JSON as shipped, descriptions included; read from disk at every call. KeyError if unknown."""
    return _index().read(name)


def from_openapi(schema: Mapping[str, Any]) -> SchemaNode:
    """A node from an OpenAPI v3 schema given as data (a CustomResourceDefinition's); ValueError when it is not one."""
    try:
        return SchemaNode(msgspec.convert(schema, _Json))
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
