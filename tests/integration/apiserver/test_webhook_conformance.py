"""Admission webhooks over REST, by the behaviours that upstream's conformance tests name.

Over 500 lines because upstream names that many behaviours of one feature, all asked of the same server and hook.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.harness.apiserver import Answer, RestClient, RunningApiServer
from tests.harness.webhook import WebhookServer, running_webhook

Obj = dict[str, Any]
HOOKS = "/apis/admissionregistration.k8s.io/v1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
THINGS = "/apis/hook.example.com/{}/namespaces/default/things"
MERGE = {"content-type": "application/merge-patch+json"}


def conformance(*texts: str) -> pytest.MarkDecorator:
    start = "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] {} [Conformance]"
    return pytest.mark.conformance(*(start.format(text) for text in texts))


@pytest.fixture
async def hook() -> AsyncIterator[WebhookServer]:
    async with running_webhook() as made:
        yield made


@pytest.fixture
def rest(apiserver: RunningApiServer) -> RestClient:
    return apiserver.rest()


def rule(resource: str, *operations: str, group: str = "", version: str = "v1") -> Obj:
    return {
        "apiGroups": [group],
        "apiVersions": [version],
        "resources": [resource],
        "operations": list(operations or ("CREATE",)),
    }


def configuration(hook: WebhookServer, kind: str, *rules: Obj, name: str = "hook", **more: Any) -> Obj:
    entry = {
        "name": f"{name}.example.com",
        "clientConfig": hook.client(),
        "rules": list(rules),
        "sideEffects": "None",
        "admissionReviewVersions": ["v1", "v1beta1"],
        **more,
    }
    meta = {"name": name, "labels": {"suite": "hooks"}}
    api = "admissionregistration.k8s.io/v1"
    return {"apiVersion": api, "kind": f"{kind}WebhookConfiguration", "metadata": meta, "webhooks": [entry]}


async def registered(rest: RestClient, hook: WebhookServer, kind: str, *rules: Obj, **more: Any) -> Obj:
    wanted = configuration(hook, kind, *rules, **more)
    answer = await rest.post(f"{HOOKS}/{kind.lower()}webhookconfigurations", wanted)
    assert answer.status == 201, answer.body
    made: Obj = answer.json
    return made


async def until(ask: Callable[[], Awaitable[Answer]], wanted: Callable[[Answer], bool]) -> Answer:
    """What is configured reaches the plugin through a cache."""
    async with asyncio.timeout(10):
        while not wanted(answer := await ask()):  # noqa: ASYNC110  caches tell of no event
            await asyncio.sleep(0.005)
    return answer


def a_map(name: str = "", **data: str) -> Obj:
    meta = {"name": name} if name else {"generateName": "m-"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def a_pod(name: str) -> Obj:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def denies(text: str) -> Callable[[Obj], Obj]:
    return lambda request: {"allowed": False, "status": {"message": text, "reason": text, "code": 403}}


def patches(*operations: Obj) -> Callable[[Obj], Obj]:
    encoded = base64.b64encode(json.dumps(list(operations)).encode()).decode()
    return lambda request: {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


def add(path: str, value: Any) -> Obj:
    return {"op": "add", "path": path, "value": value}


async def account(rest: RestClient) -> None:
    """Pods want their service account."""
    await rest.post("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})


@conformance("should include webhook resources in discovery documents")
async def test_discovery(rest: RestClient) -> None:
    groups = (await rest.get("/apis")).json["groups"]
    found = next(each for each in groups if each["name"] == "admissionregistration.k8s.io")
    assert "admissionregistration.k8s.io/v1" in {each["groupVersion"] for each in found["versions"]}
    group = (await rest.get("/apis/admissionregistration.k8s.io")).json
    assert "v1" in {each["version"] for each in group["versions"]}
    resources = {each["name"] for each in (await rest.get(HOOKS)).json["resources"]}
    assert {"mutatingwebhookconfigurations", "validatingwebhookconfigurations"} <= resources


@conformance("should be able to deny pod and configmap creation")
async def test_denied_pods_and_config_maps(rest: RestClient, hook: WebhookServer) -> None:
    await account(rest)

    def judge(request: Obj) -> Obj:
        if request["kind"]["kind"] == "Pod":
            return denies("the pod contains unwanted container name; the pod contains unwanted label;")(request)
        if (request["object"] or {}).get("data", {}).get("webhook-e2e-test") == "webhook-disallow":
            return denies("the configmap contains unwanted key and value")(request)
        return {"allowed": True}

    hook.answer = judge
    await registered(rest, hook, "Validating", rule("pods"), rule("configmaps", "CREATE", "UPDATE"))
    bad = {"webhook-e2e-test": "webhook-disallow"}
    refused = await until(lambda: rest.post(MAPS, a_map(**bad)), lambda answer: answer.status != 201)
    assert refused.status == 403
    assert refused.json["message"] == (
        'admission webhook "hook.example.com" denied the request: the configmap contains unwanted key and value'
    )
    pod = await rest.post(PODS, a_pod("bad"))
    assert "the pod contains unwanted container name; the pod contains unwanted label" in pod.json["message"]
    await rest.post(MAPS, a_map("fine", a="b"))
    put = await rest.request("PUT", f"{MAPS}/fine", a_map("fine", **bad))
    patched = await rest.request("PATCH", f"{MAPS}/fine", {"data": bad}, MERGE)
    assert (put.status, patched.status) == (403, 403)


@conformance("should be able to deny attaching pod")
async def test_denied_attaching(rest: RestClient, hook: WebhookServer) -> None:
    await account(rest)
    await rest.post(PODS, a_pod("to-be-attached"))
    await registered(rest, hook, "Validating", rule("pods/*", "CONNECT"))
    text = "attaching to pod 'to-be-attached' is not allowed"
    hook.answer = denies(text)
    path = f"{PODS}/to-be-attached/attach?container=c&stdin=true&stdout=true"
    refused = await until(lambda: rest.post(path, b""), lambda answer: bool(hook.requests))
    assert refused.status == 403
    assert refused.json["message"].endswith(text)
    asked = hook.requests[-1]
    assert (asked["operation"], asked["subResource"]) == ("CONNECT", "attach")
    assert asked["kind"] == {"group": "", "version": "v1", "kind": "PodAttachOptions"}
    assert asked["object"] == {
        "kind": "PodAttachOptions",
        "apiVersion": "v1",
        "stdin": True,
        "stdout": True,
        "container": "c",
    }
    assert asked["options"] is None
    command = await rest.post(f"{PODS}/to-be-attached/exec?command=ls&command=-l&stdout=true", b"")
    assert command.status == 403
    assert hook.requests[-1]["object"]["command"] == ["ls", "-l"]
    proxied = await rest.get(f"{PODS}/to-be-attached/proxy/some/path")
    assert proxied.status == 403
    assert hook.requests[-1]["object"]["kind"] == "PodProxyOptions"


def definition(*versions: Obj, **more: Any) -> Obj:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.hook.example.com"},
        "spec": {
            "group": "hook.example.com",
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": list(versions or (version("v1", True),)),
        },
        **more,
    }


def version(name: str, storage: bool, *, preserve: bool = True) -> Obj:
    data: Obj = {"type": "object", "additionalProperties": {"type": "string"}}
    if not preserve:
        data = {"type": "object", "properties": {"mutation-start": {"type": "string"}}}
    if not preserve:
        data["properties"]["mutation-stage-1"] = {"type": "string"}
    schema = {"type": "object", "properties": {"data": data}}
    return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": schema}}


async def defined(rest: RestClient, *versions: Obj) -> None:
    answer = await rest.post(CRDS, definition(*versions))
    assert answer.status == 201, answer.body
    await until(lambda: rest.get(THINGS.format("v1")), lambda found: found.status == 200)


def a_thing(name: str, api: str = "v1", **data: str) -> Obj:
    return {"apiVersion": f"hook.example.com/{api}", "kind": "Thing", "metadata": {"name": name}, "data": data}


CUSTOM = {"group": "hook.example.com", "version": "*"}


@conformance("should be able to deny custom resource creation, update and deletion")
async def test_denied_custom_objects(rest: RestClient, hook: WebhookServer) -> None:
    await defined(rest)

    def judge(request: Obj) -> Obj:
        subject = request["object"] or request["oldObject"]
        if subject.get("data", {}).get("webhook-e2e-test") == "webhook-disallow":
            return denies("the custom resource contains unwanted data")(request)
        return {"allowed": True}

    hook.answer = judge
    await registered(rest, hook, "Validating", rule("things", "CREATE", "UPDATE", "DELETE", **CUSTOM))
    things, bad = THINGS.format("v1"), {"webhook-e2e-test": "webhook-disallow"}
    numbers = iter(range(1000))
    refused = await until(
        lambda: rest.post(things, a_thing(f"x{next(numbers)}", **bad)), lambda answer: answer.status != 201
    )
    assert "the custom resource contains unwanted data" in refused.json["message"]
    await rest.post(things, a_thing("held"))
    patched = await rest.request("PATCH", f"{things}/held", {"data": bad}, MERGE)
    assert patched.status == 403
    configurations = f"{HOOKS}/validatingwebhookconfigurations/hook"
    live = (await rest.get(configurations)).json
    live["webhooks"][0]["rules"][0]["operations"] = ["DELETE"]
    assert (await rest.request("PUT", configurations, live)).status == 200
    await until(
        lambda: rest.request("PATCH", f"{things}/held", {"data": bad}, MERGE), lambda found: found.status == 200
    )
    assert (await rest.request("DELETE", f"{things}/held")).status == 403
    assert hook.requests[-1]["oldObject"]["metadata"]["name"] == "held"
    assert hook.requests[-1]["object"] is None
    assert (await rest.request("DELETE", things)).status == 403  # deletecollection asks for each
    await rest.request("PATCH", f"{things}/held", {"data": {"webhook-e2e-test": None}}, MERGE)
    assert (await rest.request("DELETE", f"{things}/held")).status == 200


@conformance("should unconditionally reject operations on fail closed webhook")
async def test_a_hook_that_cannot_be_reached(rest: RestClient, hook: WebhookServer) -> None:
    client = {"service": {"namespace": "default", "name": "e2e-test-webhook", "path": "/configmaps"}}
    await registered(
        rest,
        hook,
        "Validating",
        rule("configmaps"),
        clientConfig={**client, "caBundle": hook.bundle},
        failurePolicy="Fail",
    )
    refused = await until(lambda: rest.post(MAPS, a_map()), lambda answer: answer.status != 201)
    assert refused.status == 500
    assert refused.json["message"].startswith(
        'Internal error occurred: failed calling webhook "hook.example.com": failed to call webhook: '
    )
    await rest.request(
        "PATCH",
        f"{HOOKS}/validatingwebhookconfigurations/hook",
        [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}],
        {"content-type": "application/json-patch+json"},
    )
    await until(lambda: rest.post(MAPS, a_map()), lambda answer: answer.status == 201)


@conformance("should mutate configmap")
async def test_mutated_config_map(rest: RestClient, hook: WebhookServer) -> None:
    await registered(rest, hook, "Mutating", rule("configmaps"), name="one")
    await registered(rest, hook, "Mutating", rule("configmaps"), name="two", clientConfig=hook.client("/two"))

    def stages(request: Obj) -> Obj:
        data = request["object"].get("data") or {}
        for before, after in (("mutation-start", "mutation-stage-1"), ("mutation-stage-1", "mutation-stage-2")):
            if before in data and after not in data:
                return patches(add(f"/data/{after}", "yes"))(request)
        return {"allowed": True}

    hook.answer = stages
    made = await until(
        lambda: rest.post(MAPS, a_map(**{"mutation-start": "yes"})),
        lambda answer: len(answer.json["data"]) == 3,
    )
    assert made.json["data"] == {"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"}


@conformance("should mutate pod and apply defaults after mutation")
async def test_mutated_pod(rest: RestClient, hook: WebhookServer) -> None:
    await account(rest)
    await registered(rest, hook, "Mutating", rule("pods"))
    container = {"name": "webhook-added-init-container", "image": "webhook-added-image"}
    hook.answer = patches(add("/spec/initContainers", [container]))
    numbers = iter(range(1000))
    made = await until(
        lambda: rest.post(PODS, a_pod(f"p{next(numbers)}")), lambda answer: "initContainers" in answer.json["spec"]
    )
    [added] = made.json["spec"]["initContainers"]
    assert added["name"] == "webhook-added-init-container"
    assert added["terminationMessagePolicy"] == "File"  # a default


@conformance("should not be able to mutate or prevent deletion of webhook configuration objects")
async def test_hooks_cannot_guard_themselves(rest: RestClient, hook: WebhookServer) -> None:
    names = ("validatingwebhookconfigurations", "mutatingwebhookconfigurations")
    rules = [rule(name, "*", group="admissionregistration.k8s.io", version="*") for name in names]
    await registered(rest, hook, "Validating", *rules, name="guard", failurePolicy="Fail")
    await registered(rest, hook, "Mutating", *rules, name="change", failurePolicy="Fail")
    hook.answer = denies("never")
    await rest.post(MAPS, a_map())
    for kind, name in zip(("Validating", "Mutating"), names, strict=True):
        made = await registered(rest, hook, kind, rule("pods"), name="dummy")
        assert made["metadata"]["labels"] == {"suite": "hooks"}
        assert (await rest.request("DELETE", f"{HOOKS}/{name}/dummy")).status == 200
    assert not hook.requests


@conformance("should mutate custom resource", "should mutate custom resource with pruning")
async def test_mutated_custom_objects_are_pruned(rest: RestClient, hook: WebhookServer) -> None:
    await defined(rest, version("v1", True, preserve=False))
    await registered(rest, hook, "Mutating", rule("things", "CREATE", "UPDATE", **CUSTOM))
    hook.answer = patches(add("/data/mutation-stage-1", "yes"), add("/data/mutation-stage-2", "yes"))
    numbers = iter(range(1000))
    made = await until(
        lambda: rest.post(THINGS.format("v1"), a_thing(f"t{next(numbers)}", **{"mutation-start": "yes"})),
        lambda answer: len(answer.json["data"]) > 1,
    )
    assert made.json["data"] == {"mutation-start": "yes", "mutation-stage-1": "yes"}


@conformance("should deny crd creation")
async def test_denied_definitions(rest: RestClient, hook: WebhookServer) -> None:
    await registered(rest, hook, "Validating", rule("customresourcedefinitions", group="apiextensions.k8s.io"))
    hook.answer = denies("the crd contains unwanted label")
    await until(lambda: rest.post(CRDS, definition()), lambda answer: answer.status == 403 or answer.status == 409)
    await rest.request("DELETE", f"{CRDS}/things.hook.example.com")
    again = await until(lambda: rest.post(CRDS, definition()), lambda answer: answer.status != 409)
    assert "the crd contains unwanted label" in again.json["message"]


@conformance("should mutate custom resource with different stored version")
async def test_mutated_in_another_version(rest: RestClient, hook: WebhookServer) -> None:
    await defined(rest, version("v1", True), version("v2", False))
    await registered(rest, hook, "Mutating", rule("things", "CREATE", "UPDATE", group="hook.example.com", version="v1"))
    hook.answer = patches(add("/data/mutation-stage-1", "yes"))
    await until(lambda: rest.post(MAPS, a_map()), lambda answer: answer.status == 201)
    things = THINGS.format("v2")
    numbers = iter(range(1000))
    made = await until(
        lambda: rest.post(things, a_thing(f"t{next(numbers)}", "v2", **{"mutation-start": "yes"})),
        lambda answer: "mutation-stage-1" in answer.json["data"],
    )
    assert made.json["apiVersion"] == "hook.example.com/v2"
    asked = hook.requests[-1]  # matchPolicy Equivalent: the hook gets the version that it names
    assert asked["kind"]["version"] == asked["resource"]["version"] == "v1"
    assert asked["requestKind"]["version"] == asked["requestResource"]["version"] == "v2"
    assert asked["object"]["apiVersion"] == "hook.example.com/v1"
    live = (await rest.get(f"{CRDS}/things.hook.example.com")).json
    for each in live["spec"]["versions"]:
        each["storage"] = each["name"] == "v2"
    assert (await rest.request("PUT", f"{CRDS}/things.hook.example.com", live)).status == 200
    name = made.json["metadata"]["name"]
    changed = await until(
        lambda: rest.request("PATCH", f"{things}/{name}", {"data": {"dummy": "test"}}, MERGE),
        lambda answer: answer.status == 200,
    )
    assert changed.json["data"] == {"mutation-start": "yes", "mutation-stage-1": "yes", "dummy": "test"}
    live = (await rest.get(f"{HOOKS}/mutatingwebhookconfigurations/hook")).json
    live["webhooks"][0]["matchPolicy"] = "Exact"
    await rest.request("PUT", f"{HOOKS}/mutatingwebhookconfigurations/hook", live)
    await until(
        lambda: rest.post(things, a_thing(f"t{next(numbers)}", "v2")),
        lambda answer: "mutation-stage-1" not in answer.json["data"],
    )


@conformance("should honor timeout")
async def test_timeouts(rest: RestClient, hook: WebhookServer) -> None:
    await registered(rest, hook, "Validating", rule("configmaps"), timeoutSeconds=1, failurePolicy="Fail")
    await until(lambda: rest.post(MAPS, a_map()), lambda answer: bool(hook.requests))
    hook.gate.clear()
    refused = await rest.post(MAPS, a_map())
    assert refused.status == 500
    assert "context deadline exceeded" in refused.json["message"]
    assert "?timeout=1s" in refused.json["message"]
    live = (await rest.get(f"{HOOKS}/validatingwebhookconfigurations/hook")).json
    live["webhooks"][0]["failurePolicy"] = "Ignore"
    await rest.request("PUT", f"{HOOKS}/validatingwebhookconfigurations/hook", live)
    await until(lambda: rest.post(MAPS, a_map()), lambda answer: answer.status == 201)
    del live["webhooks"][0]["timeoutSeconds"], live["metadata"]["resourceVersion"]
    answer = await rest.request("PUT", f"{HOOKS}/validatingwebhookconfigurations/hook", live)
    assert answer.status in (200, 422)
    hook.gate.set()


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            "Validating", marks=conformance("patching/updating a validating webhook should work"), id="validating"
        ),
        pytest.param("Mutating", marks=conformance("patching/updating a mutating webhook should work"), id="mutating"),
    ],
)
async def test_changed_configurations(rest: RestClient, hook: WebhookServer, kind: str) -> None:
    path = f"{HOOKS}/{kind.lower()}webhookconfigurations/hook"
    validating = kind == "Validating"
    hook.answer = denies("no") if validating else patches(add("/data/mutated", "yes"))

    def worked(answer: Answer) -> bool:
        return answer.status == 403 if validating else "mutated" in answer.json.get("data", {})

    await registered(rest, hook, kind, rule("configmaps", "CREATE"))
    await until(lambda: rest.post(MAPS, a_map(a="b")), worked)
    live = (await rest.get(path)).json
    live["webhooks"][0]["rules"][0]["operations"] = ["UPDATE"]
    assert (await rest.request("PUT", path, live)).status == 200
    await until(lambda: rest.post(MAPS, a_map(a="b")), lambda answer: not worked(answer))
    operations = [{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}]
    patched = await rest.request("PATCH", path, operations, {"content-type": "application/json-patch+json"})
    assert patched.status == 200
    await until(lambda: rest.post(MAPS, a_map(a="b")), worked)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("Validating", marks=conformance("listing validating webhooks should work"), id="validating"),
        pytest.param("Mutating", marks=conformance("listing mutating webhooks should work"), id="mutating"),
    ],
)
async def test_listed_configurations(rest: RestClient, hook: WebhookServer, kind: str) -> None:
    path = f"{HOOKS}/{kind.lower()}webhookconfigurations"
    hook.answer = denies("no") if kind == "Validating" else patches(add("/data/mutated", "yes"))
    for number in range(3):
        await registered(rest, hook, kind, rule("configmaps"), name=f"hook-{number}")
    listed = (await rest.get(f"{path}?labelSelector=suite%3Dhooks")).json["items"]
    assert [each["metadata"]["name"] for each in listed] == ["hook-0", "hook-1", "hook-2"]

    def plain(answer: Answer) -> bool:
        return answer.status == 201 and answer.json["data"] == {"a": "b"}

    await until(lambda: rest.post(MAPS, a_map(a="b")), lambda answer: not plain(answer))
    assert (await rest.request("DELETE", f"{path}?labelSelector=suite%3Dhooks")).status == 200
    await until(lambda: rest.post(MAPS, a_map(a="b")), plain)


CONDITION = {"name": "not-leases", "expression": "!(request.resource.resource == 'leases')"}
BROKEN = {"name": "bad", "expression": "... [] bad expression"}


@pytest.mark.parametrize(
    ("kind", "kinds"),
    [
        pytest.param(
            "Validating",
            "validating",
            marks=conformance(
                "should be able to create and update validating webhook configurations with match conditions",
                "should reject validating webhook configurations with invalid match conditions",
            ),
            id="validating",
        ),
        pytest.param(
            "Mutating",
            "mutating",
            marks=conformance(
                "should be able to create and update mutating webhook configurations with match conditions",
                "should reject mutating webhook configurations with invalid match conditions",
            ),
            id="mutating",
        ),
    ],
)
async def test_match_conditions_are_kept_and_checked(
    rest: RestClient, hook: WebhookServer, kind: str, kinds: str
) -> None:
    path = f"{HOOKS}/{kinds}webhookconfigurations"
    made = await registered(rest, hook, kind, rule("configmaps"), matchConditions=[CONDITION])
    assert made["webhooks"][0]["matchConditions"] == [CONDITION]
    made["webhooks"][0]["matchConditions"].append({"name": "second", "expression": "true"})
    changed = await rest.request("PUT", f"{path}/hook", made)
    assert len(changed.json["webhooks"][0]["matchConditions"]) == 2
    refused = await rest.post(path, configuration(hook, kind, rule("pods"), name="bad", matchConditions=[BROKEN]))
    assert refused.status == 422
    assert "compilation failed" in refused.json["message"]


@conformance("should mutate everything except 'skip-me' configmaps")
async def test_match_conditions_choose(rest: RestClient, hook: WebhookServer) -> None:
    conditions = [{"name": "skip-me", "expression": "object.metadata.name != 'skip-me'"}]
    await registered(rest, hook, "Mutating", rule("configmaps"), matchConditions=conditions)
    hook.answer = patches(add("/data/mutation-stage-1", "yes"))
    numbers = iter(range(1000))
    await until(
        lambda: rest.post(MAPS, a_map(f"m{next(numbers)}", a="b")),
        lambda answer: "mutation-stage-1" in answer.json["data"],
    )
    skipped = await rest.post(MAPS, a_map("skip-me", **{"mutation-start": "yes"}))
    assert skipped.json["data"] == {"mutation-start": "yes"}


async def test_posts_to_subresources_and_scales_are_reviewed_as_what_they_are(
    rest: RestClient, hook: WebhookServer
) -> None:
    await account(rest)
    every = [rule("pods/*", "*"), rule("deployments/scale", "*", group="apps")]
    await registered(rest, hook, "Mutating", *every)
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    deployments = "/apis/apps/v1/namespaces/default/deployments"
    assert (await rest.post(deployments, {"metadata": {"name": "web"}, "spec": spec})).status == 201
    hook.answer = patches({"op": "replace", "path": "/spec/replicas", "value": 7})
    scaled = await until(
        lambda: rest.request("PATCH", f"{deployments}/web/scale", {"spec": {"replicas": 3}}, MERGE),
        lambda answer: answer.json["spec"]["replicas"] == 7,
    )
    assert scaled.json["kind"] == "Scale"
    asked = hook.requests[-1]
    assert asked["kind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    assert asked["object"]["kind"] == "Scale"
    hook.answer = lambda request: {"allowed": True}
    hook.requests.clear()
    await rest.post(PODS, a_pod("bound"))
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bound"}, "target": {"name": "n1"}}
    assert (await rest.post(f"{PODS}/bound/binding", binding)).status == 201
    [asked] = [each for each in hook.requests if each.get("subResource") == "binding"]
    assert (asked["operation"], asked["kind"]["kind"]) == ("CREATE", "Binding")
    assert asked["object"]["target"] == {"name": "n1"}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "bound"}}
    assert (await rest.post(f"{PODS}/bound/eviction", eviction)).status == 201
    asked = next(each for each in hook.requests if each.get("subResource") == "eviction")
    assert asked["kind"] == {"group": "policy", "version": "v1", "kind": "Eviction"}


async def test_reviews_pass_hooks_as_other_creates_do(rest: RestClient, hook: WebhookServer) -> None:
    reviews = "/apis/authorization.k8s.io/v1"
    asked = {"spec": {"user": "jane", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "none"}}}
    rules = {**rule("*"), "apiGroups": ["authorization.k8s.io"], "apiVersions": ["v1"]}
    await registered(rest, hook, "Mutating", rules)
    hook.answer = patches(add("/spec/groups", ["system:masters"]))
    allowed = await until(
        lambda: rest.post(f"{reviews}/subjectaccessreviews", asked), lambda answer: bool(hook.requests)
    )
    assert allowed.status == 201 and allowed.json["status"]["allowed"] is True
    assert allowed.json["spec"]["groups"] == ["system:masters"]
    request = hook.requests[-1]
    named = {"group": "authorization.k8s.io", "version": "v1"}
    assert request["kind"] == request["requestKind"] == {**named, "kind": "SubjectAccessReview"}
    assert request["resource"] == {**named, "resource": "subjectaccessreviews"}
    assert (request["operation"], request["object"]["spec"]) == ("CREATE", asked["spec"])
    local = await rest.post(f"{reviews}/namespaces/none/localsubjectaccessreviews", asked)
    assert local.status == 201, "whether the namespace is there is not told"
    assert hook.requests[-1]["namespace"] == "none"
    hook.answer = denies("no questions")
    refused = await rest.post(f"{reviews}/subjectaccessreviews", asked)
    assert (refused.status, refused.json["message"]) == (
        403,
        'admission webhook "hook.example.com" denied the request: no questions',
    )


@pytest.mark.parametrize(("policy", "seen"), [("Equivalent", "v2"), ("Equivalent", "v1"), ("Exact", "v1")])
async def test_hooks_are_told_in_which_version_a_request_came(
    rest: RestClient, hook: WebhookServer, policy: str, seen: str
) -> None:
    scalers = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 70}
    rules = {**rule("horizontalpodautoscalers"), "apiGroups": ["autoscaling"], "apiVersions": [seen]}
    await registered(rest, hook, "Mutating", rules, matchPolicy=policy)
    hook.answer = patches(add("/spec/minReplicas", 2))
    numbers = itertools.count()

    def create() -> Awaitable[Answer]:
        return rest.post(scalers, {"metadata": {"name": f"web-{next(numbers)}"}, "spec": spec})

    made = await until(create, lambda answer: bool(hook.requests))
    assert made.status == 201, made.body
    assert (made.json["spec"]["minReplicas"], made.json["spec"]["targetCPUUtilizationPercentage"]) == (2, 70)
    request = hook.requests[-1]
    kind = {"group": "autoscaling", "kind": "HorizontalPodAutoscaler"}
    resource = {"group": "autoscaling", "resource": "horizontalpodautoscalers"}
    assert (request["requestKind"], request["requestResource"]) == (
        {**kind, "version": "v1"},
        {**resource, "version": "v1"},
    )
    assert (request["kind"], request["resource"]) == ({**kind, "version": seen}, {**resource, "version": seen})
    assert request["object"]["apiVersion"] == f"autoscaling/{seen}"
    assert ("targetCPUUtilizationPercentage" in request["object"]["spec"]) is (seen == "v1")


async def test_webhooks_are_measured(rest: RestClient, hook: WebhookServer) -> None:
    hook.answer = denies("no")
    await registered(rest, hook, "Validating", rule("configmaps", "CREATE"))
    await until(lambda: rest.post(MAPS, a_map()), lambda answer: answer.status == 403)
    open_hook = {"failurePolicy": "Ignore", "clientConfig": {"url": "https://127.0.0.1:1/"}}
    await registered(rest, hook, "Mutating", rule("configmaps", "CREATE"), **open_hook)

    async def told() -> str:
        await rest.post(MAPS, a_map())
        return (await rest.get("/metrics")).body.decode()

    async with asyncio.timeout(10):
        while "apiserver_admission_webhook_fail_open_count{" not in (text := await told()):
            pass
    asked = 'name="hook.example.com",operation="CREATE"'
    prefix = "apiserver_admission_webhook"
    for sample in (
        f'{prefix}_rejection_count{{error_type="no_error",{asked},rejection_code="403",type="validating"}}',
        f'{prefix}_request_total{{code="403",{asked},rejected="true",type="validating"}}',
        f'{prefix}_admission_duration_seconds_count{{{asked},rejected="true",type="validating"}}',
        f'{prefix}_fail_open_count{{name="hook.example.com",type="admit"}}',
        f'{prefix}_request_total{{code="503",{asked},rejected="false",type="admit"}}',
    ):
        assert f"\n{sample} " in text, sample
