"""Data that another API server has written: read, listed, watched, changed, and told where it is unreadable."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from apiserver.registry.stored_versions import definition_from_v1beta1
from apiserver.storage.interface import KeyValue
from machinery import protobuf
from tests.harness.apiserver import RunningApiServer, eventually, until_status

MAPS = "/api/v1/namespaces/default/configmaps"
META = '"namespace":"default","uid":"6e1ed6ba-3b8b-4b3c-9c5c-5d7a8a4a0001","creationTimestamp":"2026-01-01T00:00:00Z"'

# Go's encoder writes the fields in the order of its structs and ends with a line feed.
CONFIG_MAP = f'{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"go",{META}}},"data":{{"key":"1"}}}}\n'
DEPLOYMENT = (
    f'{{"kind":"Deployment","apiVersion":"apps/v1","metadata":{{"name":"go",{META},"generation":1}},'
    '"spec":{"replicas":1,"selector":{"matchLabels":{"app":"go"}},"template":{"metadata":{"creationTimestamp":null,'
    '"labels":{"app":"go"}},"spec":{"containers":[{"name":"main","image":"pause","resources":{},'
    '"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"Always"}],'
    '"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","securityContext":{},'
    '"schedulerName":"default-scheduler"}},"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":"25%",'
    '"maxSurge":"25%"}},"revisionHistoryLimit":10,"progressDeadlineSeconds":600},"status":{}}\n'
)
AUTOSCALER = (
    f'{{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v1","metadata":{{"name":"go",{META}}},'
    '"spec":{"scaleTargetRef":{"kind":"Deployment","name":"go","apiVersion":"apps/v1"},"minReplicas":1,"maxReplicas":3,'
    '"targetCPUUtilizationPercentage":50},"status":{"currentReplicas":0,"desiredReplicas":0}}\n'
)
EVENT = (
    f'{{"kind":"Event","apiVersion":"events.k8s.io/v1","metadata":{{"name":"go",{META}}},"reason":"Started",'
    '"eventTime":"2026-01-01T00:00:00.000000Z","reportingController":"k8s.io/x","reportingInstance":"x-1",'
    '"action":"Start","regarding":{"kind":"Pod","namespace":"default","name":"web"},"note":"hello","type":"Normal"}\n'
)


async def put(apiserver: RunningApiServer, key: str, value: str | bytes) -> KeyValue:
    """Write behind the server's back, and wait until its cache has seen it."""
    store, raw = apiserver.server.store, value if isinstance(value, bytes) else value.encode()
    present, _ = await store.get(key.encode())
    done = await store.replace(key.encode(), raw, present.mod_revision if present else 0)
    assert done.ok
    await eventually(lambda: apiserver.server.registry.feed.revision >= done.revision)
    return KeyValue(key.encode(), raw, done.revision, done.revision)


async def stored(apiserver: RunningApiServer, key: str) -> dict[str, Any]:
    found, _ = await apiserver.server.store.get(key.encode())
    assert found is not None
    value: dict[str, Any] = json.loads(found.value)
    return value


