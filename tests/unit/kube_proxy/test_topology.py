"""Hints of zones and nodes, with the fallbacks of KEP-2433, KEP-4444 and KEP-3015; and the proxy's own place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from client.informer import EventHandler
from kube_proxy.objects import (
    EndpointSlice,
    Hint,
    Hints,
    Metadata,
    Node,
    Port,
    Service,
    ServiceSpec,
    SliceEndpoint,
    SlicePort,
)
from kube_proxy.rules import Endpoint, TableConfig
from kube_proxy.services import ServiceReconciler
from kube_proxy.topology import ZONE, Candidate, Place, local, usable
from machinery.clock import RealClock
from machinery.meta import ObjectKey

HERE = Place("n1", "a")


def at(number: int, *, zones: str = "", nodes: str = "", ready: bool = True, draining: bool = False) -> Candidate:
    return Candidate(
        Endpoint(f"10.0.0.{number}", 80), ready, draining, frozenset(nodes.split()), frozenset(zones.split())
    )


@pytest.mark.parametrize(
    ("candidates", "place", "chosen"),
    [
        pytest.param([at(1), at(2)], HERE, "1 2", id="no hints"),
        pytest.param([at(1, zones="a"), at(2, zones="b")], HERE, "1", id="this zone"),
        pytest.param([at(1, zones="a"), at(2, zones="b")], Place("n9", "b"), "2", id="another zone"),
        pytest.param([at(1, zones="a b"), at(2, zones="b")], Place("n9", "b"), "1 2", id="an endpoint for two zones"),
        pytest.param([at(1, zones="a"), at(2)], HERE, "1 2", id="one without a hint: no hints at all"),
        pytest.param([at(1, zones="b"), at(2, zones="c")], HERE, "1 2", id="nothing for this zone"),
        pytest.param([at(1, zones="a"), at(2, zones="b")], Place("n1"), "1 2", id="a node without zone"),
        pytest.param([at(1, zones="a"), at(2, zones="b")], Place(), "1 2", id="the host"),
        pytest.param([at(1, zones="a", nodes="n1"), at(2, zones="a", nodes="n2")], HERE, "1", id="this node"),
        pytest.param(
            [at(1, zones="a", nodes="n2"), at(2, zones="a", nodes="n3"), at(3, zones="b", nodes="n4")],
            HERE,
            "1 2",
            id="nothing for this node: this zone",
        ),
        pytest.param(
            [at(1, zones="b", nodes="n2"), at(2, zones="c", nodes="n3")], HERE, "1 2", id="neither node nor zone: all"
        ),
        pytest.param(
            [at(1, zones="a", nodes="n1"), at(2, zones="a"), at(3, zones="b")],
            HERE,
            "1 2",
            id="a node hint is missing: this zone",
        ),
        pytest.param(
            [at(1, nodes="n1"), at(2, nodes="n2")], Place("n9", "a"), "1 2", id="only node hints, none for it"
        ),
        pytest.param(
            [at(1, zones="a"), at(2, ready=False)], HERE, "1", id="endpoints that are not ready need no hints"
        ),
        pytest.param(
            [at(1, zones="a", ready=False), at(2, zones="b")], HERE, "2", id="this zone's endpoint is not ready"
        ),
        pytest.param(
            [at(1, zones="a", ready=False, draining=True), at(2, zones="b")],
            HERE,
            "2",
            id="a ready one elsewhere before one here that is going",
        ),
        pytest.param(
            [at(1, zones="b", ready=False, draining=True), at(2, ready=False, draining=True)],
            HERE,
            "1 2",
            id="those that are going are used without hints",
        ),
        pytest.param([at(1, ready=False)], HERE, "", id="nobody"),
        pytest.param([], HERE, "", id="none"),
    ],
)
def test_hints(candidates: list[Candidate], place: Place, chosen: str) -> None:
    assert [each.ip.removeprefix("10.0.0.") for each in usable(candidates, place)] == chosen.split()


@pytest.mark.parametrize(
    ("states", "chosen"),
    [
        pytest.param("ready ready/far", "1", id="those of this machine"),
        pytest.param("draining ready ready/far", "2", id="ready ones before those that are going"),
        pytest.param("draining ready/far", "1", id="those that are going when no other is here"),
        pytest.param("broken ready/far", "", id="nobody here"),
    ],
)
def test_endpoints_of_this_machine(states: str, chosen: str) -> None:
    candidates = []
    for number, text in enumerate(states.split(), 1):
        state, _, far = text.partition("/")
        endpoint = Endpoint(f"10.0.0.{number}", 80, local=not far)
        candidates.append(Candidate(endpoint, state == "ready", state == "draining", zones=frozenset("b")))
    assert [each.ip.removeprefix("10.0.0.") for each in local(candidates)] == chosen.split()


class Cache:
    """An informer whose objects a test sets."""

    def __init__(self) -> None:
        self.objects: dict[ObjectKey, object] = {}
        self.handlers: list[EventHandler[Any]] = []
        self.lister = self

    def add_handler(self, handler: EventHandler[Any]) -> None:
        self.handlers.append(handler)

    async def wait_synced(self) -> None:
        return

    def get(self, key: ObjectKey) -> object | None:
        return self.objects.get(key)

    def list(self) -> list[object]:
        return list(self.objects.values())

    def by_index(self, _index: str, _value: str) -> Iterable[object]:
        return self.list()

    def set(self, namespace: str, name: str, obj: object) -> None:
        key = ObjectKey(namespace, name)
        old, self.objects[key] = self.objects.get(key), obj
        for handler in self.handlers:
            if old is None and handler.on_add is not None:
                handler.on_add(obj)
            elif old is not None and handler.on_update is not None:
                handler.on_update(old, obj)


class Recorded:
    """A dataplane that keeps what it is given."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.applied = asyncio.Event()

    async def apply(self, text: str) -> None:
        self.texts.append(text)
        self.applied.set()

    async def forget_udp(self, flows: Iterable[tuple[str, int, str]]) -> None:
        raise AssertionError(f"no UDP here: {flows}")


