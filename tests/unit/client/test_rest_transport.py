"""Metadata over REST: paths, options, and answers of servers that are not all alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest

from api.resources import Resource
from client.client import Client, PatchType
from client.rest_transport import RestTransport
from machinery.errors import Gone, MethodNotAllowed, StatusError

THINGS = Resource("a.example", "v1", "things", "Thing")
ONE = {"metadata": {"name": "one", "namespace": "ns", "resourceVersion": "7"}}


class Scripted:
    """Answers in turn; notes what was asked."""

    def __init__(self, *answers: dict[str, Any], lines: tuple[bytes, ...] = ()) -> None:
        self._answers = list(answers)
        self._lines = lines
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []

    async def get(self, path: str, params: Mapping[str, str] | None = None, accept: str = "") -> dict[str, Any]:
        return await self.request("GET", path, params, accept=accept)

    async def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        body: bytes = b"",
        content_type: str = "",
        accept: str = "",
    ) -> dict[str, Any]:
        assert "as=PartialObjectMetadata" in accept
        self.asked.append((method, path, dict(params or {}), msgspec.json.decode(body) if body else content_type))
        return self._answers.pop(0)

    async def lines(self, path: str, params: Mapping[str, str] | None = None, accept: str = "") -> AsyncIterator[bytes]:
        self.asked.append(("WATCH", path, dict(params or {}), ""))
        for each in self._lines:
            yield each


def over(rest: Scripted) -> Client:
    return Client(RestTransport(rest))


async def test_paths_and_options() -> None:
    rest = Scripted(
        ONE, {"items": [ONE], "metadata": {"resourceVersion": "9", "continue": "t"}}, ONE, {"kind": "Status"}
    )
    client = over(rest)
    assert await client.get(THINGS, "one", "ns") == ONE
    page = await client.list(THINGS, limit=5)
    assert (page.items, page.resource_version, page.continue_) == ([ONE], "9", "t")
    await client.patch(THINGS, "one", {"metadata": {"finalizers": None}}, "ns", type=PatchType.MERGE)
    await client.delete(THINGS, "one", "ns", uid="u", propagation_policy="Background")
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
    assert rest.asked == [
        ("GET", "/apis/a.example/v1/namespaces/ns/things/one", {}, ""),
        ("GET", "/apis/a.example/v1/things", {"limit": "5"}, ""),
        ("PATCH", "/apis/a.example/v1/namespaces/ns/things/one", {}, {"metadata": {"finalizers": None}}),
        ("DELETE", "/apis/a.example/v1/namespaces/ns/things/one", {}, {**options, "preconditions": {"uid": "u"}}),
    ]


@pytest.mark.parametrize("version", ["", "abc", "1.5", "-3", "9" * 30])
async def test_versions_that_are_no_numbers_are_borne(version: str) -> None:
    found = {"metadata": {"resourceVersion": version}, "items": [{"metadata": {"resourceVersion": version}}]}
    assert (await over(Scripted(found)).list(THINGS)).resource_version == "0"


@pytest.mark.parametrize("found", [{"items": 3}, {"items": ["x"]}, {"metadata": []}, {"items": [{"metadata": 1}]}])
async def test_an_answer_that_is_no_list_is_refused(found: dict[str, Any]) -> None:
    with pytest.raises(StatusError):
        await over(Scripted(found)).list(THINGS)


async def test_a_watch_in_all_its_events() -> None:
    lines = [
        b'{"type":"ADDED","object":{"metadata":{"name":"one","resourceVersion":"8"}}}',
        b"",
        b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}',
        b'{"type":"DELETED","object":{"metadata":{"name":"one","resourceVersion":"10"}}}',
        b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}',
    ]
    rest = Scripted(lines=tuple(lines))
    seen = []
    with pytest.raises(Gone):
        async for batch in over(rest).watch(THINGS, resource_version="7"):
            seen += [(each.type, each.resource_version) for each in batch]
    assert seen == [("ADDED", "8"), ("BOOKMARK", "9"), ("DELETED", "10")]
    params = {"watch": "true", "timeoutSeconds": "300", "resourceVersion": "7", "allowWatchBookmarks": "true"}
    assert rest.asked == [("WATCH", "/apis/a.example/v1/things", params, "")]


@pytest.mark.parametrize("line", [b"[]", b"nonsense", b'{"type":"NEWS"}', b'{"type":"ADDED","object":3}'])
async def test_a_line_that_is_no_event_ends_the_watch(line: bytes) -> None:
    with pytest.raises(StatusError):
        async for _ in over(Scripted(lines=(line,))).watch(THINGS, resource_version="7"):
            pass


async def test_whole_objects_are_not_written() -> None:
    with pytest.raises(MethodNotAllowed):
        await over(Scripted()).create({"metadata": {"name": "x"}}, resource=THINGS)
