"""Values that expressions may hold but not look into: quantities, addresses, versions, rights.

The CEL library carries foreign values only as protobuf messages, so each kind is a message of one string. Two values of
a kind are equal when their texts are: whoever makes one writes it in a canonical form. Used by the function families.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE: Final = "kubernetes"
KINDS: Final = (
    "Quantity",
    "IP",
    "CIDR",
    "URL",
    "Semver",
    "Format",
    "Authorizer",
    "PathCheck",
    "GroupCheck",
    "ResourceCheck",
    "Decision",
)


@cache
def _classes() -> dict[str, Any]:
    pool = descriptor_pool.Default()
    file = descriptor_pb2.FileDescriptorProto(name="kubernetes/opaque.proto", package=PACKAGE, syntax="proto3")
    for kind in KINDS:
        file.message_type.add(name=kind).field.add(name="text", number=1, type=9, label=1)
    pool.AddSerializedFile(file.SerializeToString())
    return {kind: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{kind}")) for kind in KINDS}


def pool() -> Any:
    """The descriptor pool that knows the kinds."""
    _classes()
    return descriptor_pool.Default()


def wrap(kind: str, text: str) -> Any:
    """A value of the kind."""
    return _classes()[kind](text=text)
