from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from api.models import core_v1
from client.backoff import Backoff
from client.client import Client, Write, key_of
from client.informer import EventHandler, Informer, Informers
from client.listers import BY_NODE, pod_node
from machinery.clock import VirtualClock
from machinery.errors import Expired, Gone, NotFound, Timeout
from machinery.meta import ObjectKey
from proto.api.v1 import resource_pb2 as pb
from tests.unit.client.scripted import (
    AWAY,
    ScriptedTransport,
    added,
    bookmark,
    deleted,
    modified,
    page,
    pod,
)

HANG = ScriptedTransport.HANG


class Scenario:
    """One informer of pods on a scripted transport, with what its handlers were told."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.transport = ScriptedTransport()
        self.informer: Informer[core_v1.Pod] = Informer(
            Client(self.transport),
            core_v1.Pod,
            clock=self.clock,
            indexers={BY_NODE: pod_node},
            backoff=Backoff(initial=1.0, cap=2.0, jitter=0.0),
        )
        self.told: list[str] = []
        self.informer.add_handler(
            EventHandler(
                lambda new: self.told.append(f"+{key_of(new).name}"),
                lambda _, new: self.told.append(f"~{key_of(new).name}"),
                lambda old: self.told.append(f"-{key_of(old).name}"),
            )
        )

    def names(self) -> list[str]:
        return sorted(key_of(each).name for each in self.informer.lister.list())

    def watched_from(self) -> list[str]:
        return [request.resource_version for request in self.transport.sent(pb.WatchRequest)]


@pytest.fixture
async def scenario() -> AsyncIterator[Scenario]:
    yield Scenario()


@contextlib.asynccontextmanager
async def running(scenario: Scenario) -> AsyncIterator[None]:
    task = asyncio.ensure_future(scenario.informer.run())
    await scenario.clock.advance(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert scenario.transport.open_watches == 0


async def test_lists_then_watches_from_the_list_version(scenario: Scenario) -> None:
    scenario.transport.script("list", page(10, pod("a", 3), pod("b", 7)))
    scenario.transport.script("watch", [[added(pod("c", 11)), modified(pod("a", 12))], deleted(pod("b", 13)), HANG])
    assert scenario.informer.state.name == "EMPTY"
    async with running(scenario):
        assert scenario.informer.state.name == "WATCHING"
        assert scenario.informer.has_synced
        assert scenario.names() == ["a", "c"]
        assert scenario.told == ["+a", "+b", "+c", "~a", "-b"]
        assert scenario.watched_from() == ["10"]
        assert scenario.informer.resource_version == "13"


async def test_pages_are_joined(scenario: Scenario) -> None:
    scenario.transport.script("list", page(10, pod("a", 3), token="more"), page(10, pod("b", 7)))
    scenario.transport.script("watch", [HANG])
    async with running(scenario):
        assert scenario.names() == ["a", "b"]
        assert [request.continue_token for request in scenario.transport.sent(pb.ListRequest)] == ["", "more"]


async def test_resumes_after_a_disconnect_without_listing(scenario: Scenario) -> None:
    scenario.transport.script("list", page(10, pod("a", 3)))
    scenario.transport.script("watch", [added(pod("b", 11)), AWAY], AWAY, AWAY, [added(pod("c", 12)), HANG])
    async with running(scenario):
        assert scenario.informer.state.name == "LISTED"
        await scenario.clock.advance(10)
        assert scenario.informer.state.name == "WATCHING"
        assert scenario.names() == ["a", "b", "c"]
        assert scenario.watched_from() == ["10", "11", "11", "11"]
        assert len(scenario.transport.sent(pb.ListRequest)) == 1


async def test_bookmark_moves_the_resume_point(scenario: Scenario) -> None:
    scenario.transport.script("list", page(10))
    scenario.transport.script("watch", [bookmark(500), AWAY], [HANG])
    async with running(scenario):
        await scenario.clock.advance(5)
        assert scenario.watched_from() == ["10", "500"]


@pytest.mark.parametrize(
    "gone", [pytest.param(Expired.of_revision(10, 400), id="expired"), pytest.param(Gone("gone"), id="gone")]
)
async def test_lists_again_when_history_is_gone(scenario: Scenario, gone: Gone) -> None:
    scenario.transport.script("list", page(10, pod("a", 3), pod("b", 4)), page(500, pod("b", 4), pod("c", 450)))
    scenario.transport.script("watch", [gone], [HANG])
    async with running(scenario):
        await scenario.clock.advance(5)
        assert scenario.names() == ["b", "c"]
        assert scenario.told == ["+a", "+b", "-a", "+c"], "an unchanged object is not told again"
        assert scenario.watched_from() == ["10", "500"]
        assert scenario.informer.relists == 1


async def test_waits_for_a_server_that_is_away_at_first(scenario: Scenario) -> None:
    scenario.transport.script("list", AWAY, AWAY, AWAY, page(10, pod("a", 3)))
    scenario.transport.script("watch", [HANG])
    async with running(scenario):
        assert not scenario.informer.has_synced
        await scenario.clock.advance(10)
        assert scenario.informer.has_synced
        assert scenario.names() == ["a"]


async def test_a_list_that_breaks_half_way_starts_over(scenario: Scenario) -> None:
    scenario.transport.script("list", page(10, pod("a", 3), token="more"), AWAY, page(12, pod("b", 11)))
    scenario.transport.script("watch", [HANG])
    async with running(scenario):
        assert scenario.names() == []
        await scenario.clock.advance(5)
        assert scenario.names() == ["b"]
        assert scenario.told == ["+b"]


async def test_duplicate_and_stale_events_are_ignored(scenario: Scenario) -> None:
    scenario.transport.script("list", page(10, pod("a", 9)))
    scenario.transport.script(
        "watch", [[added(pod("a", 9)), modified(pod("a", 8)), modified(pod("a", 11)), modified(pod("a", 11))], HANG]
    )
    async with running(scenario):
        assert scenario.told == ["+a", "~a"]


async def test_a_stream_that_ends_at_once_is_not_reopened_in_a_tight_loop(scenario: Scenario) -> None:
    scenario.transport.script("list", page(10))
    scenario.transport.script("watch", *[[] for _ in range(100)])
    async with running(scenario):
        await scenario.clock.advance(6)
        assert 2 <= len(scenario.watched_from()) <= 5


async def test_unreadable_objects_are_skipped(scenario: Scenario) -> None:
    broken = pb.Object(namespace="default", name="x", resource_version=11, json=b'{"metadata": {"name": 5}}')
    scenario.transport.script("list", page(10, pod("a", 3)))
    scenario.transport.script("watch", [added(broken), added(pod("b", 12)), HANG])
    async with running(scenario):
        assert scenario.names() == ["a", "b"]


async def test_a_failing_handler_does_not_stop_the_others(scenario: Scenario) -> None:
    def fail(_: core_v1.Pod) -> None:
        raise RuntimeError("boom")

    scenario.informer._handlers.insert(0, EventHandler(on_add=fail))
    scenario.transport.script("list", page(10, pod("a", 3)))
    scenario.transport.script("watch", [HANG])
    async with running(scenario):
        assert scenario.told == ["+a"]


async def test_managed_fields_are_not_cached_and_indexes_follow_changes(scenario: Scenario) -> None:
    scenario.transport.script("list", page(10, pod("a", 3), pod("b", 4, node="n1")))
    scenario.transport.script("watch", [[modified(pod("a", 11, node="n1")), modified(pod("b", 12, node="n2"))], HANG])
    async with running(scenario):
        lister = scenario.informer.lister
        assert [key_of(each).name for each in lister.by_index(BY_NODE, "n1")] == ["a"]
        assert [key_of(each).name for each in lister.by_index(BY_NODE, "n2")] == ["b"]
        assert lister.by_index(BY_NODE, "n3") == []
        assert len(lister.list("default")) == 2
        assert lister.list("other") == []
        found = lister.get(ObjectKey("default", "a"))
        assert found is not None
        assert found.metadata is not None
        assert found.metadata.managedFields is None


async def test_has_seen_and_when_seen(scenario: Scenario) -> None:
    arrive = asyncio.Event()
    scenario.transport.script("list", page(10, pod("a", 3)))
    scenario.transport.script("watch", [arrive, [modified(pod("a", 20)), deleted(pod("a", 21))], HANG])
    resource = scenario.informer.resource
    key = ObjectKey("default", "a")
    called: list[str] = []
    async with running(scenario):
        assert scenario.informer.has_seen(Write(resource, key, 10))
        assert not scenario.informer.has_seen(Write(resource, key, 20))
        assert not scenario.informer.has_seen(Write(resource, key, 3, gone=True)), "deleted, but still cached"
        scenario.informer.when_seen(Write(resource, key, 20), lambda: called.append("update"))
        scenario.informer.when_seen(Write(resource, key, 3, gone=True), lambda: called.append("delete"))
        assert called == []
        arrive.set()
        await scenario.clock.advance(0)
        assert called == ["update", "delete"]


async def test_informers_are_shared_and_run_when_added_late() -> None:
    clock, transport = VirtualClock(), ScriptedTransport()
    transport.script("list", page(10, pod("a", 3)))
    transport.script("watch", [HANG])
    informers = Informers(Client(transport), clock)
    task = asyncio.ensure_future(informers.run())
    await clock.advance(0)
    informer = informers.informer(core_v1.Pod)
    assert informers.informer(core_v1.Pod, indexers={BY_NODE: pod_node}) is informer
    assert informers.informer(core_v1.Pod, namespace="x") is not informer
    await clock.advance(0)
    await asyncio.wait_for(informer.wait_synced(), 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_server_restored_to_an_older_state_is_believed_after_a_while(scenario: Scenario) -> None:
    future = Timeout.resource_version_too_large(10, 5)
    scenario.transport.script("list", page(10, pod("a", 3), pod("b", 10)), page(5, pod("a", 3), pod("c", 4)))
    scenario.transport.script("watch", future, future, future, future, [added(pod("d", 6)), HANG])
    async with running(scenario):
        await scenario.clock.advance(20)
        assert scenario.names() == ["a", "c", "d"]
        assert scenario.watched_from() == ["10"] * 4 + ["5"]


async def test_a_server_that_only_lags_is_waited_for(scenario: Scenario) -> None:
    future = Timeout.resource_version_too_large(10, 9)
    scenario.transport.script("list", page(10, pod("a", 3)))
    scenario.transport.script("watch", future, future, [HANG])
    async with running(scenario):
        await scenario.clock.advance(20)
        assert scenario.informer.relists == 0
        assert scenario.informer.state.name == "WATCHING"


async def test_a_kind_that_is_not_served_is_empty_and_asked_for_again(scenario: Scenario) -> None:
    scenario.transport.script("list", NotFound.path(), page(10, pod("a", 3)))
    scenario.transport.script("watch", [HANG])
    async with running(scenario):
        assert scenario.informer.has_synced
        assert scenario.names() == []
        await scenario.clock.advance(11)
        assert scenario.names() == ["a"]
