"""Watch batches as bytes.

Owns: the serialized form of an event inside a WatchBatch. A batch is nothing but its events one after the other (field
1, length-delimited), so each event is serialized once, kept with the event, and joined for every watcher.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from apiserver.storage.entry import ADDED, BOOKMARK, DELETED, MODIFIED, Event
from proto.api.v1 import resource_pb2 as pb

BATCH_BYTES = 1 << 20

_TYPES = {
    ADDED: pb.EVENT_TYPE_ADDED,
    MODIFIED: pb.EVENT_TYPE_MODIFIED,
    DELETED: pb.EVENT_TYPE_DELETED,
    BOOKMARK: pb.EVENT_TYPE_BOOKMARK,
}
_EVENTS_FIELD = b"\x0a"


def wire(event: Event) -> bytes:
    """One event as a field of a WatchBatch."""
    made: bytes | None = event.wire
    if made is None:
        namespace, name = event.key
        raw = event.raw if event.type != BOOKMARK else b""
        body = pb.WatchEvent(
            type=_TYPES[event.type],
            object=pb.Object(namespace=namespace, name=name, resource_version=event.resource_version, json=raw),
        ).SerializeToString()
        made = event.wire = _EVENTS_FIELD + varint(len(body)) + body
    return made


def varint(value: int) -> bytes:
    """A protobuf base-128 number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def batches(events: Sequence[Event]) -> Iterator[bytes]:
    """Serialized WatchBatches of all events, cut where a message would become too large."""
    parts: list[bytes] = []
    size = 0
    for event in events:
        part = wire(event)
        if parts and size + len(part) > BATCH_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    if parts:
        yield b"".join(parts)
