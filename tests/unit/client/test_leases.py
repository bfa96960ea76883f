from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

import msgspec
import pytest

from client.client import Client
from client.leases import LeaderElector, LeadershipLost, LeaseRecord, plan_claim
from machinery.clock import VirtualClock
from machinery.errors import AlreadyExists, Conflict, NotFound
from proto.api.v1 import resource_pb2 as pb
from tests.unit.client.scripted import AWAY, ScriptedTransport

NOW = datetime(2026, 1, 1, tzinfo=UTC)
THEN = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("record", "age", "expected"),
    [
        pytest.param(None, 0, LeaseRecord("me", 15, NOW, NOW, 0), id="no lease yet"),
        pytest.param(LeaseRecord("me", 15, THEN, THEN, 2), 0, LeaseRecord("me", 15, THEN, NOW, 2), id="renew"),
        pytest.param(LeaseRecord("you", 15, THEN, THEN, 2), 14.9, None, id="held"),
        pytest.param(LeaseRecord("you", 15, THEN, THEN, 2), 15, LeaseRecord("me", 15, NOW, NOW, 3), id="run out"),
        pytest.param(LeaseRecord("", 1, THEN, THEN, 2), 0, LeaseRecord("me", 15, NOW, NOW, 3), id="released"),
    ],
)
def test_plan_claim(record: LeaseRecord | None, age: float, expected: LeaseRecord | None) -> None:
    assert plan_claim(record, identity="me", age=age, now=NOW, lease_seconds=15) == expected


class LeaseServer(ScriptedTransport):
    """One Lease with optimistic concurrency; `cut` names identities that get no answer."""

    def __init__(self) -> None:
        super().__init__()
        self.lease: dict[str, object] | None = None
        self.version = 0
        self.away = False

    def store(self, raw: bytes) -> pb.Object:
        self.version += 1
        self.lease = msgspec.json.decode(raw)
        self.lease["metadata"]["resourceVersion"] = str(self.version)  # type: ignore[index]
        return pb.Object(namespace="kube-system", name="l", resource_version=self.version, json=self.raw())

    def raw(self) -> bytes:
        return msgspec.json.encode(self.lease)

    def check(self) -> None:
        if self.away:
            raise AWAY

    async def get(self, request: pb.GetRequest) -> pb.Object:
        self.check()
        if self.lease is None:
            raise NotFound.of("leases", "l")
        return pb.Object(name="l", resource_version=self.version, json=self.raw())

    async def create(self, request: pb.CreateRequest) -> pb.Object:
        self.check()
        if self.lease is not None:
            raise AlreadyExists.of("leases", "l")
        return self.store(request.json)

    async def update(self, request: pb.UpdateRequest) -> pb.Object:
        self.check()
        if msgspec.json.decode(request.json)["metadata"].get("resourceVersion") != str(self.version):
            raise Conflict.of("leases", "l")
        return self.store(request.json)


class Candidate:
    def __init__(self, name: str, server: LeaseServer, clock: VirtualClock) -> None:
        self.leading = False
        self.elector = LeaderElector(Client(server), clock, "kube-system", "l", identity=name, rng=random.Random(name))
        self.task = asyncio.ensure_future(self.elector.run(self.work))

    async def work(self) -> None:
        self.leading = True
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.leading = False

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_one_leads_and_the_other_follows_after_release() -> None:
    clock, server = VirtualClock(), LeaseServer()
    first = Candidate("one", server, clock)
    await clock.advance(0)
    second = Candidate("two", server, clock)
    await clock.advance(60)
    assert (first.leading, second.leading) == (True, False)
    await first.stop()
    assert server.lease is not None
    assert server.lease["spec"]["holderIdentity"] == ""  # type: ignore[index]
    await clock.advance(5)
    assert second.leading, "a released lease is taken within a retry period"
    assert server.lease["spec"]["leaseTransitions"] == 1  # type: ignore[index]
    await second.stop()


async def test_a_dead_leader_is_replaced_after_the_lease() -> None:
    clock, dead_link, server = VirtualClock(), LeaseServer(), LeaseServer()
    first = Candidate("one", server, clock)
    await clock.advance(0)
    second = Candidate("two", server, clock)
    await clock.advance(5)
    first.elector._client = Client(dead_link)
    dead_link.away = True
    cut = clock.monotonic()
    while not second.leading:
        assert not (first.leading and second.leading)
        await clock.advance(0.5)
    assert not first.leading, "the old leader stops before another starts"
    assert 10 <= clock.monotonic() - cut <= 15 + 2 * 2.2 + 2
    with pytest.raises(LeadershipLost):
        await first.task
    await second.stop()


async def test_an_outage_shorter_than_the_deadline_is_survived() -> None:
    clock, server = VirtualClock(), LeaseServer()
    first = Candidate("one", server, clock)
    await clock.advance(3)
    server.away = True
    await clock.advance(7)
    server.away = False
    await clock.advance(30)
    assert first.leading
    await first.stop()


async def test_waits_for_a_server_that_is_away() -> None:
    clock, server = VirtualClock(), LeaseServer()
    server.away = True
    first = Candidate("one", server, clock)
    await clock.advance(60)
    assert not first.leading
    server.away = False
    await clock.advance(5)
    assert first.leading
    await first.stop()
