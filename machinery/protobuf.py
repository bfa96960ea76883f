"""Kubernetes' protobuf encoding, to and from the JSON objects that everything else here speaks.

Owns: the envelope (``k8s\\0`` and runtime.Unknown) and messages, driven by the field table. `decode` gives what the
sender's JSON would have said: values that Go leaves out of JSON are left out. Never: knows HTTP, defaults or
validation. Anything malformed is a BadRequest, whatever the bytes. Called by the REST door for bodies and answers of
this media type.
"""

from __future__ import annotations

import base64
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from machinery import protobuf_fields
from machinery.errors import BadRequest
from machinery.golang import json_error
from machinery.protobuf_fields import Field

MAGIC = b"k8s\x00"
_MAX_DEPTH = 100
_MASK64 = (1 << 64) - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MISSING: Any = object()


class _Malformed(ValueError):
    """Bytes that are not the message they claim to be."""


def decode(body: bytes, kind: str = "") -> dict[str, Any]:
    """The object in an enveloped body. `kind` is what the request expects; it only goes into messages."""
    if not body:
        raise BadRequest(_unrecognized(kind, "empty data (<empty>)"))
    if not body.startswith(MAGIC):
        prefix = " ".join(map(str, MAGIC))
        why = f"provided data does not appear to be a protobuf message, expected prefix [{prefix}]"
        raise BadRequest(_unrecognized(kind, f"{why} ({_shown(body)})"))
    try:
        envelope = _Envelope.parse(body[len(MAGIC) :])
    except (_Malformed, UnicodeDecodeError) as error:
        raise BadRequest(_unrecognized(kind, f"{error} ({_shown(body)})")) from error
    name = protobuf_fields.message_of_kind(envelope.api_version, envelope.kind)
    if name is None:
        raise BadRequest(
            f'no kind "{envelope.kind}" is registered for version "{envelope.api_version}" '
            'in scheme "pkg/api/legacyscheme/scheme.go:30"'
        )
    head = {"apiVersion": envelope.api_version, "kind": envelope.kind}
    return {**head, **decode_message(name, envelope.raw)}


def decode_message(name: str, raw: bytes) -> dict[str, Any]:
    """A bare message by its full name, e.g. ``k8s.io.api.core.v1.Pod``. BadRequest when `raw` is none."""
    try:
        return _decode_message(name, raw, 0, len(raw), 0, {})
    except (_Malformed, UnicodeDecodeError) as error:
        raise BadRequest(f"unable to decode {name.rpartition('.')[2]}: {error}") from error


def encode(obj: dict[str, Any]) -> bytes:
    """The enveloped form of an object that has apiVersion and kind. BadRequest for kinds without a message."""
    api_version, kind = str(obj.get("apiVersion") or ""), str(obj.get("kind") or "")
    name = protobuf_fields.message_of_kind(api_version, kind)
    if name is None:
        raise BadRequest(f'no protobuf message is known for kind "{kind}" of version "{api_version}"')
    type_meta = _bytes_field(1, api_version.encode()) + _bytes_field(2, kind.encode())
    tail = _bytes_field(3, b"") + _bytes_field(4, b"")  # contentEncoding, contentType: written even when empty
    return MAGIC + _bytes_field(1, type_meta) + _bytes_field(2, encode_message(name, obj)) + tail


def encode_message(name: str, obj: dict[str, Any]) -> bytes:
    """A bare message; members the table does not know are left out. BadRequest when a value does not fit its field."""
    try:
        return _encode_message(name, obj)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, struct.error) as error:
        raise BadRequest(f"unable to encode {name.rpartition('.')[2]}: {error}") from error


def _shown(body: bytes) -> str:
    """The beginning of a body, as upstream's summaries show it."""
    return body[:30].hex() + (" ..." if len(body) > 30 else "")


def _unrecognized(kind: str, why: str) -> str:
    expected = f" (must be of type {kind})" if kind else ""
    return f"the object provided is unrecognized{expected}: {why}"


class _Envelope(msgspec.Struct):
    api_version: str = ""
    kind: str = ""
    raw: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> _Envelope:
        envelope = cls()
        for number, value in _fields(data):
            if number == 1:
                for inner, text in _fields(_as_bytes(value)):
                    if inner == 1:
                        envelope.api_version = _as_bytes(text).decode()
                    elif inner == 2:
                        envelope.kind = _as_bytes(text).decode()
            elif number == 2:
                envelope.raw = _as_bytes(value)
        return envelope