async def test_an_object_in_gos_words_is_read_listed_watched_and_changed(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    key = "/registry/configmaps/default/go"
    written = await put(apiserver, key, CONFIG_MAP)
    read = (await rest.get(f"{MAPS}/go")).json
    assert (read["data"], read["metadata"]["resourceVersion"]) == ({"key": "1"}, str(written.mod_revision))
    assert [item["metadata"]["name"] for item in (await rest.get(MAPS)).json["items"]] == ["go"]
    async with rest.watch(f"{MAPS}?watch=1&resourceVersion={written.mod_revision}") as events:
        await put(apiserver, key, CONFIG_MAP.replace('"1"', '"2"'))
        await rest.request(
            "PATCH", f"{MAPS}/go", {"data": {"more": "x"}}, {"content-type": "application/merge-patch+json"}
        )
        async with asyncio.timeout(5):
            found = [await anext(events) for _ in range(2)]
    assert [event["object"]["data"] for event in found] == [{"key": "2"}, {"key": "2", "more": "x"}]
    assert (await rest.request("DELETE", f"{MAPS}/go")).status == 200


async def test_empty_status_and_null_times_are_what_they_mean(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await put(apiserver, "/registry/deployments/default/go", DEPLOYMENT)
    path = "/apis/apps/v1/namespaces/default/deployments/go"
    read = (await rest.get(path)).json
    assert read["status"] == {} and "creationTimestamp" not in read["spec"]["template"]["metadata"]
    scaled = await rest.request(
        "PATCH", path, {"spec": {"replicas": 2}}, {"content-type": "application/merge-patch+json"}
    )
    assert scaled.status == 200 and scaled.json["metadata"]["generation"] == 2
    applied = await rest.request("PUT", path, scaled.json)
    assert applied.json["metadata"]["resourceVersion"] == scaled.json["metadata"]["resourceVersion"]


async def test_objects_stored_in_another_version_are_converted(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await put(apiserver, "/registry/horizontalpodautoscalers/default/go", AUTOSCALER)
    path = "/apis/autoscaling/v{}/namespaces/default/horizontalpodautoscalers/go"
    newer = (await rest.get(path.format(2))).json
    assert newer["apiVersion"] == "autoscaling/v2"
    assert newer["spec"]["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 50}
    assert (await rest.get(path.format(1))).json["spec"]["targetCPUUtilizationPercentage"] == 50
    changed = await rest.request(
        "PATCH", path.format(2), {"spec": {"maxReplicas": 4}}, {"content-type": "application/merge-patch+json"}
    )
    assert changed.status == 200
    kept = await stored(apiserver, "/registry/horizontalpodautoscalers/default/go")
    assert kept["apiVersion"] == "autoscaling/v2" and kept["spec"]["maxReplicas"] == 4
    await put(apiserver, "/registry/events/default/go", EVENT)
    event = (await rest.get("/api/v1/namespaces/default/events/go")).json
    assert (event["message"], event["involvedObject"]["name"], event["apiVersion"]) == ("hello", "web", "v1")


async def test_protobuf_of_a_real_server_is_read_and_becomes_json_when_it_is_changed(
    apiserver: RunningApiServer,
) -> None:
    rest = apiserver.rest()
    raw = protobuf.encode(json.loads(CONFIG_MAP.replace('"go"', '"proto"')))
    assert raw.startswith(b"k8s\0")
    await put(apiserver, "/registry/configmaps/default/proto", raw)
    assert (await rest.get(f"{MAPS}/proto")).json["data"] == {"key": "1"}
    patch = {"data": {"key": "2"}}
    await rest.request("PATCH", f"{MAPS}/proto", patch, {"content-type": "application/merge-patch+json"})
    kept = await stored(apiserver, "/registry/configmaps/default/proto")
    assert kept["data"] == {"key": "2"} and (kept["kind"], kept["apiVersion"]) == ("ConfigMap", "v1")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"k8s\0\x0a\x05broken", id="broken protobuf"),
        pytest.param(b"not json", id="no JSON"),
        pytest.param(b'{"kind":"Secret","apiVersion":"v1","metadata":{"name":"bad"}}', id="another kind"),
        pytest.param(b"[1,2]", id="no object"),
        pytest.param(b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{}}\n', id="no name"),
    ],
)
async def test_what_cannot_be_read_is_told_and_hides_nothing_else(apiserver: RunningApiServer, value: bytes) -> None:
    rest = apiserver.rest()
    await rest.post(MAPS, {"metadata": {"name": "good"}})
    await put(apiserver, "/registry/configmaps/default/bad", value)
    read = await rest.get(f"{MAPS}/bad")
    assert (read.status, read.json["reason"]) == (500, "InternalError")
    assert "configmaps 'bad' cannot be decoded" in read.json["message"]
    merge = {"content-type": "application/merge-patch+json"}
    assert (await rest.request("PATCH", f"{MAPS}/bad", {"data": {"a": "b"}}, merge)).status == 500
    assert (await rest.post(MAPS, {"metadata": {"name": "bad"}})).status == 409
    assert [item["metadata"]["name"] for item in (await rest.get(MAPS)).json["items"]] == ["good"]
    await put(apiserver, "/registry/configmaps/default/bad", CONFIG_MAP.replace('"go"', '"bad"'))
    assert (await rest.get(f"{MAPS}/bad")).status == 200


async def test_what_is_stored_is_what_a_real_server_reads(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await rest.post(MAPS, {"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"key": "1"}})
    kept = await stored(apiserver, "/registry/configmaps/default/a")
    assert list(kept)[:3] == ["kind", "apiVersion", "metadata"]
    assert (kept["kind"], kept["apiVersion"]) == ("ConfigMap", "v1")
    assert not {"resourceVersion", "selfLink"} & kept["metadata"].keys()
    assert kept["metadata"]["managedFields"][0]["fieldsV1"] and kept["metadata"]["uid"]
    path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
    target = {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}
    await rest.post(path, {"metadata": {"name": "a"}, "spec": {"maxReplicas": 2, "scaleTargetRef": target}})
    key = "/registry/horizontalpodautoscalers/default/a"
    assert (await stored(apiserver, key))["apiVersion"] == "autoscaling/v2"


def test_definitions_as_upstream_stores_them() -> None:
    spec = {
        "group": "example.com",
        "version": "v1",
        "names": {"plural": "widgets", "kind": "Widget"},
        "scope": "Namespaced",
        "validation": {"openAPIV3Schema": {"type": "object"}},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [{"name": "Size", "type": "string", "JSONPath": ".spec.size"}],
        "versions": [
            {"name": "v1", "served": True, "storage": True},
            {"name": "v0", "served": True, "storage": False, "schema": {"openAPIV3Schema": {"type": "object", "x": 1}}},
        ],
        "conversion": {
            "strategy": "Webhook",
            "webhookClientConfig": {"url": "https://localhost"},
            "conversionReviewVersions": ["v1"],
        },
        "preserveUnknownFields": False,
    }
    made = definition_from_v1beta1({"metadata": {"name": "widgets.example.com"}, "spec": spec})["spec"]
    assert set(made) == {"group", "names", "scope", "versions", "conversion"}
    first, second = made["versions"]
    assert first["schema"] == {"openAPIV3Schema": {"type": "object"}} and first["subresources"] == {"status": {}}
    assert first["additionalPrinterColumns"] == [{"name": "Size", "type": "string", "jsonPath": ".spec.size"}]
    assert second["schema"]["openAPIV3Schema"]["x"] == 1
    assert made["conversion"] == {
        "strategy": "Webhook",
        "webhook": {"clientConfig": {"url": "https://localhost"}, "conversionReviewVersions": ["v1"]},
    }
    old = definition_from_v1beta1({"spec": {"group": "g", "version": "v1", "names": {}, "scope": "Cluster"}})["spec"]
    assert old["versions"] == [{"name": "v1", "served": True, "storage": True}]
    assert old["preserveUnknownFields"] is True and old["conversion"] == {"strategy": "None"}


async def test_a_definition_as_upstream_stores_it_is_served(apiserver: RunningApiServer) -> None:
    definition = {
        "kind": "CustomResourceDefinition",
        "apiVersion": "apiextensions.k8s.io/v1beta1",
        "metadata": {"name": "widgets.example.com", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "group": "example.com",
            "version": "v1",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "validation": {"openAPIV3Schema": {"type": "object", "properties": {"size": {"type": "integer"}}}},
            "versions": [{"name": "v1", "served": True, "storage": True}],
            "conversion": {"strategy": "None"},
            "preserveUnknownFields": False,
        },
        "status": {
            "conditions": [
                {
                    "type": kind,
                    "status": "True",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                    "reason": "x",
                    "message": "",
                }
                for kind in ("NamesAccepted", "Established")
            ],
            "acceptedNames": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "storedVersions": ["v1"],
        },
    }
    widget = '{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w","namespace":"default"},"size":3}\n'
    await put(apiserver, "/registry/example.com/widgets/default/w", widget)
    key = "/registry/apiextensions.k8s.io/customresourcedefinitions/widgets.example.com"
    await put(apiserver, key, json.dumps(definition) + "\n")
    rest = apiserver.rest()
    path = "/apis/example.com/v1/namespaces/default/widgets"
    await until_status(rest, f"{path}/w", lambda status: status == 200)
    answer = await rest.get(f"{path}/w")
    assert answer.json["size"] == 3
    refused = await rest.post(
        path, {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "x"}, "size": "y"}
    )
    assert refused.status == 422
