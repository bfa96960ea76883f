"""HTTP extenders: a real one on loopback beside the scheduler, and what it may say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from api.models import core_v1
from scheduler.extenders import Extender, ExtenderConfig, Extenders, ManagedResource, seconds_of
from scheduler.scheduler import Scheduler
from tests.integration.scheduler.cluster import Cluster, bound, refused, running_scheduler, until
from tests.unit.scheduler.objects import node, pod

Answers = dict[str, Any]


class Site:
    """Answers verbs with what the test sets; keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Any]] = []
        self.url = ""

    def times(self, verb: str) -> int:
        return sum(name == verb for name, _ in self.asked)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            verb = self.path.rpartition("/")[2]
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.asked.append((verb, body))
            answer = made.answers.get(verb)
            if callable(answer):
                answer = answer(body)
            raw = json.dumps(answer).encode()
            self.send_response(500 if answer is None else 200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}/ext"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@contextlib.asynccontextmanager
async def extended(cluster: Cluster, site: Site, **config: Any) -> AsyncIterator[Scheduler]:
    made = ExtenderConfig(urlPrefix=site.url, **config)
    async with running_scheduler(cluster.server) as scheduler:
        scheduler._extenders = Extenders([Extender(made)])
        for index in range(3):
            await cluster.add_node(node(f"n{index}"))
        yield scheduler


async def test_filter_and_priorities_decide(cluster: Cluster, site: Site) -> None:
    site.answers["filter"] = {"NodeNames": ["n0", "n1"], "FailedNodes": {"n2": "too far"}}
    site.answers["prioritize"] = [{"Host": "n0", "Score": 1}, {"Host": "n1", "Score": 9}]
    async with extended(
        cluster, site, filterVerb="filter", prioritizeVerb="prioritize", weight=5, nodeCacheCapable=True
    ):
        await cluster.add_pod(pod("web", {"cpu": "1"}))
        assert await bound(cluster, "web") == "n1"
        verb, asked = site.asked[0]
        assert verb == "filter" and asked["NodeNames"] == ["n0", "n1", "n2"] and asked["Nodes"] is None
        assert asked["Pod"]["metadata"]["name"] == "web"
        assert site.asked[1][1]["NodeNames"] == ["n0", "n1"]  # priorities are asked for what is left


async def test_refusals_are_told_node_by_node(cluster: Cluster, site: Site) -> None:
    site.answers["filter"] = {
        "Nodes": {"items": []},
        "FailedNodes": {"n0": "no licence", "n1": "no licence"},
        "FailedAndUnresolvableNodes": {"n2": "wrong planet"},
    }
    async with extended(cluster, site, filterVerb="filter"):
        await cluster.add_pod(pod("web", {"cpu": "1"}))
        assert (await refused(cluster, "web")).startswith("0/3 nodes are available: 1 wrong planet, 2 no licence.")
        assert [each["metadata"]["name"] for each in site.asked[0][1]["Nodes"]["items"]] == ["n0", "n1", "n2"]


async def test_an_extender_that_fails_fails_the_attempt(cluster: Cluster, site: Site) -> None:
    async with extended(cluster, site, filterVerb="filter"):
        await cluster.add_pod(pod("web", {"cpu": "1"}))

        async def told() -> bool:
            condition = await cluster.condition("web")
            return condition is not None and condition.reason == "SchedulerError"

        await until(told)
        site.answers["filter"] = lambda asked: {"Nodes": asked["Nodes"]}
        assert await bound(cluster, "web")


async def test_an_ignorable_one_does_not(cluster: Cluster, site: Site) -> None:
    async with extended(cluster, site, filterVerb="filter", ignorable=True):
        await cluster.add_pod(pod("web", {"cpu": "1"}))
        assert await bound(cluster, "web")
        assert site.times("filter") == 1


async def test_only_pods_that_ask_for_its_resources_are_its_business(cluster: Cluster, site: Site) -> None:
    site.answers["filter"] = {"NodeNames": ["n1"]}
    managed = [ManagedResource("example.com/gpu", ignoredByScheduler=True)]
    async with extended(cluster, site, filterVerb="filter", nodeCacheCapable=True, managedResources=managed):
        await cluster.add_pod(pod("plain", {"cpu": "1"}))
        await bound(cluster, "plain")
        assert not site.asked


async def test_it_may_bind(cluster: Cluster, site: Site) -> None:
    loop = asyncio.get_running_loop()

    def bind(asked: Answers) -> Answers:
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": asked["PodName"], "namespace": asked["PodNamespace"]},
            "target": {"kind": "Node", "name": asked["Node"]},
        }
        call = cluster.client.create_subresource(core_v1.Pod, asked["PodName"], "default", "binding", body)
        asyncio.run_coroutine_threadsafe(call, loop).result(10)
        return {}

    site.answers["bind"] = bind
    async with extended(cluster, site, bindVerb="bind"):
        await cluster.add_pod(pod("web", {"cpu": "1"}))
        await bound(cluster, "web")
        assert site.times("bind") == 1


async def test_preemption_needs_its_consent(cluster: Cluster, site: Site) -> None:
    def only_n2(asked: Answers) -> Answers:
        return {"NodeNameToMetaVictims": {"n2": asked["NodeNameToMetaVictims"]["n2"]}}

    site.answers["preempt"] = only_n2
    async with extended(cluster, site, preemptVerb="preempt", nodeCacheCapable=True):
        for index in range(3):
            await cluster.add_pod(pod(f"low{index}", {"cpu": "4"}, priority=None))
            await bound(cluster, f"low{index}")
        (victim,) = [f"low{index}" for index in range(3) if await cluster.node_of(f"low{index}") == "n2"]
        await cluster.client.create(priority_class())
        await cluster.add_pod(pod("high", {"cpu": "4"}, priorityClassName="high"))

        async def chosen() -> bool:
            live = await cluster.pod(victim)
            return live.metadata is not None and live.metadata.deletionTimestamp is not None

        await until(chosen)


def priority_class() -> dict[str, Any]:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "high"},
        "value": 1000,
    }


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5.0), ("1m30s", 90.0), ("500ms", 0.5), ("1.5h", 5400.0), ("250us", 250e-6)]
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5", "", "s", "5 s", "-1s", "1x"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        seconds_of(text)
