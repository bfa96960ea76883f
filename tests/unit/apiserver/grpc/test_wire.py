from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.grpc import wire
from apiserver.storage.entry import ADDED, BOOKMARK, DELETED, Event
from machinery.meta import ObjectKey
from proto.api.v1 import resource_pb2 as pb


def event(number: int, size: int = 10) -> Event:
    return Event(ADDED, b"x" * size, ObjectKey("a", f"n{number}"), number)


@given(st.lists(st.integers(0, 300_000), max_size=12))
def test_batches_hold_all_events_in_order_within_the_limit(sizes: list[int]) -> None:
    events = [event(number, size) for number, size in enumerate(sizes)]
    messages = list(wire.batches(events))
    found = [each for message in messages for each in pb.WatchBatch.FromString(message).events]
    assert [each.object.resource_version for each in found] == list(range(len(sizes)))
    assert [len(each.object.json) for each in found] == sizes
    assert all(len(message) <= wire.BATCH_BYTES + 100 for message in messages)


@pytest.mark.parametrize(
    ("kind", "expected", "raw"),
    [(DELETED, pb.EVENT_TYPE_DELETED, b"{}"), (BOOKMARK, pb.EVENT_TYPE_BOOKMARK, b"")],
)
def test_types(kind: bytes, expected: int, raw: bytes) -> None:
    (found,) = pb.WatchBatch.FromString(wire.wire(Event(kind, b"{}", ObjectKey("a", "b"), 7))).events
    assert (found.type, found.object.json, found.object.name) == (expected, raw, "b")


def test_an_event_is_serialized_once() -> None:
    one = event(1)
    assert wire.wire(one) is wire.wire(one)


@given(st.integers(0, 1 << 40))
def test_varint(value: int) -> None:
    read = 0
    for position, byte in enumerate(wire.varint(value)):
        read |= (byte & 0x7F) << (7 * position)
    assert read == value
