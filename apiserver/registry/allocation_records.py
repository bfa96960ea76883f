"""What is written beside a Service so that no other may have its cluster IPs and node ports.

A cluster IP's record is upstream's: the IPAddress object of that name, at the key where upstream keeps it. Upstream has
the node ports of a cluster in one bitmap, which every allocation would have to rewrite; here each is a key of its own
below that bitmap's, where nobody else looks. Pure. Called by `service_store` and `allocation_repair`.
"""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

import msgspec

from apiserver.registry.allocators import Key, Value
from apiserver.registry.naming import new_uid
from apiserver.storage.form import Obj, ObjectForm, encode
from apiserver.storage.keys import ROOT, resource_prefix

ADDRESSES: Final = resource_prefix("networking.k8s.io", "ipaddresses")
PORTS: Final = ROOT + b"ranges/servicenodeports/"
MANAGED_BY: Final = "ipaddress.kubernetes.io/managed-by"
ALLOCATOR: Final = "ipallocator.k8s.io"
FAMILY: Final = "ipaddress.kubernetes.io/ip-family"
_FORM: Final = ObjectForm("IPAddress", "networking.k8s.io/v1")
_FIELDS: Final[Obj] = {
    "f:metadata": {"f:labels": {".": {}, f"f:{FAMILY}": {}, f"f:{MANAGED_BY}": {}}},
    "f:spec": {"f:parentRef": {".": {}, "f:name": {}, "f:namespace": {}, "f:resource": {}}},
}


class Record(NamedTuple):
    """Who holds a value. `ours`: written by an API server's allocator, not by a user."""

    owner: Key
    ours: bool
    created: str


class _Parent(msgspec.Struct):
    resource: str = ""
    namespace: str = ""
    name: str = ""


class _Spec(msgspec.Struct):
    parentRef: _Parent = msgspec.field(default_factory=_Parent)


class _Meta(msgspec.Struct):
    labels: dict[str, str] | None = None
    creationTimestamp: str | None = None


class _Recorded(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    spec: _Spec = msgspec.field(default_factory=_Spec)


def record_key(value: Value) -> bytes:
    """Where the record of a value is."""
    if isinstance(value, str):
        return ADDRESSES + str(ipaddress.ip_address(value)).encode()
    return PORTS + str(value).encode()


def recorded_port(key: bytes) -> Value | None:
    """The node port of a record's key; None when it is none."""
    port = key.removeprefix(PORTS)
    return int(port) if port.isdigit() else None


def write_record(value: Value, owner: Key, now: str) -> bytes:
    """The record as it is stored. `now` is RFC 3339."""
    namespace, name = owner
    spec: Obj = {"parentRef": {"resource": "services", "namespace": namespace, "name": name}}
    if not isinstance(value, str):
        return encode({"metadata": {"creationTimestamp": now, "labels": {MANAGED_BY: ALLOCATOR}}, "spec": spec})
    address = ipaddress.ip_address(value)
    entry: Obj = {
        "manager": "kube-apiserver",
        "operation": "Update",
        "apiVersion": "networking.k8s.io/v1",
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": _FIELDS,
    }
    metadata: Obj = {
        "name": str(address),
        "uid": new_uid(),
        "creationTimestamp": now,
        "labels": {FAMILY: f"IPv{address.version}", MANAGED_BY: ALLOCATOR},
        "managedFields": [entry],
    }
    return _FORM.encode({"metadata": metadata, "spec": spec})


def read_record(value: Value, stored: bytes) -> Record:
    """A record of whatever origin; what cannot be read is somebody else's."""
    try:
        raw = _FORM.adopt(stored) if isinstance(value, str) else stored
        found = msgspec.json.decode(raw, type=_Recorded)
    except ValueError:  # msgspec's errors are ValueErrors, as is BadObject
        return Record(("", ""), False, "")
    parent = found.spec.parentRef
    ours = (found.metadata.labels or {}).get(MANAGED_BY) == ALLOCATOR and parent.resource == "services"
    return Record((parent.namespace, parent.name), ours, found.metadata.creationTimestamp or "")
