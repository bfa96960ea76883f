"""What ownership needs to know of a kind: which places are owned whole and which part by part.

Owns `Shape`, made lazily of `api.schema` nodes and shared per definition, the rule for values without a schema
(objects part by part, lists whole), and the two facts that the schema does not tell: which list keys have defaults and
which fields of upstream's structs are always there. Called by `walk` and `merge`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api import schema
from api.schema import SchemaNode
from apiserver.nullable import NULLS

WHOLE, STRUCT, MAP, KEYED, SET, DEDUCED = range(6)
"""Owned whole (scalars, atomic lists and maps); fields; entries; items by key; items by value; by what is found."""

KEY_DEFAULTS: Mapping[str, Any] = {"protocol": "TCP"}
"""Values of list keys that may be left out: ports of containers and services."""
_NAMELESS = "io.k8s.api.core.v1.LocalObjectReference"

# Fields that hold a struct by value are there in any new object, empty. The schema does not tell values from pointers;
# it matters only from the root of a kind down to the first list, map or pointer.
_ALWAYS = frozenset({"metadata", "spec", "status"})
_ALWAYS_AT: Mapping[str, frozenset[str]] = {
    "io.k8s.api.apps.v1.DeploymentSpec": frozenset({"strategy", "template"}),
    "io.k8s.api.apps.v1.ReplicaSetSpec": frozenset({"template"}),
    "io.k8s.api.apps.v1.StatefulSetSpec": frozenset({"template", "updateStrategy"}),
    "io.k8s.api.apps.v1.DaemonSetSpec": frozenset({"template", "updateStrategy"}),
    "io.k8s.api.batch.v1.JobSpec": frozenset({"template"}),
    "io.k8s.api.batch.v1.CronJobSpec": frozenset({"jobTemplate"}),
    "io.k8s.api.core.v1.PodTemplate": frozenset({"template"}),
    "io.k8s.api.core.v1.PersistentVolumeClaimSpec": frozenset({"resources"}),
    "io.k8s.api.core.v1.ServiceStatus": frozenset({"loadBalancer"}),
    "io.k8s.api.networking.v1.IngressStatus": frozenset({"loadBalancer"}),
    "io.k8s.api.core.v1.NodeStatus": frozenset({"daemonEndpoints", "nodeInfo"}),
    "io.k8s.api.core.v1.NodeDaemonEndpoints": frozenset({"kubeletEndpoint"}),
    "io.k8s.api.core.v1.Event": frozenset({"source", "involvedObject"}),
    "io.k8s.api.events.v1.Event": frozenset({"deprecatedSource", "regarding"}),
    "io.k8s.api.networking.v1.NetworkPolicySpec": frozenset({"podSelector"}),
    "io.k8s.api.resource.v1.ResourceClaimSpec": frozenset({"devices"}),
}
# Required, and left out of an empty object all the same.
_POINTERS = frozenset(
    {
        ("io.k8s.api.networking.v1.IPAddressSpec", "parentRef"),
        ("io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec", "validationActions"),
    }
)
# Optional, and written even when empty.
_WRITTEN = frozenset(
    {
        ("io.k8s.api.core.v1.Event", "reportingComponent"),
        ("io.k8s.api.core.v1.Event", "reportingInstance"),
        ("io.k8s.api.authentication.v1.TokenRequestSpec", "boundObjectRef"),
    }
)
_RAW = "io.k8s.apimachinery.pkg.runtime.RawExtension"


class Field:
    """One field of a struct. `element` is its path element; `always`: an empty struct when nothing is set."""

    __slots__ = ("always", "element", "known", "leaf", "required", "shape", "zero")

    def __init__(self, name: str, shape: Shape, *, always: bool, required: bool, zero: Any) -> None:
        self.element = f"f:{name}"
        self.leaf = b'"f:%b":{}' % name.encode()
        """Owned whole, as JSON."""
        self.known: dict[Any, bytes] = {}
        """Ownership of values seen at creation, as JSON; kept by `walk.created_json`."""
        self.shape = shape
        self.always = always
        self.required = required
        self.zero = zero
        """What stands there in a new object of upstream's, for required fields."""


