"""Typed decoders made from the schema: the fast path of field validation.

Owns: one msgspec Struct per definition that refuses unknown fields, built when a kind is first written, so that a
body without fault costs one decode. Nothing is kept of what is decoded. Never: words errors. Called by
`apiserver.fieldvalidation`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Union

import msgspec

from api.schema import SchemaNode

QUANTITY = r"^[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$"
MICRO_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)$"
MICRO_TIME_REF = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"

_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_QuantityText = Annotated[str, msgspec.Meta(pattern=QUANTITY)]
_MicroTime = Annotated[str, msgspec.Meta(pattern=MICRO_TIME)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]

# Go takes null for anything and leaves the field as it is.
_SCALARS: dict[str, Any] = {
    "string": str | None,
    "boolean": bool | None,
    "number": float | None,
    "integer": _Int64 | None,
}


class _Recursive(Exception):
    """The definition contains itself; such kinds always take the slow path."""


_structs: dict[str, type[Any] | None] = {}


def fast_decoder(node: SchemaNode) -> msgspec.json.Decoder[Any] | None:
    """A decoder that refuses whatever Go's strict decoder would complain of; None when there can be none."""
    try:
        return msgspec.json.Decoder(_type(node))
    except _Recursive:
        return None


def _type(node: SchemaNode) -> Any:
    if node.quantity:
        return _QuantityText | int | float | None
    if node.int_or_string:
        return _Int32 | str | None
    if node.ref == MICRO_TIME_REF:
        return _MicroTime | None
    node.resolve()
    if node.open:
        return Any
    if node.format == "date-time":
        return _Time | None
    if node.format == "byte":
        return bytes | None
    if node.format == "int32":
        return _Int32 | None
    if node.type in _SCALARS:
        return _SCALARS[node.type]
    if node.type == "array":
        return list[_type(node.items)] | None if node.items is not None else list[Any] | None  # type: ignore[misc]
    if node.properties:
        return Union[_struct(node), None]  # noqa: UP007 - the type is made at run time
    additional = node.additional_properties
    return dict[str, _type(additional)] | None if additional is not None else Any  # type: ignore[misc]


def _struct(node: SchemaNode) -> type[Any]:
    name = node.name
    if name:
        if name in _structs:
            known = _structs[name]
            if known is None:
                raise _Recursive(name)
            return known
        _structs[name] = None
    try:
        made = _make(node)
    except _Recursive:
        # Left as None: whoever refers to it later takes the slow path too.
        raise
    if name:
        _structs[name] = made
    return made


def _make(node: SchemaNode) -> type[Any]:
    fields: list[tuple[str, Any, Any]] = []
    rename: dict[str, str] = {}
    for index, (name, child) in enumerate(node.properties.items()):
        attribute = f"f{index}"  # JSON names may be Python keywords or contain dashes
        rename[attribute] = name
        fields.append((attribute, _type(child), None))
    return msgspec.defstruct("Checked", fields, rename=rename, forbid_unknown_fields=True, gc=False)
