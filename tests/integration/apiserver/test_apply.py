"""Server-side apply and managedFields over REST."""

from __future__ import annotations

from typing import Any

import pytest

from tests.harness.apiserver import Answer, RestClient, RunningApiServer

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

Obj = dict[str, Any]


def config_map(**data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": data}


def deployment(*containers: Obj) -> Obj:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": list(containers)}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


async def apply(rest: RestClient, path: str, config: Any, manager: str, more: str = "") -> Answer:
    return await rest.request("PATCH", f"{path}?fieldManager={manager}{more}", config, {"content-type": APPLY})


def owners(obj: Obj) -> dict[str, str]:
    """Which manager wrote how."""
    return {entry["manager"]: entry["operation"] for entry in obj["metadata"].get("managedFields") or ()}


async def test_apply_creates_changes_and_gives_up(apiserver: RunningApiServer) -> None:
    rest, path = apiserver.rest(), f"{CONFIG_MAPS}/web"
    made = await apply(rest, path, config_map(a="1", b="2"), "one")
    assert made.status == 201
    again = await apply(rest, path, config_map(a="1", b="2"), "one")
    assert (again.status, again.json) == (200, made.json)
    refused = await apply(rest, path, config_map(a="9"), "two")
    assert refused.status == 409
    assert refused.json["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}
    ]
    dry = await apply(rest, path, config_map(a="9"), "two", "&force=true&dryRun=All")
    assert dry.json["data"] == {"a": "9", "b": "2"}
    assert (await rest.get(path)).json == made.json
    taken = await apply(rest, path, config_map(a="9"), "two", "&force=true")
    assert taken.json["data"] == {"a": "9", "b": "2"}
    left = await apply(rest, path, config_map(), "one")
    assert left.json["data"] == {"a": "9"}
    listed = (await rest.get(CONFIG_MAPS)).json["items"]
    assert [owners(item) for item in listed if item["metadata"]["name"] == "web"] == [{"one": "Apply", "two": "Apply"}]


async def test_plain_writes_are_accounted_to_the_user_agent(apiserver: RunningApiServer) -> None:
    rest, path = apiserver.rest(), f"{CONFIG_MAPS}/web"
    made = (await rest.post(f"{CONFIG_MAPS}?fieldManager=creator", config_map(a="1"))).json
    assert owners(made) == {"creator": "Update"}
    merge = {"content-type": MERGE}
    patched = (await rest.request("PATCH", path, {"data": {"b": "2"}}, merge)).json
    assert owners(patched) == {"creator": "Update", "tester": "Update"}
    same = (await rest.request("PUT", path, {**patched, "metadata": {"name": "web"}})).json
    assert same == patched
    reset = (await rest.request("PATCH", path, {"metadata": {"managedFields": [{}]}}, merge)).json
    assert "managedFields" not in reset["metadata"]
    silent = (await rest.request("PATCH", path, {"data": {"c": "3"}}, merge)).json
    assert "managedFields" not in silent["metadata"]
    applied = (await apply(rest, path, config_map(d="4"), "one")).json
    assert owners(applied) == {"one": "Apply", "before-first-apply": "Update"}


async def test_apply_through_subresources(apiserver: RunningApiServer) -> None:
    rest, path = apiserver.rest(), f"{DEPLOYMENTS}/web"
    made = await apply(rest, path, deployment({"name": "main", "image": "i"}), "one")
    assert made.status == 201 and made.json["spec"]["replicas"] == 1
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 3}}
    assert (await apply(rest, f"{path}/scale", scale, "scaler")).json["spec"] == {"replicas": 3}
    status = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "status": {"replicas": 2}}
    told = (await apply(rest, f"{path}/status", status, "teller")).json
    assert (told["spec"]["replicas"], told["status"]["replicas"]) == (3, 2)
    refused = await apply(rest, path, {**deployment(), "spec": {"replicas": 1}}, "two")
    assert refused.json["message"] == (
        'Apply failed with 1 conflict: conflict with "scaler" with subresource "scale": .spec.replicas'
    )
    sided = (await apply(rest, path, deployment({"name": "side", "image": "s"}), "two")).json
    assert [each["name"] for each in sided["spec"]["template"]["spec"]["containers"]] == ["main", "side"]