def _as_bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise _Malformed("wrong wire type")
    return value


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= end:
            raise _Malformed("unexpected EOF")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & _MASK64, at
        shift += 7
        if shift >= 70:
            raise _Malformed("integer overflow")


def _fields(data: bytes) -> list[tuple[int, bytes | int]]:
    """Every field of a small message, fixed-width ones left out."""
    found: list[tuple[int, bytes | int]] = []
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at, end)
        wire = tag & 7
        if tag >> 3 == 0:
            raise _Malformed("illegal tag 0")
        if wire == 0:
            value, at = _varint(data, at, end)
            found.append((tag >> 3, value))
        elif wire == 2:
            length, at = _varint(data, at, end)
            if length > end - at:
                raise _Malformed("unexpected EOF")
            found.append((tag >> 3, data[at : at + length]))
            at += length
        else:
            at = _skip(wire, at, end)
    return found


def _skip(wire: int, at: int, end: int) -> int:
    at += {1: 8, 5: 4}.get(wire, end + 1)
    if at > end:
        raise _Malformed("unexpected EOF" if wire in (1, 5) else f"illegal wire type {wire}")
    return at


def _decode_message(name: str, data: bytes, at: int, end: int, depth: int, into: dict[str, Any]) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise _Malformed("nested too deeply")
    fields = protobuf_fields.message(name)
    while at < end:
        tag, at = _varint(data, at, end)
        wire = tag & 7
        if tag >> 3 == 0:
            raise _Malformed("illegal tag 0")
        field = fields.get(tag >> 3)
        if wire == 2:
            length, at = _varint(data, at, end)
            if length > end - at:
                raise _Malformed("unexpected EOF")
            if field is not None:
                _take_bytes(field, data, at, at + length, depth, into)
            at += length
        elif wire == 0:
            number, at = _varint(data, at, end)
            if field is not None:
                _put(field, _number(field.code, number), into)
        else:
            start, at = at, _skip(wire, at, end)
            if field is not None:
                if wire != 1 or field.code != "d":
                    raise _Malformed(f"wrong wireType = {wire} for field {field.name}")
                _put(field, _double(data[start:at]), into)
    return into


def _double(data: bytes) -> float:
    value: float = struct.unpack("<d", data)[0]
    if value != value or value in (float("inf"), float("-inf")):
        raise _Malformed("not a JSON number")
    return value


def _number(code: str, value: int) -> Any:
    if code == "b":
        return value != 0
    if code in "il":
        bits = 32 if code == "i" else 64
        value &= (1 << bits) - 1
        return value - (1 << bits) if value >> (bits - 1) else value
    raise _Malformed("wrong wireType = 0")


def _put(field: Field, value: Any, into: dict[str, Any]) -> None:
    if field.map:
        raise _Malformed(f"wrong wireType for field {field.name}")
    if field.repeated:
        into.setdefault(field.name, []).append(value)
    elif field.drops_zero and not value:
        into.pop(field.name, None)
    else:
        into[field.name] = value


def _take_bytes(field: Field, data: bytes, start: int, end: int, depth: int, into: dict[str, Any]) -> None:
    if field.map:
        key, value = _map_entry(field, data, start, end, depth)
        into.setdefault(field.name, {})[key] = value
        return
    if field.code == "@":
        if field.repeated:
            item = _decode_message(field.message, data, start, end, depth + 1, {})
            into.setdefault(field.name, []).append(item)
        elif not field.name:
            _decode_message(field.message, data, start, end, depth + 1, into)
        else:
            # A message that comes twice is merged, as protobuf asks.
            _decode_message(field.message, data, start, end, depth + 1, into.setdefault(field.name, {}))
        return
    if field.repeated and field.code in "bild":
        into.setdefault(field.name, []).extend(_packed(field.code, data, start, end))
        return
    value = _value(field.code, field.message, data, start, end, depth)
    if value is not _MISSING:
        _put(field, value, into)


def _packed(code: str, data: bytes, at: int, end: int) -> list[Any]:
    values = []
    while at < end:
        if code == "d":
            stop = _skip(1, at, end)
            values.append(_double(data[at:stop]))
            at = stop
        else:
            number, at = _varint(data, at, end)
            values.append(_number(code, number))
    return values


