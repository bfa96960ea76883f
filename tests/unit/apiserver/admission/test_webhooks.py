"""Admission webhooks against a real HTTPS server in the test's own loop."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import h11
import pytest

from api.resources import lookup
from apiserver.admission.matching import rule_matches
from apiserver.admission.webhooks.review import BadAnswer, denial, verdict_of
from apiserver.auth.user import UserInfo
from apiserver.registry.context import RequestContext
from machinery.errors import InternalError, StatusError
from machinery.tls import CertificateAuthority
from tests.unit.apiserver.admission.conftest import Cluster, a_pod

Obj = dict[str, Any]
Answer = Callable[[Obj], Obj]


class Webhook:
    """Answers reviews by `answer`; remembers requests."""

    def __init__(self, address: str, bundle: str) -> None:
        self.address = address
        self.bundle = bundle
        self.answer: Answer = lambda request: {"allowed": True}
        self.requests: list[Obj] = []
        self.connections = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        http = h11.Connection(h11.SERVER)
        body = b""
        try:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    await self.gate.wait()
                    review = json.loads(body)
                    body = b""
                    self.requests.append(review["request"])
                    review["response"] = {"uid": review["request"]["uid"], **self.answer(review.pop("request"))}
                    out = json.dumps(review).encode()
                    headers = [("content-length", str(len(out)))]
                    for part in (
                        h11.Response(status_code=200, headers=headers),
                        h11.Data(data=out),
                        h11.EndOfMessage(),
                    ):
                        writer.write(http.send(part) or b"")
                    http.start_next_cycle()
                elif not isinstance(event, h11.Request):
                    break
        except (OSError, h11.ProtocolError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def webhook(tmp_path: Path) -> AsyncIterator[Webhook]:
    authority = CertificateAuthority.create(tmp_path)
    pair = authority.issue_to("hook", "hook", sans=["hook.team.svc", "127.0.0.1"], server=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    made = Webhook("", base64.b64encode(authority.cert_path.read_bytes()).decode())
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()


def config(webhook: Webhook, *, name: str = "hook", **settings: Any) -> Obj:
    rule = {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps", "pods"]}
    hook = {
        "name": f"{name}.example.com",
        "clientConfig": {"url": f"https://{webhook.address}/review", "caBundle": webhook.bundle},
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 5,
        **settings,
    }
    return {"metadata": {"name": name}, "webhooks": [hook]}


GROUP = "admissionregistration.k8s.io"


async def validating(cluster: Cluster, webhook: Webhook, **settings: Any) -> None:
    await cluster.create("validatingwebhookconfigurations", config(webhook, **settings), "", group=GROUP)


async def mutating(cluster: Cluster, webhook: Webhook, **settings: Any) -> None:
    await cluster.create("mutatingwebhookconfigurations", config(webhook, **settings), "", group=GROUP)


def patching(*operations: Obj) -> Answer:
    patch = base64.b64encode(json.dumps(operations).encode()).decode()
    return lambda request: {"allowed": True, "patchType": "JSONPatch", "patch": patch}


def a_map(name: str = "web", **meta: Any) -> Obj:
    return {"metadata": {"name": name, **meta}}


async def test_a_validating_hook_sees_the_write_and_refuses_it(cluster: Cluster, webhook: Webhook) -> None:
    await validating(cluster, webhook)
    webhook.answer = lambda request: {"allowed": False, "status": {"message": "no", "code": 403, "reason": "Forbidden"}}
    with pytest.raises(StatusError) as caught:
        await cluster.create("configmaps", a_map())
    assert (caught.value.code, caught.value.reason) == (403, "Forbidden")
    assert caught.value.message == 'admission webhook "hook.example.com" denied the request: no'
    request = webhook.requests[0]
    assert (request["operation"], request["name"], request["namespace"]) == ("CREATE", "web", "team")
    assert request["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert request["object"]["kind"] == "ConfigMap" and request["object"]["metadata"]["uid"]
    assert request["oldObject"] is None and request["userInfo"] == {"username": "tester"}


async def test_a_mutating_hook_changes_what_is_stored(cluster: Cluster, webhook: Webhook) -> None:
    await mutating(cluster, webhook)
    webhook.answer = patching({"op": "add", "path": "/metadata/labels", "value": {"by": "hook"}})
    made = await cluster.create("configmaps", a_map())
    assert made["metadata"]["labels"] == {"by": "hook"}
    assert (await cluster.get("configmaps", "web"))["metadata"]["uid"] == made["metadata"]["uid"]


async def test_what_a_hook_adds_gets_its_defaults(cluster: Cluster, webhook: Webhook) -> None:
    limit = {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}}
    await cluster.create("limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [limit]}})
    await mutating(cluster, webhook)
    sidecar = {"name": "side", "image": "proxy"}
    webhook.answer = patching({"op": "add", "path": "/spec/containers/-", "value": sidecar})
    made = (await cluster.create("pods", a_pod("web")))["spec"]["containers"]
    assert [each["name"] for each in made] == ["c0", "side"]
    assert made[1]["resources"] == {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}
    assert made[1]["terminationMessagePath"] == "/dev/termination-log"


async def test_a_hook_that_wishes_so_sees_what_came_after_it(cluster: Cluster, webhook: Webhook) -> None:
    await mutating(cluster, webhook, name="a", reinvocationPolicy="IfNeeded")
    await mutating(cluster, webhook, name="b")
    calls = iter(range(9))
    webhook.answer = lambda request: patching(
        {"op": "add", "path": f"/metadata/annotations/call{next(calls)}", "value": "x"}
    )(request)
    made = await cluster.create("configmaps", a_map(annotations={"first": "x"}))
    assert sorted(made["metadata"]["annotations"]) == ["call0", "call1", "call2", "first"]


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
async def test_hooks_that_do_not_answer(cluster: Cluster, webhook: Webhook, policy: str) -> None:
    await validating(cluster, webhook, timeoutSeconds=1, failurePolicy=policy)
    webhook.gate.clear()
    if policy == "Ignore":
        assert await cluster.create("configmaps", a_map())
        return
    with pytest.raises(InternalError) as caught:
        await cluster.create("configmaps", a_map())
    assert caught.value.message == (
        'Internal error occurred: failed calling webhook "hook.example.com": failed to call webhook: '
        f'Post "https://{webhook.address}/review?timeout=1s": context deadline exceeded'
    )


async def test_a_wrong_certificate_is_no_answer(cluster: Cluster, webhook: Webhook, tmp_path: Path) -> None:
    other = CertificateAuthority.create(tmp_path / "other").cert_path.read_bytes()
    webhook.bundle = base64.b64encode(other).decode()
    await validating(cluster, webhook)
    with pytest.raises(InternalError, match="failed to verify certificate"):
        await cluster.create("configmaps", a_map())
    assert not webhook.requests


async def test_services_are_asked_at_their_endpoints(cluster: Cluster, webhook: Webhook) -> None:
    reference = {"namespace": "team", "name": "hook", "path": "/x", "port": 443}
    client = {"service": reference, "caBundle": webhook.bundle}
    await validating(cluster, webhook, clientConfig=client)
    with pytest.raises(InternalError, match='service "hook" not found'):
        await cluster.create("configmaps", a_map())
    service = {"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443, "targetPort": 9443}]}}
    await cluster.create("services", service)
    with pytest.raises(InternalError, match='no endpoints available for service "hook"'):
        await cluster.create("configmaps", a_map())
    host, _, port = webhook.address.partition(":")
    endpoint_slice = {
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
        "ports": [{"name": "", "port": int(port), "protocol": "TCP"}],
    }
    store = cluster.registry.resource("discovery.k8s.io", "v1", "endpointslices")
    entry_cache = store.cache
    await _write_raw(cluster, endpoint_slice)
    assert len(entry_cache) == 1
    assert await cluster.create("configmaps", a_map())
    assert len(webhook.requests) == 1


async def _write_raw(cluster: Cluster, endpoint_slice: Obj) -> None:
    """Past validation, which allows no loopback address; the test's server has no other."""
    store = cluster.registry.resource("discovery.k8s.io", "v1", "endpointslices")
    raw = store.form.encode(
        {
            "metadata": {**endpoint_slice["metadata"], "namespace": "team"},
            **{key: value for key, value in endpoint_slice.items() if key != "metadata"},
        }
    )
    await store._store.create(store._key("team", "hook-1"), raw)
    await store.sync()