class Shape:
    """How the value at one place of a schema is owned."""

    __slots__ = ("_element", "_fields", "_node", "custom", "defaults", "keys", "kind", "nulls", "type")

    def __init__(self, node: SchemaNode | None, kind: int, *, custom: bool = False) -> None:
        self.kind = kind
        self.custom = custom
        self._node = node
        self._fields: dict[str, Field] | None = None
        self._element: Shape | None = None
        self.keys: tuple[str, ...] = node.list_map_keys if node is not None and kind == KEYED else ()
        self.defaults: Mapping[str, Any] = KEY_DEFAULTS
        """Values of keys that items leave out."""
        if self.keys and node is not None and node.items is not None and node.items.ref == _NAMELESS:
            self.defaults = {"name": ""}
        self.type = node.type if node is not None else ""
        """The JSON type that an applied value must have; "" for any."""
        self.nulls: tuple[str, ...] = _owned_nulls(node) if node is not None and not custom else ()
        """Fields that upstream writes as null."""
        if node is not None and (node.quantity or node.int_or_string):
            self.type = ""

    @property
    def fields(self) -> dict[str, Field]:
        """Fields by name; built at first use, because schemas recurse."""
        found = self._fields
        if found is None:
            found = self._fields = self._build()
        return found

    def _build(self) -> dict[str, Field]:
        node = self._node
        if node is None or self.kind != STRUCT:
            return {}
        always = frozenset() if self.custom else _ALWAYS | _ALWAYS_AT.get(node.name, frozenset())
        found = {}
        for name, child in node.properties.items():
            shape = shape_of(child, custom=self.custom)
            pointer = self.custom or (node.name, name) in _POINTERS
            required = (name in node.required and not pointer) or (node.name, name) in _WRITTEN
            by_value = name in always or required
            zero = {} if name in always and shape.kind == WHOLE and child.type == "object" else _zero(child)
            struct = shape.kind == STRUCT and by_value
            found[name] = Field(name, shape, always=struct, required=required or zero == {}, zero=zero)
        return found

    @property
    def element(self) -> Shape | None:
        """The shape of entries and items; None where a struct knows no other fields."""
        found = self._element
        if found is None:
            found = self._element = self._build_element()
        return found

    def _build_element(self) -> Shape | None:
        node = self._node
        if node is None:
            return DEDUCED_SHAPE if self.kind in (DEDUCED, STRUCT) else None
        if self.kind in (KEYED, SET):
            return shape_of(node.items, custom=self.custom) if node.items is not None else DEDUCED_SHAPE
        values = node.additional_properties
        if values is not None:
            return shape_of(values, custom=self.custom)
        return DEDUCED_SHAPE if self.kind != STRUCT or node.preserve_unknown else None

    def child(self, name: str) -> Shape | None:
        """The shape of a field or entry; None: not declared."""
        field = self.fields.get(name)
        return field.shape if field is not None else self.element

    def __repr__(self) -> str:
        return f"Shape({self.kind}, {self._node!r})"


DEDUCED_SHAPE = Shape(None, DEDUCED)
_shapes: dict[str, Shape] = {}


def shape_of(node: SchemaNode, *, custom: bool = False) -> Shape:
    """The shape of a place in a schema; one per definition where the place adds nothing to it."""
    node.resolve()
    kind = _kind(node)
    if custom or not node.ref or kind not in (STRUCT, MAP):
        return Shape(node, kind, custom=custom)
    found = _shapes.get(node.ref)
    if found is None:
        found = _shapes[node.ref] = Shape(schema.definition(node.ref) or node, kind)
    return found


def _owned_nulls(node: SchemaNode) -> tuple[str, ...]:
    """Whoever sets the object owns what is written as null, too."""
    return tuple(f"f:{name}" for name in NULLS.get(node.name, ()))


def _kind(node: SchemaNode) -> int:
    if node.quantity or node.int_or_string or node.ref == _RAW:
        return WHOLE
    if node.type == "array":
        if node.list_type == "map" and node.list_map_keys:
            return KEYED
        return SET if node.list_type == "set" else WHOLE
    if node.type == "object" or (not node.type and node.properties):
        if node.map_type == "atomic":
            return WHOLE
        return STRUCT if node.properties else MAP
    return WHOLE if node.type else DEDUCED


def _zero(node: SchemaNode) -> Any:
    if node.quantity or node.int_or_string:
        return "0"
    if node.type == "string":
        return None if node.format == "date-time" else ""
    return {"integer": 0, "number": 0, "boolean": False}.get(node.type)


class _CustomRoot(Shape):
    """A custom resource's root: upstream types its metadata whatever the definition says."""

    def __init__(self, node: SchemaNode | None) -> None:
        super().__init__(node, STRUCT, custom=True)

    def _build(self) -> dict[str, Field]:
        found = super()._build()
        text = Shape(None, WHOLE)
        for name in ("apiVersion", "kind"):
            found[name] = Field(name, text, always=False, required=False, zero=None)
        meta = schema.definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
        if meta is not None:
            found["metadata"] = Field("metadata", shape_of(meta), always=True, required=False, zero=None)
        return found


def root_shape(group: str, version: str, kind: str, custom: SchemaNode | None = None) -> Shape:
    """The shape of a kind; `custom` is the schema of a custom resource, where there is one."""
    node = schema.for_kind(group, version, kind) if custom is None else None
    if node is None:
        return _CustomRoot(custom)
    return shape_of(node)