def _map_entry(field: Field, data: bytes, start: int, end: int, depth: int) -> tuple[str, Any]:
    key = ""
    value: Any = _MISSING
    for number, content in _fields(data[start:end]):
        if number == 1:
            key = _as_bytes(content).decode()
        elif number == 2:
            if isinstance(content, int):
                value = _number(field.code, content)
            else:
                value = _value(field.code, field.message, content, 0, len(content), depth + 1)
    if value is _MISSING:
        value = _value(field.code, field.message, b"", 0, 0, depth + 1) if field.code not in "bild" else 0
    return key, None if value is _MISSING else value


def _value(code: str, message: str, data: bytes, start: int, end: int, depth: int) -> Any:
    """One length-delimited value; `_MISSING` for what JSON leaves out or shows as null."""
    match code:
        case "s":
            return data[start:end].decode()
        case "@":
            return _decode_message(message, data, start, end, depth + 1, {})
        case "y":
            return base64.b64encode(data[start:end]).decode()
        case "R":
            return _raw(data[start:end], depth)
        case "Q":
            return next((_as_bytes(v).decode() for n, v in _fields(data[start:end]) if n == 1), "0")
        case "T" | "U":
            return _time(code, data[start:end])
        case "I":
            parts = dict(_fields(data[start:end]))
            if parts.get(1):
                return _as_bytes(parts.get(3, b"")).decode()
            number = parts.get(2, 0)
            if not isinstance(number, int):
                raise _Malformed("wrong wire type")
            return _number("i", number)
        case "D":
            seconds = dict(_fields(data[start:end])).get(1, 0)
            if not isinstance(seconds, int):
                raise _Malformed("wrong wire type")
            return _go_duration(_number("l", seconds))
        case "L":
            return [_as_bytes(v).decode() for n, v in _fields(data[start:end]) if n == 1]
        case "A" | "B" | "S":
            return _schema_or(code, message, data[start:end], depth)
    raise _Malformed("wrong wireType = 2")


def _raw(envelope: bytes, depth: int) -> Any:
    """RawExtension, JSON and FieldsV1: field 1 holds JSON, or an enveloped object."""
    content = next((_as_bytes(v) for n, v in _fields(envelope) if n == 1), b"")
    if not content:
        return _MISSING
    if content.startswith(MAGIC):
        if depth > _MAX_DEPTH:
            raise _Malformed("nested too deeply")
        inner = _Envelope.parse(content[len(MAGIC) :])
        name = protobuf_fields.message_of_kind(inner.api_version, inner.kind)
        if name is None:
            raise _Malformed(f'no kind "{inner.kind}" is registered for version "{inner.api_version}"')
        head = {"apiVersion": inner.api_version, "kind": inner.kind}
        return {**head, **_decode_message(name, inner.raw, 0, len(inner.raw), depth + 1, {})}
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _Malformed(json_error(content) or str(error)) from error


def _schema_or(code: str, message: str, data: bytes, depth: int) -> Any:
    """The unions of a custom resource's schema: one schema, or a list, a boolean or a list of names."""
    schemas: list[Any] = []
    names: list[str] = []
    one: Any = _MISSING
    allows = False
    for number, content in _fields(data):
        if code == "B":
            if number == 1:
                allows = bool(content)
            elif number == 2:
                text = _as_bytes(content)
                one = _decode_message(message, text, 0, len(text), depth + 1, {})
        elif number == 1:
            text = _as_bytes(content)
            one = _decode_message(message, text, 0, len(text), depth + 1, {})
        elif number == 2 and code == "S":
            names.append(_as_bytes(content).decode())
        elif number == 2:
            text = _as_bytes(content)
            schemas.append(_decode_message(message, text, 0, len(text), depth + 1, {}))
    if one is not _MISSING:
        return one
    return allows if code == "B" else names if code == "S" else schemas


def _time(code: str, data: bytes) -> Any:
    parts = dict(_fields(data))
    seconds, nanos = parts.get(1, 0), parts.get(2, 0)
    if not isinstance(seconds, int) or not isinstance(nanos, int):
        raise _Malformed("wrong wire type")
    seconds = _number("l", seconds)
    if seconds == 0 and nanos == 0:
        return _MISSING  # Go's zero time is null in JSON
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError as error:
        raise _Malformed("time out of range") from error
    # strftime does not pad years before 1000, isoformat does.
    text = moment.replace(tzinfo=None, microsecond=0).isoformat()
    return f"{text}Z" if code == "T" else f"{text}.{nanos % 1_000_000_000 // 1000:06d}Z"