async def test_selectors_rules_and_dry_runs(cluster: Cluster, webhook: Webhook) -> None:
    await validating(cluster, webhook, objectSelector={"matchLabels": {"watched": "yes"}}, sideEffects="NoneOnDryRun")
    await cluster.create("configmaps", a_map("free"))
    await cluster.create("secrets", a_map("other", labels={"watched": "yes"}))
    assert webhook.requests == []
    await cluster.create("configmaps", a_map("seen", labels={"watched": "yes"}))
    assert [request["dryRun"] for request in webhook.requests] == [False]
    await cluster.create("configmaps", a_map("dry", labels={"watched": "yes"}), dry=True)
    assert webhook.requests[1]["dryRun"] is True and webhook.requests[1]["options"]["dryRun"] == ["All"]


async def test_match_conditions(cluster: Cluster, webhook: Webhook) -> None:
    condition = {"name": "not-web", "expression": "object.metadata.name != 'web'"}
    await validating(cluster, webhook, matchConditions=[condition])
    await cluster.create("configmaps", a_map("web"))
    assert webhook.requests == []
    await cluster.create("configmaps", a_map("other"))
    assert len(webhook.requests) == 1


async def test_connections_are_used_again_and_warnings_told(cluster: Cluster, webhook: Webhook) -> None:
    await validating(cluster, webhook)
    webhook.answer = lambda request: {"allowed": True, "warnings": ["think twice"]}
    for number in range(3):
        await cluster.create("configmaps", a_map(f"c{number}"))
        assert cluster.warnings == ["think twice"]
    assert webhook.connections == 1


