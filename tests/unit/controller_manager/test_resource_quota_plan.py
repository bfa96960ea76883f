"""What a quota's status has to be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_manager.resource_quota.plan import lowers, plan_used, same, targets
from machinery import quantity

Obj = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PODS, MAPS = ("", "pods"), ("", "configmaps")


def quota(used: Obj | None = None, **hard: str) -> Obj:
    named = {key.replace("_", "."): value for key, value in hard.items()}
    return {"metadata": {"name": "q"}, "spec": {"hard": named}, "status": {"used": used or {}}}


def pod(cpu: str, memory: str = "1Gi", phase: str = "Running") -> Obj:
    container = {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}
    return {"spec": {"containers": [container]}, "status": {"phase": phase}}


def test_targets_are_the_resources_that_count() -> None:
    hard = ["pods", "requests.cpu", "count/deployments.apps", "configmaps", "requests.storage", "nonsense"]
    assert targets(hard) == [MAPS, ("", "persistentvolumeclaims"), PODS, ("apps", "deployments")]


def test_sums_keep_the_format_of_what_they_sum() -> None:
    objects = {PODS: [pod("250m"), pod("250m"), pod("1", phase="Succeeded")]}
    hard, used = plan_used(quota(pods="9", requests_cpu="2", requests_memory="8Gi"), objects, NOW)
    assert hard == {"pods": "9", "requests.cpu": "2", "requests.memory": "8Gi"}
    assert used == {"pods": "2", "requests.cpu": "500m", "requests.memory": "2Gi"}


def test_what_cannot_be_listed_stays_as_it_was() -> None:
    _, used = plan_used(quota({"configmaps": "7"}, configmaps="9", pods="1"), {PODS: []}, NOW)
    assert used == {"configmaps": "7", "pods": "0"}


@pytest.mark.parametrize(
    ("before", "after", "is_lower", "is_same"),
    [
        pytest.param({"pods": "1"}, {"pods": "1"}, False, True, id="equal"),
        pytest.param({"requests.cpu": "1"}, {"requests.cpu": "1000m"}, False, True, id="other-format"),
        pytest.param({"pods": "2"}, {"pods": "1"}, True, False, id="lower"),
        pytest.param({}, {"pods": "0"}, False, False, id="new-name"),
        pytest.param({"pods": "2"}, {}, False, False, id="name-gone"),
    ],
)
def test_comparisons(before: Obj, after: Obj, is_lower: bool, is_same: bool) -> None:
    assert lowers(before, after) is is_lower
    assert same(before, after) is is_same


@given(st.lists(st.integers(1, 4000), max_size=8))
def test_usage_is_the_exact_sum(milli: list[int]) -> None:
    _, used = plan_used(quota(requests_cpu="9", pods="9"), {PODS: [pod(f"{each}m") for each in milli]}, NOW)
    assert quantity.milli(used["requests.cpu"]) == sum(milli)
    assert used["pods"] == str(len(milli))
