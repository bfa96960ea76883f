"""What fuzzing has found (docs/fuzz.md), over REST: each answer is a Status of the client's fault, or a success."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from apiserver.rest import bodies
from tests.harness.apiserver import RestClient, RunningApiServer

CORE = "/api/v1"
DEFAULT = f"{CORE}/namespaces/default"
CONTAINER = {"name": "c", "image": "i"}


async def prepared(apiserver: RunningApiServer) -> RestClient:
    rest = apiserver.rest()
    assert (await rest.post(f"{DEFAULT}/serviceaccounts", {"metadata": {"name": "default"}})).status in (201, 409)
    return rest


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"containers": [None]}, 422),
        ({"containers": [CONTAINER], "volumes": [None]}, 422),
        ({"containers": [CONTAINER], "tolerations": [None]}, 422),
        ({"containers": [{**CONTAINER, "ports": [None], "env": [None]}]}, 422),
        ({"containers": [{**CONTAINER, "args": [None]}]}, 201),
    ],
)
async def test_null_in_a_list_is_the_zero_value(apiserver: RunningApiServer, spec: dict[str, Any], status: int) -> None:
    rest = await prepared(apiserver)
    answer = await rest.post(f"{DEFAULT}/pods", {"metadata": {"name": "p"}, "spec": spec})
    assert answer.status == status, answer.json
    if status == 201:
        assert answer.json["spec"]["containers"][0]["args"] == [""]


async def test_null_finalizers_are_empty_names(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    for path, body in (
        (f"{CORE}/namespaces", {"metadata": {"name": "a", "finalizers": [None]}}),
        (f"{CORE}/namespaces", {"metadata": {"name": "a"}, "spec": {"finalizers": [None]}}),
    ):
        answer = await rest.post(path, body)
        assert (answer.status, answer.json["reason"]) == (422, "Invalid"), answer.json
        assert "finalizers" in answer.json["message"]
    assert (await rest.post(f"{CORE}/namespaces", {"metadata": {"name": "a"}})).status == 201
    finalize = {"metadata": {"name": "a"}, "spec": {"finalizers": [None]}}
    answer = await rest.request("PUT", f"{CORE}/namespaces/a/finalize", finalize)
    assert answer.status == 422, answer.json


async def test_a_refusal_inside_a_collection_is_the_answer(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    for name in ("one", "two"):
        assert (await rest.post(f"{DEFAULT}/configmaps", {"metadata": {"name": name}})).status == 201
    answer = await rest.request("DELETE", f"{DEFAULT}/configmaps", {"preconditions": {"uid": "another"}})
    assert (answer.status, answer.json["reason"]) == (409, "Conflict"), answer.json


async def test_half_of_a_surrogate_pair_is_replaced(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    body = b'{"metadata":{"name":"half"},"data":{"a":"\xed\xa0\xbd"},"\xed\xa0\xbd":1}'
    answer = await rest.request("POST", f"{DEFAULT}/configmaps?fieldValidation=Warn", body)
    assert answer.status == 201, answer.body
    assert answer.json["data"] == {"a": "\ufffd" * 3}
    assert answer.header("warning").startswith('299 - "unknown field')


@pytest.mark.parametrize("apply", [False, True])
@pytest.mark.parametrize(("lines", "elsewhere"), [(10, False), (10_000, True)])
async def test_a_thread_reads_large_yaml(
    apiserver: RunningApiServer, monkeypatch: pytest.MonkeyPatch, lines: int, *, elsewhere: bool, apply: bool
) -> None:
    load, readers = bodies.load_yaml, list[bool]()

    def noted(raw: bytes) -> Any:
        readers.append(threading.current_thread() is not threading.main_thread())
        return load(raw)

    monkeypatch.setattr(bodies, "load_yaml", noted)
    rest = apiserver.rest()
    head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: large}\ndata:\n"
    body = (head + "".join(f"  k{number}: v{number}\n" for number in range(lines))).encode()
    if apply:
        path, method = f"{DEFAULT}/configmaps/large?fieldManager=me", "PATCH"
        headers = {"content-type": "application/apply-patch+yaml"}
    else:
        path, method, headers = f"{DEFAULT}/configmaps", "POST", {"content-type": "application/yaml"}
    made = await rest.request(method, path, body, headers)
    assert made.status == 201, made.body[:500]
    assert len(made.json["data"]) == lines
    assert readers == [elsewhere]


async def test_a_lone_surrogate_in_an_escape_is_replaced(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    body = rb'{"metadata":{"name":"escaped"},"data":{"a":"\ud83d","b":"\ud83d\ude00"}}'
    answer = await rest.request("POST", f"{DEFAULT}/configmaps", body)
    assert answer.status == 201, answer.body
    assert answer.json["data"] == {"a": "\ufffd", "b": "\U0001f600"}
    patch = rb'{"data":{"a":"\udc00x"}}'
    headers = {"content-type": "application/merge-patch+json"}
    patched = await rest.request("PATCH", f"{DEFAULT}/configmaps/escaped", patch, headers)
    assert patched.json["data"]["a"] == "\ufffdx"


async def test_many_who_wait_for_a_far_version_hold_up_nobody(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    path = f"{DEFAULT}/configmaps?resourceVersion=99999999&timeout=1s"
    waits = [asyncio.create_task(rest.get(path)) for _ in range(30)]
    assert (await rest.post(f"{DEFAULT}/configmaps", {"metadata": {"name": "meanwhile"}})).status == 201
    assert {answer.status for answer in await asyncio.gather(*waits)} == {504}
    assert (await rest.get(f"{DEFAULT}/configmaps/meanwhile")).status == 200
