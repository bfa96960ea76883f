"""APIServices without a server: conditions, endpoints, registration, what backends tell."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.aggregation import learn, trust
from apiserver.aggregation.identity import escape_key, user_headers
from apiserver.aggregation.model import (
    LOCAL,
    PASSED,
    ApiService,
    ServiceRef,
    Verdict,
    plan_backends,
    plan_condition,
    plan_missing,
    read,
)
from apiserver.aggregation.openapi_v3 import translated
from apiserver.aggregation.proxy import without_tokens
from apiserver.aggregation.registration import ALWAYS, api_service, plan
from apiserver.auth.user import UserInfo
from apiserver.discovery import Discovery, RemoteVersion

REF = ServiceRef("ns", "api", 443)
SPEC = ApiService("v1.x.io", "x.io", "v1", REF)


def service(**spec: Any) -> dict[str, Any]:
    return {"spec": {"ports": [{"port": 443, "name": "https"}], **spec}}


def slices(address: str = "10.0.0.1", name: str = "https", ready: bool | None = True) -> dict[str, Any]:
    endpoint = {"addresses": [address], "conditions": {} if ready is None else {"ready": ready}}
    return {"ports": [{"name": name, "port": 8443}], "endpoints": [endpoint]}


@pytest.mark.parametrize(
    ("found", "known", "reason"),
    [
        pytest.param(None, [], "ServiceNotFound", id="no-service"),
        pytest.param(service(ports=[{"port": 80}]), [slices()], "ServicePortError", id="other-port"),
        pytest.param(service(), [], "EndpointsNotFound", id="no-slices"),
        pytest.param(service(), [slices(ready=False)], "MissingEndpoints", id="not-ready"),
        pytest.param(service(), [slices(name="http")], "MissingEndpoints", id="other-port-name"),
        pytest.param(service(), [slices()], "", id="fine"),
        pytest.param(service(), [slices(ready=None)], "", id="unknown-is-ready"),
        pytest.param(service(type="ExternalName", externalName="x.example"), [], "", id="external"),
    ],
)
def test_what_a_service_lacks(found: dict[str, Any] | None, known: list[dict[str, Any]], reason: str) -> None:
    verdict = plan_missing(REF, found, known)
    assert (verdict.reason if verdict else "") == reason
    assert verdict is None or verdict.status == "False"


def test_backends() -> None:
    assert plan_backends(REF, service(), [slices(), slices("10.0.0.2", ready=False)]) == [("10.0.0.1", 8443)]
    assert plan_backends(REF, service(type="ExternalName", externalName="x.example"), []) == [("x.example", 443)]


def test_the_transition_time_moves_with_the_status_only() -> None:
    first = plan_condition({}, PASSED, "t1")
    again = plan_condition(first, Verdict("True", "Other", "m"), "t2")
    assert (again["conditions"][0]["lastTransitionTime"], again["conditions"][0]["reason"]) == ("t1", "Other")
    lost = plan_condition(again, Verdict("False", "MissingEndpoints", "m"), "t3")
    assert lost["conditions"][0]["lastTransitionTime"] == "t3"
    others = {"conditions": [{"type": "Mine", "status": "True"}]}
    assert [each["type"] for each in plan_condition(others, LOCAL, "t")["conditions"]] == ["Mine", "Available"]


def test_registration() -> None:
    desired = {
        obj["metadata"]["name"]: obj for obj in [api_service("a.io", "v1", ALWAYS), api_service("b.io", "v1", ALWAYS)]
    }
    mine = read({**desired["v1.b.io"], "spec": {**desired["v1.b.io"]["spec"], "versionPriority": 5}})
    taken_over = ApiService("v1.c.io", "c.io", "v1", REF)
    left = read(api_service("gone.io", "v1", ALWAYS))
    create, repair, delete = plan(desired, {each.name: each for each in (mine, taken_over, left)})
    assert [obj["metadata"]["name"] for obj in create] == ["v1.a.io"]
    assert [obj["metadata"]["name"] for obj in repair] == ["v1.b.io"]
    assert delete == ["v1.gone.io"]
    settled = {name: read(obj) for name, obj in desired.items()}
    assert plan(desired, settled) == ([], [], [])


def test_headers_of_an_identity() -> None:
    user = UserInfo("jane", ("a", "b"), "7", {"scopes.io/Möglich %": ("x", "y")})
    assert list(user_headers(user)) == [
        (b"x-remote-user", b"jane"),
        (b"x-remote-uid", b"7"),
        (b"x-remote-group", b"a"),
        (b"x-remote-group", b"b"),
        (b"x-remote-extra-scopes.io%2FM%C3%B6glich%20%25", b"x"),
        (b"x-remote-extra-scopes.io%2FM%C3%B6glich%20%25", b"y"),
    ]


@given(st.text(max_size=20))
def test_keys_become_header_names(key: str) -> None:
    assert all(0x20 < byte < 0x7F and byte not in b'"(),/:;<=>?@[\\]{}' for byte in escape_key(key))


def test_tokens_stay_here() -> None:
    offered = b"v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0"
    kept = list(without_tokens([(b"sec-websocket-protocol", offered), (b"accept", b"x")]))
    assert kept == [(b"sec-websocket-protocol", b"v4.channel.k8s.io"), (b"accept", b"x")]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"items": 1}', b'{"items":[{"versions":"x"}]}', b"\xff", b"nul"])
def test_documents_that_are_none(body: bytes) -> None:
    for reader in (learn.from_aggregated, learn.from_list, learn.openapi_url):
        try:
            assert not reader(SPEC, body)
        except ValueError:
            continue


def test_only_the_own_group_version_is_heard() -> None:
    entry = {"resource": "things", "scope": "Cluster", "verbs": ["get"]}
    versions = [{"version": "v1", "resources": [entry]}, {"version": "v2"}]
    body = json.dumps({"items": [{"metadata": {"name": "x.io"}, "versions": versions}]}).encode()
    assert learn.from_aggregated(SPEC, body) == (entry,)
    assert learn.from_aggregated(ApiService("v3.x.io", "x.io", "v3", REF), body) is None
    urls = {"paths": {"apis/x.io/v1": {"serverRelativeURL": "https://elsewhere/"}}}
    assert learn.openapi_url(SPEC, json.dumps(urls).encode()) == ""


def pem(text: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("found", "wanted", "together"),
    [
        pytest.param("", pem("a"), pem("a"), id="missing"),
        pytest.param(pem("a") + "# ours\n", pem("a"), pem("a") + "# ours\n", id="there"),
        pytest.param(pem("b"), pem("a"), pem("b") + pem("a"), id="another-authority"),
        pytest.param("garbage", pem("a"), pem("a"), id="no-certificate"),
        pytest.param('["x"]', '["y"]', '["x", "y"]', id="names"),
        pytest.param('["y","x"]', '["y"]', '["y","x"]', id="more-names"),
        pytest.param("{", '["y"]', '["y"]', id="no-names"),
    ],
)
def test_whom_to_believe(found: str, wanted: str, together: str) -> None:
    assert trust.union(found, wanted) == together
    assert trust.union(together, wanted) == together
    kept = {"data": {"k": together, "other": "mine"}}
    assert trust.plan(kept, {"data": {"k": wanted}}) is None


def test_openapi_v2_becomes_v3() -> None:
    reference = {"$ref": "#/definitions/x.Thing"}
    shared = {"dryRun-query": {"name": "dryRun", "in": "query", "type": "string"}}
    operation = {
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "parameters": [{"$ref": "#/parameters/dryRun-query"}, {"in": "body", "name": "body", "schema": reference}],
        "responses": {"200": {"description": "OK", "schema": reference}, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": "post",
    }
    definitions = {
        "x.Thing": {"type": "object", "properties": {"other": {"description": "d", "$ref": "#/definitions/x.Other"}}},
        "x.Other": {"type": "string"},
        "unused": {"type": "string"},
    }
    body = {"paths": {"/apis/x.io/v1/things": {"post": operation}, "/apis/y.io/v1/z": {}}, "parameters": shared}
    made = translated("/apis/x.io/v1", json.dumps({**body, "definitions": definitions}).encode())
    assert made is not None
    document = json.loads(made)
    post = document["paths"]["/apis/x.io/v1/things"]["post"]
    assert post["parameters"] == [{"name": "dryRun", "in": "query", "schema": {"type": "string"}}]
    there = {"schema": {"$ref": "#/components/schemas/x.Thing"}}
    assert post["requestBody"] == {"content": {"application/json": there}}
    assert post["responses"]["200"]["content"] == {"application/json": there}
    assert post["x-kubernetes-action"] == "post"
    schemas = document["components"]["schemas"]
    assert schemas.keys() == {"x.Thing", "x.Other"}
    other = {"description": "d", "allOf": [{"$ref": "#/components/schemas/x.Other"}]}
    assert schemas["x.Thing"]["properties"]["other"] == other
    assert translated("/apis/none/v1", b"{}") is None
    with pytest.raises(ValueError):
        translated("/apis/x.io/v1", b'{"paths": {"/apis/x.io/v1/things": {"get": 1}}}')


def test_discovery_orders_by_priority() -> None:
    remotes = [
        RemoteVersion("low.io", "v1", 100, 100, available=True, fresh=True),
        RemoteVersion("high.io", "v1", 18500, 100, available=True, fresh=True),
        RemoteVersion("high.io", "v2", 100, 200, available=False),
        RemoteVersion("apps", "v9", 1, 1, available=True),
    ]
    from api.resources import RESOURCES

    made = Discovery(RESOURCES, remotes)
    names = made.group_names()
    assert (names[0], names[-1]) == ("high.io", "low.io")
    assert names[1:-1] == Discovery(RESOURCES).group_names()
    high, apps = made.group("high.io"), made.group("apps")
    assert high is not None and [each["version"] for each in high["versions"]] == ["v1"]
    assert apps is not None and [each["version"] for each in apps["versions"]] == ["v1", "v9"]
    told = {item["metadata"]["name"]: item for item in json.loads(made.aggregated("apis"))["items"]}
    freshness = [(each["version"], each["freshness"]) for each in told["high.io"]["versions"]]
    assert freshness == [("v2", "Stale"), ("v1", "Current")]
    assert made.resource_list("high.io", "v1") is None
