"""Priority and fairness on a running server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from apiserver.flowcontrol import defaults
from apiserver.flowcontrol.level import Level
from tests.harness.apiserver import USER_TOKEN, RestClient, RunningApiServer, eventually
from tests.harness.webhook import running_webhook

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
HOOKS = ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations")
ROOT = "/apis/flowcontrol.apiserver.k8s.io/v1"
MERGE = {"content-type": "application/merge-patch+json"}


async def names(rest: RestClient, plural: str) -> set[str]:
    return {item["metadata"]["name"] for item in (await rest.get(f"{ROOT}/{plural}")).json["items"]}


async def test_defaults_are_there_and_come_back(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    assert await names(rest, "flowschemas") == {each["metadata"]["name"] for each in defaults.schemas()}
    assert await names(rest, "prioritylevelconfigurations") == {each["metadata"]["name"] for each in defaults.levels()}
    found = (await rest.get(f"{ROOT}/flowschemas/exempt")).json
    assert found["metadata"]["annotations"]["apf.kubernetes.io/autoupdate-spec"] == "true"


async def test_answers_name_their_schema_and_level(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    answer = await rest.get("/api/v1/namespaces/default")
    schema = (await rest.get(f"{ROOT}/flowschemas/exempt")).json
    level = (await rest.get(f"{ROOT}/prioritylevelconfigurations/exempt")).json
    assert answer.header("x-kubernetes-pf-flowschema-uid") == schema["metadata"]["uid"]
    assert answer.header("x-kubernetes-pf-prioritylevel-uid") == level["metadata"]["uid"]
    refused = await apiserver.rest(USER_TOKEN).get("/api/v1/secrets")
    default = (await rest.get(f"{ROOT}/flowschemas/global-default")).json
    assert refused.status == 403
    assert refused.header("x-kubernetes-pf-flowschema-uid") == default["metadata"]["uid"]


async def condition(rest: RestClient, name: str) -> dict[str, Any]:
    status = (await rest.get(f"{ROOT}/flowschemas/{name}")).json.get("status") or {}
    return next((each for each in status.get("conditions") or () if each["type"] == "Dangling"), {})


async def test_a_schema_without_its_level_dangles(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    spec = {"priorityLevelConfiguration": {"name": "later"}, "matchingPrecedence": 900}
    assert (await rest.post(f"{ROOT}/flowschemas", {"metadata": {"name": "mine"}, "spec": spec})).status == 201

    async def until(status: str) -> None:
        async with asyncio.timeout(10):
            while (await condition(rest, "mine")).get("status") != status:  # noqa: ASYNC110  a watch is no shorter
                await asyncio.sleep(0.01)

    await until("True")
    level = {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}
    body = {"metadata": {"name": "later"}, "spec": level}
    assert (await rest.post(f"{ROOT}/prioritylevelconfigurations", body)).status == 201
    await until("False")


async def test_a_full_level_turns_away(apiserver: RunningApiServer) -> None:
    rest, alice = apiserver.rest(), apiserver.rest(USER_TOKEN)
    tiny = await tiny_level(rest, apiserver, {"type": "Reject"})
    held = 0
    while tiny.take(1):
        held += 1
    answer = await alice.get("/version")
    assert (answer.status, answer.header("retry-after")) == (429, "1")
    assert answer.body == b"Too many requests, please try again later.\n"
    assert (await rest.get("/version")).status == 200  # others are not harmed
    for _ in range(held):
        tiny.leave(1)
    assert (await alice.get("/version")).status == 200
    assert tiny.seats == 0


async def test_waits_are_told(apiserver: RunningApiServer) -> None:
    rest, alice = apiserver.rest(), apiserver.rest(USER_TOKEN)
    queuing = {"queues": 1, "handSize": 1, "queueLengthLimit": 5}
    tiny = await tiny_level(rest, apiserver, {"type": "Queue", "queuing": queuing})
    held = 0
    while tiny.take(1):
        held += 1
    waiting = asyncio.create_task(alice.get("/version"))
    await eventually(lambda: tiny.queued == 1)
    for _ in range(held):
        tiny.leave(1)
    assert (await waiting).status == 200
    labels = '{execute="true",flow_schema="alice",priority_level="tiny"}'
    count = f"apiserver_flowcontrol_request_wait_duration_seconds_count{labels} 1"
    assert count in (await rest.get("/metrics")).body.decode().splitlines()


async def test_a_level_full_of_slow_requests_lets_few_wait_and_turns_away_the_rest(apiserver: RunningApiServer) -> None:
    rest, alice = apiserver.rest(), apiserver.rest(USER_TOKEN)
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}
    may = {"metadata": {"name": "alice"}, "subjects": [subject], "roleRef": role}
    assert (await rest.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", may)).status == 201
    queuing = {"queues": 1, "handSize": 1, "queueLengthLimit": 2}
    tiny = await tiny_level(rest, apiserver, {"type": "Queue", "queuing": queuing}, borrowingLimitPercent=0)
    seats = tiny.spec.seats
    async with running_webhook() as hook:
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}
        webhook = {
            "name": "slow.example.com",
            "clientConfig": hook.client(),
            "rules": [rule],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 30,
        }
        body = {"metadata": {"name": "slow"}, "webhooks": [webhook]}
        path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        assert (await rest.post(path, body)).status == 201
        await eventually(lambda: len(apiserver.server.registry.resource(*HOOKS).cache) == 1)
        hook.gate.clear()
        names = [f"m{number}" for number in range(seats + 2)]
        sent = [asyncio.create_task(alice.post(CONFIG_MAPS, {"metadata": {"name": name}})) for name in names]
        await eventually(lambda: (tiny.executing, tiny.queued) == (seats, 2))
        refused = await alice.post(CONFIG_MAPS, {"metadata": {"name": "one-too-many"}})
        assert (refused.status, refused.header("retry-after")) == (429, "1")
        assert refused.body == b"Too many requests, please try again later.\n"
        schema = (await rest.get(f"{ROOT}/flowschemas/alice")).json["metadata"]["uid"]
        level = (await rest.get(f"{ROOT}/prioritylevelconfigurations/tiny")).json["metadata"]["uid"]
        assert refused.header("x-kubernetes-pf-flowschema-uid") == schema
        assert refused.header("x-kubernetes-pf-prioritylevel-uid") == level
        assert (await rest.get("/version")).status == 200, "others are not harmed"
        told = (await rest.get("/metrics")).body.decode().splitlines()
        labels = 'flow_schema="alice",priority_level="tiny",reason="queue-full"'
        assert f"apiserver_flowcontrol_rejected_requests_total{{{labels}}} 1" in told
        assert 'apiserver_flowcontrol_current_inqueue_requests{priority_level="tiny"} 2' in told
        hook.gate.set()
        assert [answer.status for answer in await asyncio.gather(*sent)] == [201] * len(sent)
    assert (tiny.seats, tiny.queued) == (0, 0)


async def tiny_level(rest: RestClient, apiserver: RunningApiServer, response: dict[str, Any], **limited: Any) -> Level:
    """Alice's requests have a level of their own, with a share of one."""
    limits = {"nominalConcurrencyShares": 1, "limitResponse": response, **limited}
    level = {"type": "Limited", "limited": limits}
    await rest.post(f"{ROOT}/prioritylevelconfigurations", {"metadata": {"name": "tiny"}, "spec": level})
    rule = {
        "subjects": [{"kind": "User", "user": {"name": "alice"}}],
        "resourceRules": [defaults.ALL_RESOURCES],
        "nonResourceRules": [defaults.ALL_PATHS],
    }
    spec = {"priorityLevelConfiguration": {"name": "tiny"}, "matchingPrecedence": 3, "rules": [rule]}
    await rest.post(f"{ROOT}/flowschemas", {"metadata": {"name": "alice"}, "spec": spec})
    flow = apiserver.server.flow
    await eventually(lambda: any(each.name == "alice" for each in flow._schemas))
    return next(each for each in flow.levels if each.spec.name == "tiny")


