"""Thresholds, ranking, messages and refusals of a node under pressure."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.models import core_v1
from kubelet.eviction.plan import (
    Met,
    Observation,
    Threshold,
    Usage,
    crossed,
    message,
    parse_thresholds,
    rank,
    refusal,
    shown,
)

MI = 1 << 20


def pod(name: str, memory: str = "", *, priority: int = 0, **spec: Any) -> core_v1.Pod:
    resources = {"requests": {"memory": memory}} if memory else {}
    raw = {
        "metadata": {"name": name, "uid": name},
        "spec": {"containers": [{"name": "c", "resources": resources}], "priority": priority, **spec},
    }
    return msgspec.convert(raw, core_v1.Pod)


def test_thresholds_are_read() -> None:
    assert parse_thresholds("memory.available<100Mi,nodefs.available<10%,imagefs.available<0%") == (
        Threshold("memory.available", 100 * MI),
        Threshold("nodefs.available", share=0.1),
    )


@pytest.mark.parametrize("text", ["memory.available", "nosuch<1", "memory.available<x", "nodefs.available<200%"])
def test_bad_thresholds_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_thresholds(text)


@pytest.mark.parametrize(
    ("available", "met"),
    [(99 * MI, [Met("memory.available", 100 * MI, 99 * MI)]), (100 * MI, []), (1000 * MI, [])],
)
def test_crossing(available: int, met: list[Met]) -> None:
    seen = {"memory.available": Observation(available, 2048 * MI)}
    assert crossed(parse_thresholds("memory.available<100Mi,nodefs.available<10%"), seen) == met


def test_memory_comes_before_disk() -> None:
    seen = {"nodefs.available": Observation(1, 1000), "memory.available": Observation(0, 1000)}
    met = crossed(parse_thresholds("nodefs.available<10%,memory.available<5%"), seen)
    assert [each.resource for each in met] == ["memory", "ephemeral-storage"]


def test_who_goes_first() -> None:
    entries = [
        (pod("modest", "200Mi"), Usage({"c": 100 * MI})),
        (pod("important", "10Mi", priority=1000), Usage({"c": 900 * MI})),
        (pod("greedy", "10Mi"), Usage({"c": 300 * MI})),
        (pod("very-greedy"), Usage({"c": 400 * MI})),
        (pod("system", priority=2_000_001_000), Usage({"c": 5000 * MI})),
    ]
    order = [each.metadata.name for each, _ in rank(entries, "memory") if each.metadata]
    assert order == ["very-greedy", "greedy", "important", "modest"]


def test_the_message_is_upstreams() -> None:
    met = Met("memory.available", 100 * MI, 51200 * 1024)
    assert message(met, pod("web", "64Mi"), Usage({"c": 150 * MI})) == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "
        "Container c was using 150Mi, request is 64Mi, has larger consumption of memory. "
    )


@pytest.mark.parametrize(("amount", "text"), [(0, "0"), (1023, "1023"), (1024, "1Ki"), (1536, "1536"), (MI, "1Mi")])
def test_quantities(amount: int, text: str) -> None:
    assert shown(amount) == text


@pytest.mark.parametrize(
    ("wanted", "conditions", "refused"),
    [
        pytest.param(pod("a"), [], False, id="well"),
        pytest.param(pod("a"), ["MemoryPressure"], True, id="best-effort"),
        pytest.param(pod("a", "1Mi"), ["MemoryPressure"], False, id="burstable"),
        pytest.param(
            pod("a", tolerations=[{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]),
            ["MemoryPressure"],
            False,
            id="tolerated",
        ),
        pytest.param(pod("a", "1Mi"), ["DiskPressure"], True, id="disk"),
        pytest.param(pod("a", priority=2_000_000_000), ["DiskPressure"], False, id="critical"),
    ],
)
def test_who_is_not_taken(wanted: core_v1.Pod, conditions: list[str], refused: bool) -> None:
    why = refusal(wanted, conditions)
    assert bool(why) is refused
    if why:
        assert why == f"Pod was rejected: The node had condition: [{conditions[0]}]. "
