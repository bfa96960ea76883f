"""The order of ports within slices and subsets: by a hash of their Go form, as upstream's controllers sort them.

Pure. The order means nothing, but whoever compares two clusters' objects (or a recorded answer) sees it. Called by
slices.py and legacy.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

_OFFSET: Final = 0x6C62272E07BB014262B821756295C58D
_PRIME: Final = 0x0000000001000000000000000000013B
_MASK: Final = (1 << 128) - 1


@lru_cache(maxsize=4096)
def fnv128a(text: str) -> int:
    """FNV-1a, 128 bit."""
    value = _OFFSET
    for byte in text.encode():
        value = ((value ^ byte) * _PRIME) & _MASK
    return value


def _app_protocol(port: Mapping[str, Any]) -> str:
    return f"AppProtocol:(*string){port.get('appProtocol') or '<nil>'}"


def slice_port_order(port: Mapping[str, Any]) -> int:
    """Sort key of a port of an EndpointSlice, all of whose fields are pointers in Go."""
    name, protocol, number = port.get("name") or "", port.get("protocol") or "TCP", port.get("port")
    return fnv128a(
        f"(v1.EndpointPort){{Name:(*string){name} Protocol:(*v1.Protocol){protocol} Port:(*int32){number} "
        f"{_app_protocol(port)}}}"
    )


def subset_port_order(port: Mapping[str, Any]) -> int:
    """Sort key of a port of an Endpoints subset."""
    name, protocol, number = port.get("name") or "", port.get("protocol") or "TCP", port.get("port")
    return fnv128a(
        f"(v1.EndpointPort){{Name:(string){name} Port:(int32){number} Protocol:(v1.Protocol){protocol} "
        f"{_app_protocol(port)}}}"
    )
