"""Events: what both versions demand, and what events.k8s.io/v1 demands beyond v1."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from api.resources import lookup
from apiserver.registry.strategy import strategy_for
from apiserver.registry.validation.events import validate_event, validate_strictly
from tests.unit.apiserver.registry.validation.refused import CONTEXT

Obj = dict[str, Any]
NEW: Obj = {
    "metadata": {"name": "e", "namespace": "kube-system", "uid": "u"},
    "eventTime": "2026-01-01T00:00:00.000000Z",
    "type": "Normal",
    "reportingComponent": "example.com/a",
    "reportingInstance": "a-1",
    "action": "Does",
    "reason": "Because",
}


def texts(found: list[Any]) -> list[str]:
    return [str(each) for each in found]


def test_the_namespace_of_old_and_new_events() -> None:
    old = {"metadata": {"name": "e", "namespace": "kube-system"}}
    told = ['involvedObject.namespace: Invalid value: "": does not match event.namespace']
    assert texts(validate_event(old)) == told
    assert texts(validate_event(NEW)) == []
    assert texts(validate_event({**NEW, "involvedObject": {"namespace": "other"}})) == []


def test_new_events_are_complete() -> None:
    bare = {key: NEW[key] for key in ("metadata", "eventTime")}
    found = texts(validate_event({**bare, "message": "m" * 1025}))
    assert found[0] == "reportingController: Required value"
    assert all(text.startswith('reportingController: Invalid value: "": ') for text in found[1:3])
    assert found[3:] == [
        "reportingInstance: Required value",
        "action: Required value",
        "reason: Required value",
        'message: Invalid value: "": can have at most 1024 characters',
    ]


def test_series_and_deprecated_fields() -> None:
    assert texts(validate_strictly({**NEW, "series": {"count": 1}, "count": 3, "source": {"host": "h"}})) == [
        'series.count: Invalid value: "": should be at least 2',
        "series.lastObservedTime: Required value",
        'count: Invalid value: "": needs to be unset',
        'source: Invalid value: "": needs to be unset',
    ]


def test_through_events_k8s_io_only_the_series_changes() -> None:
    core, new = lookup("", "v1", "events"), lookup("events.k8s.io", "v1", "events")
    assert core is not None
    rules, asked = strategy_for(core), replace(CONTEXT, asked=new)
    changed = {**NEW, "reason": "Other", "involvedObject": {"kind": "Pod"}}
    assert rules.validate_update(CONTEXT, changed, NEW) == []
    fields = [each.field for each in rules.validate_update(asked, changed, NEW)]
    assert fields == ["involvedObject", "reason", "reason"]
    series = {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}
    assert rules.validate_update(asked, {**NEW, "series": series}, NEW) == []
