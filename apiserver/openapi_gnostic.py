"""OpenAPI v2 in protobuf: the messages of gnostic's `openapi.v2`, which Go clients ask for.

Owns: the table of messages and the encoding of pieces of a document. What a message has no field for is left out;
values of any shape are carried as YAML, of which JSON is a part. Pure. Called by `apiserver.openapi_swagger`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

# message: field=number:type. Types: s string, b bool, i int64, d double, any; a message's name; `*` before a type:
# repeated; `@` before a type: a map, as a message with repeated pairs in field 1. `x`: what begins with x-.
_TABLE = """
Info: title=1:s version=2:s description=3:s
PathItem: get=2:Operation put=3:Operation post=4:Operation delete=5:Operation options=6:Operation head=7:Operation \
patch=8:Operation parameters=9:*ParametersItem x=10
Operation: tags=1:*s summary=2:s description=3:s operationId=5:s produces=6:*s consumes=7:*s \
parameters=8:*ParametersItem responses=9:Responses schemes=10:*s deprecated=11:b x=13
BodyParameter: description=1:s name=2:s in=3:s required=4:b schema=5:Schema x=6
QueryParameter: required=1:b in=2:s description=3:s name=4:s type=6:s format=7:s default=10:any uniqueItems=20:b x=23
PathParameter: required=1:b in=2:s description=3:s name=4:s type=5:s format=6:s default=9:any uniqueItems=19:b x=22
Response: description=1:s schema=2:SchemaItem x=5
SchemaItem: schema=1:Schema
Schema: $ref=1:s format=2:s title=3:s description=4:s default=5:any multipleOf=6:d maximum=7:d exclusiveMaximum=8:b \
minimum=9:d exclusiveMinimum=10:b maxLength=11:i minLength=12:i pattern=13:s maxItems=14:i minItems=15:i \
uniqueItems=16:b maxProperties=17:i minProperties=18:i required=19:*s enum=20:*any \
additionalProperties=21:AdditionalProperties type=22:Type items=23:Items allOf=24:*Schema properties=25:@Schema \
readOnly=27:b example=30:any x=31
ApiKeySecurity: type=1:s name=2:s in=3:s description=4:s
"""


def _parse(table: str) -> dict[str, dict[str, tuple[int, str]]]:
    messages: dict[str, dict[str, tuple[int, str]]] = {}
    for line in filter(None, table.splitlines()):
        name, _, fields = line.partition(": ")
        found = messages[name] = {}
        for field in fields.split():
            key, _, rest = field.rpartition("=")
            number, _, kind = rest.partition(":")
            found[key] = (int(number), kind)
    return messages


_MESSAGES = _parse(_TABLE)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _any(value: Any) -> bytes:
    return _bytes(2, msgspec.json.encode(value) + b"\n")


def named(name: str, value: bytes) -> bytes:
    """A pair of a map."""
    return _bytes(1, name.encode()) + _bytes(2, value)


def message(kind: str, node: Any) -> bytes:
    """One message. Values of other types than the table's are left out: schemas are written by users."""
    if not isinstance(node, Mapping):
        return b""
    fields = _MESSAGES[kind]
    out = []
    for key, value in node.items():
        found = fields.get(key)
        if found is not None:
            out.append(_field(found[0], found[1], value))
        elif key.startswith("x-") and "x" in fields:
            out.append(_bytes(fields["x"][0], named(key, _any(value))))
    return b"".join(out)


def _field(number: int, kind: str, value: Any) -> bytes:
    if kind.startswith("*"):
        items = value if isinstance(value, list) else ()
        return b"".join(_field(number, kind[1:], each) for each in items)
    if kind.startswith("@"):
        pairs = value.items() if isinstance(value, Mapping) else ()
        return _bytes(number, b"".join(_bytes(1, named(name, message(kind[1:], each))) for name, each in pairs))
    if kind == "any":
        return _bytes(number, _any(value))
    if kind == "s":
        return _bytes(number, value.encode()) if isinstance(value, str) else b""
    if kind == "b":
        return _varint(number << 3) + b"\x01" if value is True else b""
    if kind == "i":
        plain = isinstance(value, (int, float)) and not isinstance(value, bool)
        return _varint(number << 3) + _varint(int(value)) if plain else b""
    if kind == "d":
        return _varint(number << 3 | 1) + struct.pack("<d", value) if isinstance(value, (int, float)) else b""
    return _bytes(number, _SPECIAL[kind](value) if kind in _SPECIAL else message(kind, value))


def _type(value: Any) -> bytes:
    return b"".join(_bytes(1, each.encode()) for each in _listed(value) if isinstance(each, str))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _items(value: Any) -> bytes:
    return b"".join(_bytes(1, message("Schema", each)) for each in _listed(value))


def _additional(value: Any) -> bytes:
    if isinstance(value, Mapping):
        return _bytes(1, message("Schema", value))
    return b"\x10\x01" if value else b"\x10\x00"


def _responses(value: Any) -> bytes:
    codes = value.items() if isinstance(value, Mapping) else ()
    return b"".join(_bytes(1, named(code, _bytes(1, message("Response", _with_item(each))))) for code, each in codes)


def _with_item(response: Any) -> Any:
    if isinstance(response, Mapping) and "schema" in response:
        return {**response, "schema": {"schema": response["schema"]}}
    return response


def _parameters_item(value: Any) -> bytes:
    if isinstance(value, Mapping) and "$ref" in value:
        return _bytes(2, _bytes(1, str(value["$ref"]).encode()))
    return _bytes(1, parameter(value))


_SPECIAL = {
    "Type": _type,
    "Items": _items,
    "AdditionalProperties": _additional,
    "Responses": _responses,
    "ParametersItem": _parameters_item,
}


def parameter(value: Any) -> bytes:
    """A `Parameter`: of a body, a query or a path."""
    if not isinstance(value, Mapping):
        return b""
    if value.get("in") == "body":
        return _bytes(1, message("BodyParameter", value))
    if value.get("in") == "path":
        return _bytes(2, _bytes(4, message("PathParameter", value)))
    return _bytes(2, _bytes(3, message("QueryParameter", value)))


def path(name: str, item: Mapping[str, Any]) -> bytes:
    """A path as a field of `Paths`."""
    return _bytes(2, named(name, message("PathItem", item)))


def definition(name: str, node: Mapping[str, Any]) -> bytes:
    """A definition as a field of `Definitions`."""
    return _bytes(1, named(name, message("Schema", node)))


def shared_parameter(name: str, node: Mapping[str, Any]) -> bytes:
    """A parameter as a field of `ParameterDefinitions`."""
    return _bytes(1, named(name, parameter(node)))


def document(
    head: Mapping[str, Any], paths: Iterable[bytes], definitions: Iterable[bytes], parameters: Iterable[bytes]
) -> bytes:
    """The `Document` of the parts that the functions above have made."""
    security = head["securityDefinitions"]
    schemes = b"".join(
        _bytes(1, named(name, _bytes(2, message("ApiKeySecurity", each)))) for name, each in security.items()
    )
    required = b"".join(_bytes(1, named(name, b"")) for name in security)
    return b"".join(
        (
            _bytes(1, head["swagger"].encode()),
            _bytes(2, message("Info", head["info"])),
            _bytes(8, b"".join(paths)),
            _bytes(9, b"".join(definitions)),
            _bytes(10, b"".join(parameters)),
            _bytes(12, required),
            _bytes(13, schemes),
        )
    )
