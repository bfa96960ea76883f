"""The field table of Kubernetes' protobuf messages, and which message a kind is.

Owns: `data/protobuf-fields.json.gz` (made by ``python -m api.protobuf_generate``), read on first use and compiled
message by message. Never: touches wire bytes. Called by `machinery.protobuf` only.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec

_DATA = Path(__file__).with_name("data") / "protobuf-fields.json.gz"

META = "k8s.io.apimachinery.pkg.apis.meta.v1"
# Kinds that every group registers, whatever apiVersion they carry.
_META_KINDS = frozenset(
    (
        "APIGroup",
        "APIGroupList",
        "APIResourceList",
        "APIVersions",
        "CreateOptions",
        "DeleteOptions",
        "GetOptions",
        "ListOptions",
        "PatchOptions",
        "Status",
        "UpdateOptions",
        "WatchEvent",
        "PartialObjectMetadata",
        "PartialObjectMetadataList",
    )
)
_PACKAGES = {
    "": "k8s.io.api.core",
    "apiextensions.k8s.io": "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions",
    "apiregistration.k8s.io": "k8s.io.kube_aggregator.pkg.apis.apiregistration",
    "internal.apiserver.k8s.io": "k8s.io.api.apiserverinternal",
    "meta.k8s.io": "k8s.io.apimachinery.pkg.apis.meta",
    "metrics.k8s.io": "k8s.io.metrics.pkg.apis.metrics",
}


class Field(NamedTuple):
    """One member: `code` is a letter for scalars and special types, ``@`` for a message named `message`."""

    number: int
    name: str  # in JSON; empty when the message is inlined
    code: str
    message: str
    repeated: bool
    map: bool
    drops_zero: bool


Message = dict[int, Field]


@lru_cache(maxsize=1)
def _table() -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(gzip.decompress(_DATA.read_bytes()), type=dict[str, msgspec.Raw])


@lru_cache(maxsize=2048)
def message(name: str) -> Message:
    """The fields of a message by number. KeyError if there is no such message."""
    rows = msgspec.json.decode(_table()[name], type=dict[str, tuple[str, str]])
    return {int(number): _field(int(number), *row) for number, row in rows.items()}


def _field(number: int, name: str, code: str) -> Field:
    drops_zero = code.endswith("?")
    body = code.rstrip("?")
    repeated, is_map = body.startswith("*"), body.startswith("%")
    if repeated or is_map:
        body = body[1:]
    return Field(number, name, body[0], body.partition("@")[2], repeated, is_map, drops_zero)


def message_of_kind(api_version: str, kind: str) -> str | None:
    """The message of a kind, or None when the table has none."""
    if kind in _META_KINDS:
        name = f"{META}.{kind}"
    else:
        group, _, version = api_version.rpartition("/")
        package = _PACKAGES.get(group) or f"k8s.io.api.{group.partition('.')[0]}"
        name = f"{package}.{version}.{kind}"
    return name if name in _table() else None
