from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
import pytest

from api.models import core_v1, meta_v1
from client.client import Client
from client.events import (
    NORMAL,
    QUEUE_SIZE,
    SIMILAR_LIMIT,
    SPAM_BURST,
    Correlator,
    EventRecorder,
    Occurrence,
    involved_in,
)
from machinery.clock import VirtualClock
from machinery.errors import Forbidden, NotFound
from proto.api.v1 import resource_pb2 as pb
from tests.unit.client.scripted import AWAY, ScriptedTransport

POD = core_v1.Pod(metadata=meta_v1.ObjectMeta(name="web", namespace="shop", uid="u1", resourceVersion="5"))
ANSWER = pb.Object(namespace="shop", name="x", resource_version=1, json=b'{"metadata":{},"involvedObject":{}}')


class Rig:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.transport = ScriptedTransport()
        self.recorder = EventRecorder(Client(self.transport), self.clock, "kubelet", "worker-1")
        self.task = asyncio.ensure_future(self.recorder.run())

    async def settle(self, seconds: float = 0) -> None:
        for _ in range(40):
            await self.clock.advance(seconds / 40)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def created(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(request.json) for request in self.transport.sent(pb.CreateRequest)]

    def patched(self) -> list[tuple[str, dict[str, Any]]]:
        requests = self.transport.sent(pb.PatchRequest)
        return [(request.ref.name, msgspec.json.decode(request.patch)) for request in requests]


async def test_repeats_are_counted_on_one_event() -> None:
    rig = Rig()
    rig.transport.script("create", ANSWER)
    rig.transport.script("patch", ANSWER, ANSWER)
    for _ in range(3):
        rig.recorder.event(POD, NORMAL, "Pulled", "image present")
        await rig.settle(60)
    (event,) = rig.created()
    assert re.fullmatch(r"web\.[0-9a-f]{16}", event["metadata"]["name"])
    assert event["metadata"]["namespace"] == "shop"
    assert event["involvedObject"] == {
        "kind": "Pod",
        "namespace": "shop",
        "name": "web",
        "uid": "u1",
        "apiVersion": "v1",
        "resourceVersion": "5",
    }
    assert event["source"] == {"component": "kubelet", "host": "worker-1"}
    assert (event["count"], event["type"], event["reason"], event["message"]) == (
        1,
        "Normal",
        "Pulled",
        "image present",
    )
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-01-01T00:00:00Z"
    assert [(name, patch["count"]) for name, patch in rig.patched()] == [
        (event["metadata"]["name"], 2),
        (event["metadata"]["name"], 3),
    ]
    assert rig.patched()[1][1]["lastTimestamp"] == "2026-01-01T00:02:00Z"
    await rig.stop()


async def test_an_expired_event_is_written_anew_with_its_count() -> None:
    rig = Rig()
    rig.transport.script("create", ANSWER, ANSWER)
    rig.transport.script("patch", NotFound.of("events", "x"))
    rig.recorder.event(POD, NORMAL, "Pulled", "image present")
    await rig.settle(3700)
    rig.recorder.event(POD, NORMAL, "Pulled", "image present")
    await rig.settle()
    assert [event["count"] for event in rig.created()] == [1, 2]
    await rig.stop()


async def test_an_outage_delays_and_a_refusal_drops() -> None:
    rig = Rig()
    rig.transport.script("create", AWAY, AWAY, ANSWER, Forbidden("namespace is terminating"), ANSWER)
    for reason in ("One", "Two", "Three"):
        rig.recorder.event(POD, NORMAL, reason, "x")
    await rig.settle(20)
    assert [event["reason"] for event in rig.created()] == ["One", "One", "One", "Two", "Three"]
    await rig.stop()


async def test_recording_never_blocks() -> None:
    rig = Rig()
    for number in range(QUEUE_SIZE + 5):
        rig.recorder.event(POD, NORMAL, "Pulled", f"{number}")
    assert rig.recorder.dropped == 5
    await rig.stop()


def _occurrence(message: str, reason: str = "Failed") -> Occurrence:
    return Occurrence(involved_in(POD), "Warning", reason, message)


def test_many_similar_messages_are_combined() -> None:
    correlator = Correlator(VirtualClock())
    verdicts = [correlator.correlate(_occurrence(f"error {number}")) for number in range(SIMILAR_LIMIT + 5)]
    messages = [verdict.occurrence.message for verdict in verdicts if verdict is not None]
    assert messages[0] == "error 0"
    assert messages[-1] == f"(combined from similar events): error {SIMILAR_LIMIT + 4}"
    combined = [verdict for verdict in verdicts if verdict and verdict.occurrence.message.startswith("(combined")]
    assert [verdict.times for verdict in combined] == list(range(1, len(combined) + 1))
    assert len({verdict.name for verdict in combined}) == 1


async def test_an_object_that_spams_is_silenced_and_recovers() -> None:
    clock = VirtualClock()
    correlator = Correlator(clock)
    written = [correlator.correlate(_occurrence("same")) for _ in range(SPAM_BURST + 10)]
    assert sum(verdict is not None for verdict in written) == SPAM_BURST
    await clock.advance(301)
    assert correlator.correlate(_occurrence("same")) is not None
    assert correlator.correlate(_occurrence("same")) is None


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(POD, ("Pod", "shop", "web", "u1", "v1", "5"), id="typed"),
        pytest.param(
            {"kind": "X", "apiVersion": "g/v1", "metadata": {"name": "n"}}, ("X", "", "n", "", "g/v1", ""), id="dict"
        ),
        pytest.param(
            core_v1.ObjectReference(kind="Node", name="n1", uid="n1"), ("Node", "", "n1", "n1", "", ""), id="reference"
        ),
    ],
)
def test_involved_in(obj: object, expected: tuple[str, ...]) -> None:
    assert involved_in(obj)[:6] == expected
