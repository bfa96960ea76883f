"""sig-instrumentation: events through both of their APIs."""

from __future__ import annotations

import pytest

from tests.harness.api import Api, Obj, until

CORE = "[sig-instrumentation] Events "
NEW = "[sig-instrumentation] Events API "


def core_event(name: str, namespace: str, **fields: object) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "labels": {"testevent-constant": "true"}},
        "message": "This is a test event",
        "reason": "Test",
        "type": "Normal",
        "count": 1,
        "involvedObject": {"namespace": namespace},
        "source": {"component": "test"},
        **fields,
    }


def new_event(name: str, namespace: str, **fields: object) -> Obj:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "labels": {"testevent-set": "true"}},
        "eventTime": "2017-09-19T13:49:16.000000Z",
        "regarding": {"namespace": namespace, "name": name},
        "action": "Do",
        "reason": "Test",
        "note": "This is a test event",
        "type": "Normal",
        "reportingController": "test-controller",
        "reportingInstance": "test-node",
        **fields,
    }


@pytest.mark.conformance(CORE + "should manage the lifecycle of an event [Conformance]")
def test_core_lifecycle(api: Api, namespace: str) -> None:
    events, everywhere = api.of("v1", "events", namespace), api.of("v1", "events")
    events.create(core_event("event-test", namespace))
    assert "event-test" in everywhere.names(labelSelector="testevent-constant=true")
    events.patch("event-test", {"message": "This is a test event - patched"}, "strategic")
    assert events.get("event-test")["message"] == "This is a test event - patched"

    def change(obj: Obj) -> None:
        obj["series"] = {"count": 100, "lastObservedTime": "2017-09-19T13:49:16.000000Z"}

    events.modify("event-test", change)
    assert events.get("event-test")["series"]["count"] == 100
    assert api.of("events.k8s.io/v1", "events", namespace).get("event-test")["note"].endswith("- patched")
    events.delete("event-test")
    assert "event-test" not in everywhere.names(labelSelector="testevent-constant=true")


@pytest.mark.conformance(CORE + "should delete a collection of events [Conformance]")
def test_core_collection(api: Api, namespace: str) -> None:
    events = api.of("v1", "events", namespace)
    for name in ("test-event-1", "test-event-2", "test-event-3"):
        events.create(core_event(name, namespace))
    assert len(events.list(labelSelector="testevent-constant=true")) == 3
    events.delete_all(labelSelector="testevent-constant=true")
    assert events.list(labelSelector="testevent-constant=true") == []


@pytest.mark.conformance(NEW + "should ensure that an event can be fetched, patched, deleted, and listed [Conformance]")
def test_new_lifecycle(api: Api, namespace: str) -> None:
    events, everywhere = api.of("events.k8s.io/v1", "events", namespace), api.of("events.k8s.io/v1", "events")
    version = events.page()["metadata"]["resourceVersion"]
    with events.watch(resourceVersion=version) as seen:
        events.create(new_event("event-test", namespace))
        assert until(seen, "ADDED")["note"] == "This is a test event"
        selected = f"reportingController=test-controller,metadata.namespace={namespace}"
        assert everywhere.names(fieldSelector=selected) == ["event-test"]
        events.patch(
            "event-test", {"series": {"count": 2, "lastObservedTime": "2017-09-19T13:49:17.000000Z"}}, "strategic"
        )
        patched = until(seen, "MODIFIED")
        assert patched["series"] == {"count": 2, "lastObservedTime": "2017-09-19T13:49:17.000000Z"}

        def change(obj: Obj) -> None:
            obj["series"]["count"] = 100

        assert events.modify("event-test", change)["series"]["count"] == 100
        assert events.get("event-test")["series"]["count"] == 100
        events.delete("event-test")
        until(seen, "DELETED")
    assert everywhere.names(fieldSelector=selected) == []


@pytest.mark.conformance(NEW + "should delete a collection of events [Conformance]")
def test_new_collection(api: Api, namespace: str) -> None:
    events = api.of("events.k8s.io/v1", "events", namespace)
    for name in ("test-event-1", "test-event-2", "test-event-3"):
        events.create(new_event(name, namespace))
    assert len(events.list(labelSelector="testevent-set=true")) == 3
    events.delete_all(labelSelector="testevent-set=true")
    assert events.list(labelSelector="testevent-set=true") == []
