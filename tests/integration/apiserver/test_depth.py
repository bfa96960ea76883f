"""Values that are nested deeply, or stand for huge ones: refused or served, in every form, never an accident."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from machinery.nesting import MAX_DEPTH
from tests.harness.apiserver import RestClient, RunningApiServer

Nested = Callable[[int], str]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MAPS = "/api/v1/namespaces/default/configmaps"
DEEP = "/apis/deep.example.com/v1/namespaces/default/deeps"
DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "deeps.deep.example.com"},
    "spec": {
        "group": "deep.example.com",
        "scope": "Namespaced",
        "names": {"plural": "deeps", "singular": "deep", "kind": "Deep", "listKind": "DeepList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "any": {"x-kubernetes-preserve-unknown-fields": True},
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}
JSON, YAML = "application/json", "application/yaml"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
OPERATIONS, APPLY = "application/json-patch+json", "application/apply-patch+yaml"
HEAD = '"apiVersion":"deep.example.com/v1","kind":"Deep","metadata":{"name":"%s"}'
MAP = '"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"one"}'
ONE, PLAIN = f"{DEEP}/one", f"{MAPS}/plain"
APPLIED = f"{ONE}?fieldManager=m&force=true"


def maps(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def lists(depth: int) -> str:
    return "[" * depth + "]" * depth


def block(depth: int) -> str:
    """Maps in maps by indentation, which grows with the square: no deeper than a body may be long."""
    head = "apiVersion: deep.example.com/v1\nkind: Deep\nmetadata:\n  name: one\nany:\n"
    return head + "".join(f"{' ' * level}a:\n" for level in range(1, min(depth, 2000)))


async def served(rest: RestClient) -> None:
    assert (await rest.post(CRDS, DEFINITION)).status == 201
    async with asyncio.timeout(10):
        while (await rest.get(DEEP)).status != 200:  # noqa: ASYNC110  the server tells of no event
            await asyncio.sleep(0.005)
    assert (await rest.post(DEEP, json.loads(f'{{{HEAD % "one"},"any":{{"b":1}}}}'))).status == 201
    assert (await rest.post(MAPS, {"metadata": {"name": "plain"}, "data": {"a": "b"}})).status == 201


async def send(rest: RestClient, method: str, path: str, body: str, content_type: str) -> int:
    """The code of an answer, which is no server error and, as a refusal, a Status."""
    answer = await rest.request(method, path, body.encode(), {"content-type": content_type})
    if answer.status >= 400:
        assert answer.json["kind"] == "Status" and answer.json["code"] == answer.status
        assert answer.status < 500, (method, path, content_type, answer.json["message"][:300])
    return answer.status


async def read_all(rest: RestClient) -> None:
    """Everything can be read in every form."""
    for path in (DEEP, ONE):
        for form in (JSON, YAML, TABLE):
            answer = await rest.get(path, accept=form)
            assert answer.status == 200, (path, form, answer.body[:300])


def writes(value: str) -> Iterator[tuple[str, str, str, str]]:
    """Method, path, body and content type of whatever can carry the value into a schemaless place."""
    yield "POST", DEEP, f'{{{HEAD % "two"},"any":{value}}}', JSON
    yield "POST", f"{DEEP}?fieldValidation=Strict", f'{{{HEAD % "three"},"any":{value}}}', YAML
    yield "PATCH", ONE, f'{{"any":{value}}}', MERGE
    yield "PATCH", ONE, f'[{{"op":"add","path":"/any","value":{value}}}]', OPERATIONS
    yield "PATCH", ONE, f'[{{"op":"test","path":"/any","value":{value}}}]', OPERATIONS
    yield "PATCH", APPLIED, f'{{{HEAD % "one"},"any":{value}}}', APPLY


def misfits(value: str) -> Iterator[tuple[str, str, str, str]]:
    """The same for places where it cannot stand, however deep."""
    yield "PUT", ONE, f'{{{HEAD % "one"},"any":{value}}}', JSON
    yield "PUT", f"{ONE}/status", f'{{{HEAD % "one"},"status":{{"a":{value}}}}}', JSON
    yield "POST", MAPS, f'{{{MAP},"data":{value}}}', JSON
    yield "POST", f"{MAPS}?fieldValidation=Strict", f'{{{MAP},"unknown":{value}}}', JSON
    yield "POST", MAPS, f'{{{MAP},"data":{value}}}', YAML
    yield "PATCH", PLAIN, f'{{"data":{value}}}', STRATEGIC
    yield "PATCH", PLAIN, f'{{"metadata":{{"labels":{value}}}}}', MERGE
    yield (
        "PATCH",
        PLAIN,
        f'[{{"op":"add","path":"{"/a" * (value.count("a") + value.count("["))}/b","value":1}}]',
        OPERATIONS,
    )
    yield "DELETE", PLAIN, f'{{"gracePeriodSeconds":{value}}}', JSON
    yield "POST", CRDS, f'{{"metadata":{{"name":"x.y.z"}},"spec":{{"names":{value}}}}}', JSON
    yield "POST", "/api/v1/namespaces/default/pods", f'{{"spec":{{"containers":{value}}}}}', JSON


@pytest.mark.parametrize("nested", [maps, lists])
async def test_what_is_nested_moderately_is_stored_and_read(apiserver: RunningApiServer, nested: Nested) -> None:
    rest = apiserver.rest()
    await served(rest)
    for each in writes(nested(MAX_DEPTH - 10)):
        assert await send(rest, *each) in (200, 201), each[:2]
    await read_all(rest)
    assert await send(rest, "PATCH", f"{APPLIED}&dryRun=All", block(MAX_DEPTH - 10), APPLY) == 200


@pytest.mark.parametrize("depth", [MAX_DEPTH + 5, 480, 10_000, 100_000])
@pytest.mark.parametrize("nested", [maps, lists])
async def test_what_is_nested_deeper_is_refused(apiserver: RunningApiServer, nested: Nested, depth: int) -> None:
    rest = apiserver.rest()
    await served(rest)
    value = nested(depth)
    for each in writes(value):
        assert await send(rest, *each) in (400, 413, 422), each[:2]
    for each in misfits(value):
        assert await send(rest, *each) in (400, 413, 422), each[:2]
    assert await send(rest, "PATCH", APPLIED, block(depth), APPLY) == 400
    await read_all(rest)


async def test_patches_cannot_deepen_an_object_bit_by_bit(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await served(rest)
    step, codes = maps(90), []
    for number in range(5):
        operation = f'[{{"op":"add","path":"/any{"/a" * (90 * number)}","value":{step}}}]'
        codes.append(await send(rest, "PATCH", ONE, operation, OPERATIONS))
    assert codes[:2] == [200, 200] and set(codes[2:]) <= {400, 422}
    doubling = ",".join('{"op":"copy","from":"/any","path":"/any/b"}' for _ in range(60))
    assert await send(rest, "PATCH", ONE, f"[{doubling}]", OPERATIONS) in (400, 413, 422)
    await read_all(rest)


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(
            "l0: &l0 [x]\n" + "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
        ),
        pytest.param(
            "l0: &l0 {x: 1}\n"
            + "".join(f"l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 9)}]}}\n" for n in range(1, 12))
        ),
        pytest.param("a: &a [*a]\n"),
        pytest.param("a: &a {<<: *a}\n"),
        pytest.param("- " * 100_000),
        pytest.param("? " * 100_000),
    ],
    ids=["aliases", "merges", "itself", "merged with itself", "dashes", "keys"],
)
async def test_small_text_that_stands_for_much_is_refused(apiserver: RunningApiServer, bomb: str) -> None:
    rest = apiserver.rest()
    assert await send(rest, "POST", MAPS, bomb, YAML) == 400
    assert await send(rest, "PATCH", f"{PLAIN}?fieldManager=m", bomb, APPLY) == 400
