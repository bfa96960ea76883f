"""The audit log of a running server, through both doors."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.models import core_v1, meta_v1
from apiserver.audit.auditor import Auditor
from apiserver.audit.log import AuditLog
from apiserver.audit.policy import parse
from client.client import Client
from tests.harness.apiserver import USER_TOKEN, RunningApiServer, eventually, running_apiserver
from tests.harness.webhook import running_webhook

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
RULES = [
    {"level": "None", "users": ["system:apiserver"]},
    {"level": "None", "verbs": ["get"], "resources": [{"resources": ["namespaces"]}]},
    {"level": "RequestResponse", "resources": [{"resources": ["configmaps"]}], "omitManagedFields": True},
    {"level": "Metadata"},
]


class Site:
    def __init__(self, server: RunningApiServer, auditor: Auditor, path: Path) -> None:
        self.server = server
        self._auditor = auditor
        self._path = path

    def events(self, **wanted: Any) -> list[dict[str, Any]]:
        self._auditor._log.flush()
        found = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [each for each in found if all(each.get(key) == value for key, value in wanted.items())]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    path = tmp_path / "audit.log"
    auditor = Auditor(parse({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": RULES}), AuditLog(str(path)))
    async with running_apiserver(auditor=auditor) as server:
        yield Site(server, auditor, path)


async def test_a_creation_in_full(site: Site) -> None:
    body = {"metadata": {"name": "a"}, "data": {"k": "v"}}
    made = await site.server.rest().post(CONFIG_MAPS, body, audit_id="an-id")
    assert made.status == 201
    received, complete = site.events(auditID="an-id")
    assert (received["stage"], complete["stage"]) == ("RequestReceived", "ResponseComplete")
    assert (complete["kind"], complete["apiVersion"], complete["level"]) == (
        "Event",
        "audit.k8s.io/v1",
        "RequestResponse",
    )
    assert (complete["verb"], complete["requestURI"]) == ("create", CONFIG_MAPS)
    assert complete["user"]["username"] == "admin"
    assert complete["user"]["groups"] == ["system:masters", "system:authenticated"]
    assert complete["sourceIPs"] == ["127.0.0.1"]
    assert complete["userAgent"] == "tester/1.0"
    assert complete["objectRef"] == {"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"}
    assert complete["responseStatus"] == {"metadata": {}, "code": 201}
    assert complete["requestObject"]["data"] == {"k": "v"}
    assert complete["responseObject"]["metadata"]["uid"] == made.json["metadata"]["uid"]
    assert "managedFields" not in complete["responseObject"]["metadata"]
    assert complete["annotations"]["authorization.k8s.io/decision"] == "allow"
    assert received["requestReceivedTimestamp"] == complete["requestReceivedTimestamp"] < complete["stageTimestamp"]


async def test_refusals_say_why(site: Site) -> None:
    rest = site.server.rest(USER_TOKEN)
    assert (await rest.get(f"{CONFIG_MAPS}/x", audit_id="refused")).status == 403
    event = site.events(auditID="refused", stage="ResponseComplete")[0]
    assert event["annotations"]["authorization.k8s.io/decision"] == "forbid"
    assert event["responseStatus"]["code"] == 403
    assert event["responseStatus"]["reason"] == "Forbidden"
    assert (await site.server.rest("nonsense").get(CONFIG_MAPS, audit_id="unknown")).status == 401
    event = site.events(auditID="unknown", stage="ResponseComplete")[0]
    assert (event["responseStatus"]["code"], event["user"]) == (401, {})


async def test_impersonation_names_both(site: Site) -> None:
    rest = site.server.rest(impersonate_user="bob", impersonate_group="dev")
    await rest.get(CONFIG_MAPS, audit_id="as-bob")
    event = site.events(auditID="as-bob", stage="ResponseComplete")[0]
    assert event["user"]["username"] == "admin"
    assert event["impersonatedUser"]["username"] == "bob"
    assert (await site.server.rest(USER_TOKEN, impersonate_user="bob").get(CONFIG_MAPS, audit_id="no")).status == 403
    event = site.events(auditID="no", stage="ResponseComplete")[0]
    assert event["user"]["username"] == "alice" and "impersonatedUser" not in event


async def test_levels_and_lists(site: Site) -> None:
    rest = site.server.rest()
    await rest.get("/api/v1/namespaces/default", audit_id="unseen")
    await rest.get("/version", audit_id="plain")
    await rest.get(CONFIG_MAPS, audit_id="listed", accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert site.events(auditID="unseen") == []
    plain = site.events(auditID="plain", stage="ResponseComplete")[0]
    assert "objectRef" not in plain and "responseObject" not in plain
    listed = site.events(auditID="listed", stage="ResponseComplete")[0]
    assert listed["responseObject"]["kind"] == "ConfigMapList"
    patch = {"data": {"n": "1"}}
    await rest.post(CONFIG_MAPS, {"metadata": {"name": "p"}})
    headers = {"content-type": "application/merge-patch+json", "audit-id": "patched"}
    await rest.request("PATCH", f"{CONFIG_MAPS}/p", patch, headers)
    assert site.events(auditID="patched", stage="ResponseComplete")[0]["requestObject"] == patch


async def test_a_watch_has_a_stage_more(site: Site) -> None:
    rest = site.server.rest()
    async with rest.watch(f"{CONFIG_MAPS}?watch=1", {"audit-id": "watched"}):
        assert [each["stage"] for each in site.events(auditID="watched")] == ["RequestReceived", "ResponseStarted"]
    await eventually(lambda: len(site.events(auditID="watched")) == 3)
    last = site.events(auditID="watched")[-1]
    assert (last["stage"], last["verb"], last["responseStatus"]["code"]) == ("ResponseComplete", "watch", 200)


async def test_calls_over_grpc(site: Site) -> None:
    client = Client.connect(site.server.grpc_target, site.server.admin_tls)
    await client.create(core_v1.ConfigMap(metadata=meta_v1.ObjectMeta(name="g", namespace="default")))
    await client.close()
    event = site.events(verb="create", stage="ResponseComplete")[-1]
    assert event["requestURI"] == CONFIG_MAPS
    assert event["objectRef"]["name"] == "g"
    assert event["sourceIPs"] == ["127.0.0.1"]
    assert event["responseStatus"]["code"] == 201
    assert event["responseObject"]["metadata"]["name"] == "g"


async def test_admission_tells_the_event(site: Site) -> None:
    rest = site.server.rest()
    labels = {"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/audit": "restricted"}
    assert (await rest.post("/api/v1/namespaces", {"metadata": {"name": "safe", "labels": labels}})).status == 201
    accounts = "/api/v1/namespaces/safe/serviceaccounts"
    assert (await rest.post(accounts, {"metadata": {"name": "default"}})).status == 201
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    assert (await rest.post("/api/v1/namespaces/safe/pods", pod, audit_id="pod")).status == 201
    told = site.events(auditID="pod", stage="ResponseComplete")[0]["annotations"]
    assert told["pod-security.kubernetes.io/enforce-policy"] == "baseline:latest"
    wanted = 'would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false'
    assert told["pod-security.kubernetes.io/audit-violations"].startswith(wanted)


async def test_hooks_and_policies_tell_the_event(site: Site) -> None:
    rest, hooks = site.server.rest(), "/apis/admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}
    policy = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false", "message": "never"}],
        "auditAnnotations": [{"key": "name", "valueExpression": "'it is ' + object.metadata.name"}],
    }
    binding = {"policyName": "p.example.com", "validationActions": ["Audit"]}
    policies = f"{hooks}/validatingadmissionpolicies"
    assert (await rest.post(policies, {"metadata": {"name": "p.example.com"}, "spec": policy})).status == 201
    made = await rest.post(f"{policies[:-3]}ybindings", {"metadata": {"name": "b.example.com"}, "spec": binding})
    assert made.status == 201, made.body
    async with running_webhook() as hook:
        webhook = {"clientConfig": hook.client(), "rules": [rule], "sideEffects": "None"}
        for kind in ("mutating", "validating"):
            entry = {**webhook, "name": f"{kind}.example.com", "admissionReviewVersions": ["v1"]}
            body = {"metadata": {"name": kind}, "webhooks": [entry]}
            assert (await rest.post(f"{hooks}/{kind}webhookconfigurations", body)).status == 201
        patch = base64.b64encode(b'[{"op":"add","path":"/data","value":{"a":"b"}}]').decode()
        patched = {"patchType": "JSONPatch", "patch": patch}
        hook.answer = lambda request: {"allowed": True, "auditAnnotations": {"who": "me"}, **patched}
        number = 0
        async with asyncio.timeout(10):
            while True:  # hooks and policies are known when their caches are
                number += 1
                body = {"metadata": {"name": f"m{number}"}}
                assert (await rest.post(CONFIG_MAPS, body, audit_id=f"m{number}")).status == 201
                told = site.events(auditID=f"m{number}", stage="ResponseComplete")[0]["annotations"]
                if {"validating.example.com/who", "p.example.com/name"} <= set(told):
                    break
    assert told["mutating.example.com/who"] == told["validating.example.com/who"] == "me"
    assert told["p.example.com/name"] == f"it is m{number}"
    mutation = json.loads(told["mutation.webhook.admission.k8s.io/round_0_index_0"])
    assert mutation == {"configuration": "mutating", "webhook": "mutating.example.com", "mutated": True}
    sent = json.loads(told["patch.webhook.admission.k8s.io/round_0_index_0"])
    assert sent["patchType"] == "JSONPatch" and sent["patch"] == json.loads(base64.b64decode(patch))
    (failure,) = json.loads(told["validation.policy.admission.k8s.io/validation_failure"])
    assert failure == {
        "message": "never",
        "policy": "p.example.com",
        "binding": "b.example.com",
        "expressionIndex": 0,
        "validationActions": ["Audit"],
    }


async def test_faults_are_panics(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    store = site.server.server.registry.resource("", "v1", "configmaps")

    async def broken(*_: Any, **__: Any) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(type(store), "get", broken)
    assert (await site.server.rest().get(f"{CONFIG_MAPS}/x", audit_id="broken")).status == 500
    stages = [each["stage"] for each in site.events(auditID="broken")]
    assert stages == ["RequestReceived", "Panic"]