async def test_an_autoscaler_is_owned_in_both_versions(apiserver: RunningApiServer) -> None:
    rest, path = apiserver.rest(), "/apis/autoscaling/%s/namespaces/default/horizontalpodautoscalers/web"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}

    def config(version: str, **spec: Any) -> Obj:
        return {
            "apiVersion": f"autoscaling/{version}",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web"},
            "spec": {"scaleTargetRef": target, **spec},
        }

    assert (await apply(rest, path % "v2", config("v2", maxReplicas=3), "new")).status == 201
    refused = await apply(rest, path % "v1", config("v1", maxReplicas=5), "old")
    assert refused.json["details"]["causes"][0]["field"] == ".spec.maxReplicas"
    both = (await apply(rest, path % "v1", config("v1", maxReplicas=3, minReplicas=2), "old")).json
    assert (both["apiVersion"], both["spec"]["minReplicas"]) == ("autoscaling/v1", 2)
    gone = (await apply(rest, path % "v1", config("v1", maxReplicas=3), "old")).json
    assert gone["spec"]["minReplicas"] == 1


@pytest.mark.parametrize(
    ("config", "query", "status", "message"),
    [
        pytest.param(b"a: [", "fieldManager=x", 400, "error decoding YAML", id="bad-yaml"),
        pytest.param(b"- a", "fieldManager=x", 400, "error decoding YAML", id="no-object"),
        pytest.param(config_map(), "", 422, "fieldManager: Required value", id="no-manager"),
        pytest.param({"kind": "Secret", "apiVersion": "v1"}, "fieldManager=x", 400, "invalid object type", id="kind"),
        pytest.param({**config_map(), "apiVersion": "v2"}, "fieldManager=x", 400, "Incorrect version", id="version"),
        pytest.param({**config_map(), "metadata": []}, "fieldManager=x", 400, "metadata", id="metadata"),
        pytest.param({**config_map(), "metadata": {}}, "fieldManager=x", 400, "name must be provided", id="no-name"),
        pytest.param(
            {**config_map(), "metadata": {"name": "web", "managedFields": []}},
            "fieldManager=x",
            400,
            "metadata.managedFields must be nil",
            id="managed-fields",
        ),
        pytest.param(
            {**config_map(), "datta": 1}, "fieldManager=x", 500, "field not declared in schema", id="unknown-field"
        ),
        pytest.param({**config_map(), "data": 7}, "fieldManager=x", 500, "expected map", id="wrong-type"),
        pytest.param(
            {**config_map(), "metadata": {"name": "web", "uid": "1"}}, "fieldManager=x", 409, "uid mismatch", id="uid"
        ),
    ],
)
async def test_bad_configurations_are_refused(
    apiserver: RunningApiServer, config: Any, query: str, status: int, message: str
) -> None:
    answer = await apiserver.rest().request("PATCH", f"{CONFIG_MAPS}/web?{query}", config, {"content-type": APPLY})
    assert (answer.status, message in answer.json["message"]) == (status, True), answer.json


async def test_cbor_is_refused(apiserver: RunningApiServer) -> None:
    cbor = {"content-type": "application/apply-patch+cbor"}
    answer = await apiserver.rest().request("PATCH", f"{CONFIG_MAPS}/web?fieldManager=x", b"\xa0", cbor)
    assert answer.status == 415


async def test_a_configuration_without_metadata(apiserver: RunningApiServer) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}}
    answer = await apply(apiserver.rest(), f"{CONFIG_MAPS}/bare", config, "me")
    assert answer.status < 500, answer.body