async def test_a_watch_holds_no_seat_once_it_runs(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    async with rest.watch("/api/v1/namespaces?watch=1"):
        await eventually(lambda: all(level.seats == 0 for level in apiserver.server.flow.levels))
    await eventually(lambda: all(level.executing == 0 for level in apiserver.server.flow.levels))


@pytest.mark.conformance(
    "[sig-api-machinery] API priority and fairness should support FlowSchema API operations [Conformance]",
    "[sig-api-machinery] API priority and fairness should support PriorityLevelConfiguration API operations "
    "[Conformance]",
)
@pytest.mark.parametrize(
    ("plural", "kind", "spec"),
    [
        (
            "flowschemas",
            "FlowSchema",
            {
                "matchingPrecedence": 10000,
                "priorityLevelConfiguration": {"name": "global-default"},
                "distinguisherMethod": {"type": "ByUser"},
            },
        ),
        (
            "prioritylevelconfigurations",
            "PriorityLevelConfiguration",
            {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}},
        ),
    ],
)
async def test_api_operations(apiserver: RunningApiServer, plural: str, kind: str, spec: dict[str, Any]) -> None:
    rest, path = apiserver.rest(), f"{ROOT}/{plural}"
    group = (await rest.get("/apis/flowcontrol.apiserver.k8s.io")).json
    assert group["preferredVersion"]["version"] == "v1"
    kinds = {each["name"]: each["kind"] for each in (await rest.get(ROOT)).json["resources"]}
    assert kinds[plural] == kind and kinds[f"{plural}/status"] == kind
    labels = {"e2e": "mine"}
    for name in ("a", "b", "c"):
        made = await rest.post(path, {"metadata": {"name": name, "labels": labels}, "spec": spec})
        assert made.status == 201, made.body
    assert len((await rest.get(f"{path}?labelSelector=e2e%3Dmine")).json["items"]) == 3
    version = (await rest.get(path)).json["metadata"]["resourceVersion"]
    async with rest.watch(f"{path}?watch=1&resourceVersion={version}&labelSelector=e2e%3Dmine") as events:
        patch = {"metadata": {"annotations": {"patched": "true"}}}
        assert (await rest.request("PATCH", f"{path}/a", patch, MERGE)).json["metadata"]["annotations"] == {
            "patched": "true"
        }
        async for event in events:
            if event["type"] == "MODIFIED" and "patched" in event["object"]["metadata"].get("annotations", {}):
                break
    obj = (await rest.get(f"{path}/a")).json
    obj["metadata"]["annotations"]["updated"] = "true"
    assert (await rest.request("PUT", f"{path}/a", obj)).json["metadata"]["annotations"]["updated"] == "true"
    status = {"status": {"conditions": [{"type": "E2E", "status": "True", "reason": "x", "message": "y"}]}}
    patched = await rest.request("PATCH", f"{path}/a/status", status, MERGE)
    assert patched.json["status"]["conditions"][0]["type"] == "E2E"
    assert (await rest.get(f"{path}/a/status")).json["kind"] == kind
    assert (await rest.request("DELETE", f"{path}/a")).status == 200
    assert (await rest.get(f"{path}/a")).status == 404
    assert (await rest.request("DELETE", f"{path}?labelSelector=e2e%3Dmine")).status == 200
    assert (await rest.get(f"{path}?labelSelector=e2e%3Dmine")).json["items"] == []