@pytest.mark.parametrize(
    ("resources", "subresource", "expected"),
    [
        pytest.param(["pods"], "", True, id="plain"),
        pytest.param(["pods"], "status", False, id="not-its-subresource"),
        pytest.param(["pods/status"], "status", True, id="subresource"),
        pytest.param(["pods/*"], "status", True, id="any-subresource"),
        pytest.param(["*"], "status", False, id="star-is-main-resources"),
        pytest.param(["*/*"], "status", True, id="everything"),
        pytest.param(["*/*"], "", True, id="everything-has-main-resources"),
        pytest.param(["*/scale"], "status", False, id="other-subresource"),
    ],
)
def test_rules(resources: list[str], subresource: str, expected: bool) -> None:
    pods = lookup("", "v1", "pods")
    assert pods is not None
    rule = {"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources}
    assert rule_matches(rule, "CREATE", pods, "n", subresource) is expected
    assert not rule_matches(rule, "DELETE", pods, "n", subresource)
    assert not rule_matches({**rule, "scope": "Cluster"}, "CREATE", pods, "n", subresource)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        pytest.param({}, 400, " without explanation", id="nothing-said"),
        pytest.param({"code": 200, "reason": "Gone"}, 400, ": Gone", id="no-failure-code"),
        pytest.param({"code": 418, "message": "teapot"}, 418, ": teapot", id="own-code"),
    ],
)
def test_denials(status: Obj, code: int, message: str) -> None:
    error = denial("h", status)
    assert error.code == code
    assert error.message == f'admission webhook "h" denied the request{message}'


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}', id="no-response"),
        pytest.param(
            b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"other"}}', id="other-uid"
        ),
        pytest.param(
            b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"u","patch":"!"}}',
            id="patch-without-type",
        ),
        pytest.param(
            b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":'
            b'{"uid":"u","patch":"!","patchType":"JSONPatch"}}',
            id="patch-not-base64",
        ),
        pytest.param(b"[" * 5000, id="deep"),
    ],
)
def test_answers_that_are_none(raw: bytes) -> None:
    with pytest.raises(BadAnswer):
        verdict_of(raw, "v1", "u", mutating=True)


async def test_hooks_are_noted_for_the_audit_log(cluster: Cluster, webhook: Webhook) -> None:
    await mutating(cluster, webhook)
    webhook.answer = lambda request: {"allowed": True, "auditAnnotations": {"seen": "yes"}}
    ctx = RequestContext(UserInfo("tester"))
    await cluster.registry.resource("", "v1", "configmaps").create(ctx, "team", {"metadata": {"name": "a"}})
    assert ctx.annotations["hook.example.com/seen"] == "yes"
    noted = json.loads(ctx.annotations["mutation.webhook.admission.k8s.io/round_0_index_0"])
    assert noted == {"configuration": "hook", "webhook": "hook.example.com", "mutated": False}
