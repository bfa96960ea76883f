"""Points to usage, usage to objects, and who may ask: everything that needs no connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregated.access import ANONYMOUS, Access, Authorities, User, user_of
from aggregated.door import Asked
from machinery import quantity
from machinery.clock import VirtualClock
from machinery.errors import Forbidden, Unauthorized
from metrics_server import objects
from metrics_server.handlers import Wanted, read_path
from metrics_server.storage import Batch, Point, Storage, Usage
from tests.harness.apiserver import shared_pki

S = 1_000_000_000
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = ("ns", "pod")


def pod_storage(*rounds: dict[str, Point]) -> Storage:
    storage = Storage(15.0)
    for containers in rounds:
        storage.store(Batch({}, {KEY: containers} if containers else {}))
    return storage


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        pytest.param([{"c": Point(100 * S, 5 * S, 7)}], None, id="one-point-says-nothing"),
        pytest.param(
            [{"c": Point(100 * S, 5 * S, 7)}, {"c": Point(110 * S, 7 * S, 9)}],
            {"c": Usage(S // 5, 9, 110 * S, 10 * S)},
            id="rate-between-two",
        ),
        pytest.param(
            [{"c": Point(100 * S, 5 * S, 7)}, {"c": Point(110 * S, 7 * S, 9)}, {"c": Point(110 * S, 7 * S, 9)}],
            {"c": Usage(S // 5, 9, 110 * S, 10 * S)},
            id="the-same-point-again",
        ),
        pytest.param(
            [{"c": Point(100 * S, 5 * S, 7)}, {"c": Point(110 * S, 1 * S, 9)}],
            {},
            id="restarted-without-telling-when",
        ),
        pytest.param(
            [{"c": Point(100 * S, 5 * S, 7, 50 * S)}, {"c": Point(110 * S, 9 * S, 9, 105 * S)}],
            None,
            id="restarted-since",
        ),
        pytest.param([{"c": Point(112 * S, 6 * S, 9, 100 * S)}], {"c": Usage(S // 2, 9, 112 * S, 12 * S)}, id="fresh"),
        pytest.param([{"c": Point(104 * S, 6 * S, 9, 100 * S)}], None, id="too-fresh"),
        pytest.param(
            [{"c": Point(100 * S, 0, 7)}, {"c": Point(110 * S, 0, 9), "new": Point(110 * S, 0, 9)}],
            None,
            id="all-containers-or-none",
        ),
        pytest.param(
            [{"c": Point(100 * S, 0, 7)}, {"c": Point(110 * S, 0, 9)}, {}],
            None,
            id="what-a-scrape-does-not-bring-is-gone",
        ),
    ],
)
def test_usage_of_a_pod(rounds: list[dict[str, Point]], expected: dict[str, Usage] | None) -> None:
    assert pod_storage(*rounds).pod(*KEY) == expected


def test_usage_of_a_node() -> None:
    storage = Storage()
    assert not storage.ready
    storage.store(Batch({"n": Point(100 * S, 0, 5)}, {}))
    assert storage.node("n") is None
    storage.store(Batch({"n": Point(115 * S, 30 * S, 6)}, {}))
    assert storage.node("n") == Usage(2 * S, 6, 115 * S, 15 * S)
    assert storage.ready
    storage.store(Batch({}, {}))
    assert storage.node("n") is None


_POINT = st.builds(
    Point, st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12)
)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), _POINT, max_size=3), max_size=5))
def test_rates_are_never_negative(rounds: list[dict[str, Point]]) -> None:
    for used in (pod_storage(*rounds).pod(*KEY) or {}).values():
        assert used.cpu >= 0
        assert used.window > 0


@pytest.mark.parametrize(
    ("nanocores", "text"), [(0, "0"), (1, "1n"), (1_500, "1500n"), (2_000, "2u"), (250 * 10**6, "250m"), (3 * S, "3")]
)
def test_cpu(nanocores: int, text: str) -> None:
    assert objects.cpu(nanocores) == text


@given(st.integers(0, 10**13))
def test_cpu_loses_nothing(nanocores: int) -> None:
    assert quantity.parse(objects.cpu(nanocores)) * S == nanocores
    assert quantity.canonical(objects.cpu(nanocores)) == objects.cpu(nanocores)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(15 * S, "15s"), (15_020_000_000, "15.02s"), (60 * S, "1m0s"), (3_661 * S, "1h1m1s"), (750_000_000, "750ms")],
)
def test_window(nanoseconds: int, text: str) -> None:
    assert objects.window(nanoseconds) == text


def test_objects() -> None:
    node = objects.node_metrics("n", {"a": "b"}, Usage(250 * 10**6, 1 << 30, 1_767_323_045 * S + 5, 15 * S), NOW)
    assert node == {
        "kind": "NodeMetrics",
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {"name": "n", "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"a": "b"}},
        "timestamp": "2026-01-02T03:04:05Z",
        "window": "15s",
        "usage": {"cpu": "250m", "memory": "1Gi"},
    }
    used = {"b": Usage(1, 5, 20 * S, 9 * S), "a": Usage(10**6, 2048, 10 * S, 8 * S)}
    pod = objects.pod_metrics("ns", "p", None, used, NOW)
    assert [each["name"] for each in pod["containers"]] == ["a", "b"]
    assert (pod["window"], pod["timestamp"]) == ("8s", "1970-01-01T00:00:10Z")
    listed = objects.as_list("PodMetrics", [pod])
    assert listed["kind"] == "PodMetricsList"
    assert "kind" not in listed["items"][0]
    table = objects.as_table([pod], "v1", "Metadata")
    assert [each["name"] for each in table["columnDefinitions"]] == ["Name", "cpu", "memory", "Window"]
    assert table["rows"][0]["cells"] == ["p", "1000001n", "2053", "8s"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert objects.as_table([], "v1", "None")["rows"] == []


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("nodes", Wanted("nodes")),
        ("nodes/n", Wanted("nodes", "", "n")),
        ("pods", Wanted("pods")),
        ("namespaces/a/pods", Wanted("pods", "a")),
        ("namespaces/a/pods/b", Wanted("pods", "a", "b")),
        ("namespaces/a", None),
        ("namespaces/a/nodes/b", None),
        ("things", None),
    ],
)
def test_paths(path: str, wanted: Wanted | None) -> None:
    assert read_path(f"/apis/metrics.k8s.io/v1beta1/{path}") == wanted


# -- access -----------------------------------------------------------------------------------------------------------


def name(common: str, *organizations: str) -> tuple[Any, ...]:
    return (*((("organizationName", each),) for each in organizations), (("commonName", common),))


def authorities() -> Authorities:
    pki = shared_pki()
    return Authorities(pki.ca.read_text(), pki.front_proxy.ca.read_text())


FRONT, CLIENTS = name("front-proxy-ca"), name("nanokube-ca")
SPOKEN = [(b"x-remote-user", b"jane"), (b"x-remote-group", b"dev"), (b"x-remote-extra-a%2fb", b"1")]


@pytest.mark.parametrize(
    ("certificate", "headers", "user"),
    [
        pytest.param(None, SPOKEN, None, id="headers-alone-prove-nothing"),
        pytest.param(
            {"issuer": CLIENTS, "subject": name("front-proxy-client")},
            SPOKEN,
            User("front-proxy-client", ("system:authenticated",)),
            id="a-client-cannot-speak-for-others",
        ),
        pytest.param(
            {"issuer": FRONT, "subject": name("front-proxy-client")},
            SPOKEN,
            User("jane", ("dev",), "", {"a/b": ("1",)}),
            id="front-proxy",
        ),
        pytest.param({"issuer": FRONT, "subject": name("somebody")}, SPOKEN, None, id="name-is-not-allowed"),
        pytest.param({"issuer": FRONT, "subject": name("front-proxy-client")}, [], None, id="speaks-for-nobody"),
        pytest.param(
            {"issuer": CLIENTS, "subject": name("bob", "dev")},
            [],
            User("bob", ("dev", "system:authenticated")),
            id="client",
        ),
    ],
)
def test_who_asks(certificate: Mapping[str, Any] | None, headers: list[tuple[bytes, bytes]], user: User | None) -> None:
    found = user_of(Asked("GET", "/", headers, certificate), authorities())
    assert found == user
    assert found is None or user is None or found.extra == user.extra


def test_authorities_must_differ() -> None:
    pem = shared_pki().ca.read_text()
    with pytest.raises(ValueError, match="names of their own"):
        _ = Authorities(pem, pem).front_proxy_subjects


class Reviews:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def token(self, token: str) -> User | None:
        self.asked.append(token)
        return User("bot") if token == "good" else None

    async def allowed(self, user: User, attributes: Mapping[str, str], path: str) -> tuple[bool, str]:
        self.asked.append((user.name, path or attributes["resource"]))
        return user.name == "jane", ""


async def test_decisions_are_kept_for_a_while() -> None:
    reviews, clock = Reviews(), VirtualClock()
    access = Access(authorities(), reviews, clock)
    asked = {"verb": "list", "group": "metrics.k8s.io", "resource": "pods", "namespace": "ns", "name": ""}
    for _ in range(3):
        await access.authorize(User("jane"), asked)
    assert reviews.asked == [("jane", "pods")]
    with pytest.raises(Forbidden) as refused:
        await access.authorize(User("joe"), asked)
    expected = 'User "joe" cannot list resource "pods" in API group "metrics.k8s.io" in the namespace "ns"'
    assert refused.value.message == f"pods.metrics.k8s.io is forbidden: {expected}"
    await clock.advance(11)
    await access.authorize(User("jane"), asked)
    assert len(reviews.asked) == 3
    await access.authorize(User("root", ("system:masters",)), asked)
    assert len(reviews.asked) == 3


async def test_tokens() -> None:
    reviews = Reviews()
    access = Access(authorities(), reviews, VirtualClock())

    def asking(token: str) -> Asked:
        return Asked("GET", "/", [(b"authorization", f"Bearer {token}".encode())], None)

    assert await access.authenticate(Asked("GET", "/", [], None)) == ANONYMOUS
    found = await asyncio.gather(*(access.authenticate(asking("good")) for _ in range(2)))
    assert [each.name for each in found] == ["bot", "bot"]
    with pytest.raises(Unauthorized):
        await access.authenticate(asking("bad"))