def _go_duration(nanoseconds: int) -> str:
    """Go's Duration text: ``1h30m0s``, ``1.5s``, ``250ms``."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest < 1_000_000_000:
        unit, size = next(u for u in (("ms", 10**6), ("µs", 10**3), ("ns", 1)) if rest >= u[1])
        whole, part = divmod(rest, size)
        digits = f".{part:0{len(str(size)) - 1}d}".rstrip("0").rstrip(".") if part else ""
        return f"{sign}{whole}{digits}{unit}"
    minutes, part = divmod(rest, 60 * 10**9)
    whole, fraction = divmod(part, 10**9)
    seconds = f"{whole}" + (f".{fraction:09d}".rstrip("0") if fraction else "") + "s"
    hours, minutes = divmod(minutes, 60)
    return sign + (f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else "") + seconds


# --- encoding ---------------------------------------------------------------------------------------------------------


def _put_varint(value: int) -> bytes:
    out = bytearray()
    value &= _MASK64
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes_field(number: int, content: bytes) -> bytes:
    return _put_varint(number << 3 | 2) + _put_varint(len(content)) + content


def _encode_message(name: str, obj: dict[str, Any]) -> bytes:
    out = bytearray()
    for field in sorted(protobuf_fields.message(name).values()):
        if not field.name:
            out += _bytes_field(field.number, _encode_message(field.message, obj))
            continue
        value = obj.get(field.name)
        if value is None:
            continue
        if field.map:
            for key in sorted(value):
                entry = _bytes_field(1, str(key).encode()) + _encode_field(2, field, value[key])
                out += _bytes_field(field.number, entry)
        elif field.repeated:
            for item in value:
                out += _encode_field(field.number, field, item)
        else:
            out += _encode_field(field.number, field, value)
    return bytes(out)


def _encode_field(number: int, field: Field, value: Any) -> bytes:
    code = field.code
    if code in "bil":
        return _put_varint(number << 3) + _put_varint(int(value))
    if code == "d":
        return _put_varint(number << 3 | 1) + struct.pack("<d", value)
    return _bytes_field(number, _encode_value(code, field.message, value))


def _encode_value(code: str, message: str, value: Any) -> bytes:
    match code:
        case "s":
            return str(value).encode()
        case "@":
            return _encode_message(message, value) if value is not None else b""
        case "y":
            return base64.b64decode(value, validate=True)
        case "R":
            return _bytes_field(1, msgspec.json.encode(value))
        case "Q":
            return _bytes_field(1, str(value).encode())
        case "T" | "U":
            return _encode_time(value)
        case "I":
            if isinstance(value, str):
                return _put_varint(8) + _put_varint(1) + _put_varint(16) + b"\0" + _bytes_field(3, value.encode())
            return _put_varint(8) + b"\0" + _put_varint(16) + _put_varint(int(value)) + _bytes_field(3, b"")
        case "D":
            return _put_varint(8) + _put_varint(_nanoseconds(value))
        case "L":
            return b"".join(_bytes_field(1, str(item).encode()) for item in value)
        case "A":
            if isinstance(value, list):
                return b"".join(_bytes_field(2, _encode_message(message, item)) for item in value)
            return _bytes_field(1, _encode_message(message, value))
        case "B":
            if isinstance(value, bool):
                return _put_varint(8) + _put_varint(value)
            return _put_varint(8) + b"\x01" + _bytes_field(2, _encode_message(message, value))
        case "S":
            if isinstance(value, list):
                return b"".join(_bytes_field(2, str(item).encode()) for item in value)
            return _bytes_field(1, _encode_message(message, value))
    raise ValueError(f"no encoding for type {code}")


def _encode_time(value: str) -> bytes:
    moment = datetime.fromisoformat(value)
    since = moment - _EPOCH
    seconds = since.days * 86_400 + since.seconds
    return _put_varint(8) + _put_varint(seconds) + _put_varint(16) + _put_varint(since.microseconds * 1000)


def _nanoseconds(text: str) -> int:
    units = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
    rest, total = text.lstrip("+-"), 0
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:digits], rest[digits:]
        unit = next(name for name in ("ns", "us", "µs", "ms", "s", "m", "h") if rest.startswith(name))
        whole, _, fraction = number.partition(".")
        total += int(whole or "0") * units[unit] + int(fraction or "0") * units[unit] // 10 ** len(fraction)
        rest = rest[len(unit) :]
    return -total if text.startswith("-") else total
