"""JSON to typed objects and back; decoders are built once per type (about 10 ms for a Pod) and kept."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
_encoder = msgspec.json.Encoder()
_untyped = msgspec.json.Decoder()


_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """The decoder of a model class; its `decode` raises msgspec.ValidationError on a wrong shape."""
    found = _decoders.get(kind)
    if found is None:
        found = _decoders[kind] = msgspec.json.Decoder(kind)
    return found


def decode(raw: bytes, kind: type[T]) -> T:
    """Decode one object into a model class."""
    return decoder(kind).decode(raw)


def decode_dict(raw: bytes) -> dict[str, Any]:
    """Decode one object untyped. Raises msgspec.DecodeError, also when it is no JSON object."""
    value = _untyped.decode(raw)
    if not isinstance(value, dict):
        raise msgspec.DecodeError("not a JSON object")
    return value


def encode(value: Any) -> bytes:
    """Encode a typed object or plain data; unset fields are left out."""
    return _encoder.encode(value)