async def test_a_machine_that_moves_to_another_zone_uses_its_endpoints() -> None:
    services, slices, nodes, dataplane = Cache(), Cache(), Cache(), Recorded()
    config = TableConfig("t", "10.0.0.0/8", "10.96.0.0/12", "10.250.0.0/16")
    services.set(
        "default", "web", Service(Metadata("web", "default"), ServiceSpec(clusterIP="10.96.0.9", ports=[Port(80)]))
    )
    endpoints = [SliceEndpoint([f"10.1.0.{n}"], nodeName=f"n{n}", hints=Hints([Hint("ab"[n])])) for n in (0, 1)]
    slices.set(
        "default",
        "web-x",
        EndpointSlice(Metadata("web-x", "default"), endpoints=endpoints, ports=[SlicePort("", "TCP", 8080)]),
    )
    reconciler = ServiceReconciler(config, services, slices, nodes, dataplane, RealClock(), "n1")  # type: ignore[arg-type]
    services.set("default", "web", services.objects[ObjectKey("default", "web")])
    nodes.set("", "n1", Node(Metadata("n1", labels={ZONE: "a"})))
    task = asyncio.create_task(reconciler.run(asyncio.Event()))
    try:
        async with asyncio.timeout(10):
            await dataplane.applied.wait()
            assert "10.1.0.0 . 8080" in dataplane.texts[-1] and "10.1.0.1" not in dataplane.texts[-1]
            dataplane.applied.clear()
            nodes.set("", "n1", Node(Metadata("n1", labels={ZONE: "b"})))
            await dataplane.applied.wait()
            assert "10.1.0.1 . 8080" in dataplane.texts[-1] and "10.1.0.0" not in dataplane.texts[-1]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
