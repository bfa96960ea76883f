"""The annotation last-change-trigger-time: which change the network is programmed for."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from controller_manager.endpoints.legacy import plan_endpoints
from controller_manager.endpoints.trigger_times import ANNOTATION, TriggerTimes, annotate
from machinery.meta import ObjectKey
from tests.unit.controller_manager.builders import at, pod, service

KEY = ObjectKey("default", "web")


@pytest.mark.parametrize(
    ("before", "after", "moment"),
    [
        pytest.param({"a": 5}, {"a": 5}, None, id="nothing changed"),
        pytest.param({"a": 5}, {"a": 9}, 9, id="a pod became ready or unready"),
        pytest.param({"a": 5}, {"a": 5, "b": 7}, 7, id="a pod came"),
        pytest.param({"a": 5, "b": 7}, {"a": 5}, None, id="a pod went: nobody knows when"),
        pytest.param({"a": 5, "b": 5}, {"a": 9, "b": 8}, 8, id="the earliest of several"),
        pytest.param({"a": 5}, {"a": 3}, None, id="a clock that went back"),
    ],
)
def test_the_earliest_change_since_the_last_pass(
    before: dict[str, float], after: dict[str, float], moment: float | None
) -> None:
    times, subject = TriggerTimes(), service()
    assert subject.metadata
    subject.metadata.creationTimestamp = at(1)
    first = times.of(KEY, subject, [pod(name, ready=True, ready_since=since) for name, since in before.items()])
    assert first == at(1), "a Service that is new to us: when it was made"
    found = times.of(KEY, subject, [pod(name, ready=True, ready_since=since) for name, since in after.items()])
    assert found == (at(moment) if moment is not None else None)
    times.forget(KEY)
    assert times.of(KEY, subject, []) == at(1)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        pytest.param(at(61), "2026-01-01T00:01:01Z", id="whole seconds"),
        pytest.param(at(0.25), "2026-01-01T00:00:00.25Z", id="no zeros at the end"),
        pytest.param(None, None, id="none: an older one goes"),
    ],
)
def test_annotation(moment: datetime | None, text: str | None) -> None:
    metadata: dict[str, Any] = {"annotations": {ANNOTATION: "old", "mine": "x"}}
    annotate(metadata, moment)
    assert metadata["annotations"] == {"mine": "x", **({ANNOTATION: text} if text else {})}
    bare: dict[str, Any] = {}
    annotate(bare, None)
    assert bare == {}


def test_the_annotation_alone_is_no_reason_to_write() -> None:
    pods = [pod("a", ready=True, ip="10.0.0.1")]
    made = plan_endpoints(service(), pods, None)
    assert made is not None
    annotate(made["metadata"], at(3))
    assert plan_endpoints(service(), pods, made) is None
