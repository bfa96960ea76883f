"""Lists and watches as clients meet them: versions, pages, forms, selections, ends.

The table of resourceVersion and resourceVersionMatch is that of Kubernetes' documentation, "API concepts".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from apiserver.rest import watch as rest_watch
from apiserver.storage import watcher as storage_watcher
from machinery.clock import RealClock
from tests.harness.apiserver import RestClient, RunningApiServer, eventually, running_apiserver

MAPS = "/api/v1/namespaces/default/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIALS = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
SECONDS = 10.0


def config_map(name: str, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels or {}}, "data": data}


async def write(rest: RestClient, name: str, labels: dict[str, str] | None = None, **data: str) -> str:
    """Create or replace; the object's resourceVersion."""
    body = config_map(name, labels, **data)
    made = await rest.post(MAPS, body)
    if made.status == 409:
        made = await rest.request("PUT", f"{MAPS}/{name}", body)
    assert made.status in (200, 201), made.json
    return str(made.json["metadata"]["resourceVersion"])


async def take(events: AsyncIterator[Any], count: int) -> list[tuple[str, str]]:
    """(type, name) of so many events."""
    async with asyncio.timeout(SECONDS):
        found = [await anext(events) for _ in range(count)]
    return [(event["type"], event["object"]["metadata"].get("name", "")) for event in found]


async def compacted(apiserver: RunningApiServer) -> None:
    store = apiserver.server.store
    await store.compact(await store.current_revision())


# -- versions of lists ------------------------------------------------------------------------------------------------


@pytest.fixture
async def history(apiserver: RunningApiServer) -> tuple[RestClient, dict[str, str]]:
    """Two objects, then a third, then a fourth; the versions in between by name."""
    rest = apiserver.rest()
    await write(rest, "a")
    versions = {"two": await write(rest, "b"), "three": await write(rest, "c")}
    versions["four"] = await write(rest, "d")
    return rest, versions


@pytest.mark.parametrize(
    ("query", "names"),
    [
        pytest.param("", "abcd", id="unset: most recent"),
        pytest.param("resourceVersion=0", "abcd", id="0: any"),
        pytest.param("resourceVersion={two}", "abcd", id="number: not older than"),
        pytest.param("resourceVersion={two}&resourceVersionMatch=NotOlderThan", "abcd", id="not older than"),
        pytest.param("resourceVersion=0&resourceVersionMatch=NotOlderThan", "abcd", id="not older than 0: any"),
        pytest.param("resourceVersion={two}&resourceVersionMatch=Exact", "ab", id="exact"),
        pytest.param("resourceVersion={three}&resourceVersionMatch=Exact&limit=2", "ab", id="a page, exact"),
        pytest.param("limit=3", "abc", id="a page, unset: most recent"),
        pytest.param("resourceVersion=0&limit=3", "abcd", id="a page, 0: whole from the cache"),
        pytest.param("resourceVersion={two}&limit=3", "ab", id="a page, number: exact"),
        pytest.param("resourceVersion={two}&resourceVersionMatch=NotOlderThan&limit=3", "abc", id="a page, not older"),
    ],
)
async def test_versions_of_lists(history: tuple[RestClient, dict[str, str]], query: str, names: str) -> None:
    rest, versions = history
    answer = (await rest.get(f"{MAPS}?{query.format(**versions)}")).json
    assert "".join(item["metadata"]["name"] for item in answer["items"]) == names
    if "Exact" in query or query.endswith("{two}&limit=3"):
        assert answer["metadata"]["resourceVersion"] in (versions["two"], versions["three"])
    else:
        assert int(answer["metadata"]["resourceVersion"]) >= int(versions["four"])


@pytest.mark.parametrize(
    ("query", "code", "text"),
    [
        pytest.param(
            "resourceVersionMatch=Exact", 422, "forbidden unless resourceVersion is provided", id="no version"
        ),
        pytest.param("resourceVersion=0&resourceVersionMatch=Exact", 422, 'forbidden for resourceVersion "0"', id="0"),
        pytest.param("resourceVersion=1&resourceVersionMatch=Newest", 422, "Unsupported value", id="unknown match"),
        pytest.param("resourceVersion=x", 400, "invalid resource version", id="no number"),
        pytest.param("continue=!!", 400, "continue key is not valid", id="no token"),
        pytest.param("sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list", id="initial events"),
    ],
)
async def test_lists_that_make_no_sense(apiserver: RunningApiServer, query: str, code: int, text: str) -> None:
    answer = await apiserver.rest().get(f"{MAPS}?{query}")
    assert answer.status == code and text in answer.json["message"]


async def test_a_version_of_the_future_times_out(apiserver: RunningApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apiserver.registry.reading.FUTURE_SECONDS", 0.05)
    for path in (f"{MAPS}?resourceVersion=999999", f"{MAPS}/x?resourceVersion=999999"):
        answer = await apiserver.rest().get(path)
        assert (answer.status, answer.json["reason"]) == (504, "Timeout")
        assert answer.json["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_an_exact_version_that_was_compacted_is_gone(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    old = await write(rest, "a")
    await write(rest, "b")
    await compacted(apiserver)
    answer = await rest.get(f"{MAPS}?resourceVersion={old}&resourceVersionMatch=Exact")
    assert (answer.status, answer.json["reason"]) == (410, "Expired")
    assert answer.json["message"] == "The resourceVersion for the provided list is too old."


# -- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.conformance(
    "[sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls "
    "[Conformance]"
)
async def test_pages_show_one_version_whatever_happens(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    for number in range(17):
        await write(rest, f"m{number:02}")
    found: list[str] = []
    token, version = "", ""
    while True:
        page = (await rest.get(f"{MAPS}?limit=5&continue={token}")).json
        meta = page["metadata"]
        version = version or meta["resourceVersion"]
        assert meta["resourceVersion"] == version
        found += [item["metadata"]["name"] for item in page["items"]]
        assert meta.get("remainingItemCount", 0) == 17 - len(found)
        token = meta.get("continue", "")
        if not token:
            break
        await write(rest, f"m{len(found):02}-later")
        await rest.request("DELETE", f"{MAPS}/m16")
    assert found == [f"m{number:02}" for number in range(17)]
    whole = (await rest.get(f"{MAPS}?limit=500")).json
    assert "continue" not in whole["metadata"] and "remainingItemCount" not in whole["metadata"]


async def test_pages_of_a_selection_tell_no_remainder(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    for number in range(6):
        await write(rest, f"m{number}", {"even": str(number % 2 == 0)})
    page = (await rest.get(f"{MAPS}?limit=2&labelSelector=even%3DTrue")).json
    assert page["metadata"]["continue"] and "remainingItemCount" not in page["metadata"]
    rest_ = (await rest.get(f"{MAPS}?limit=2&labelSelector=even%3DTrue&continue={page['metadata']['continue']}")).json
    names = [item["metadata"]["name"] for item in page["items"] + rest_["items"]]
    assert names == ["m0", "m2", "m4"] and "continue" not in rest_["metadata"]


@pytest.mark.conformance(
    "[sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if "
    "the original version has been compacted away, though the list is inconsistent [Slow] [Conformance]"
)
async def test_a_page_of_a_compacted_version_offers_to_go_on(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    for number in range(6):
        await write(rest, f"m{number}")
    first = (await rest.get(f"{MAPS}?limit=2")).json
    await write(rest, "m3a")
    await compacted(apiserver)
    gone = await rest.get(f"{MAPS}?limit=2&continue={first['metadata']['continue']}")
    assert (gone.status, gone.json["reason"]) == (410, "Expired")
    assert "inconsistent list" in gone.json["message"]
    token = gone.json["metadata"]["continue"]
    assert token and token != first["metadata"]["continue"]
    second = (await rest.get(f"{MAPS}?limit=2&continue={token}")).json
    assert [item["metadata"]["name"] for item in second["items"]] == ["m2", "m3"]
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    last = (await rest.get(f"{MAPS}?continue={second['metadata']['continue']}")).json
    assert [item["metadata"]["name"] for item in last["items"]] == ["m3a", "m4", "m5"]
    assert last["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


# -- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.conformance(
    "[sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does "
    "not implement metadata [Conformance]"
)
async def test_what_is_not_stored_has_no_table(apiserver: RunningApiServer) -> None:
    review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = await apiserver.rest().post(path, review, accept=TABLE)
    assert answer.status == 406


async def test_pages_and_watches_as_tables(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    for name in ("a", "b", "c"):
        await write(rest, name, key="value")
    page = (await rest.get(f"{MAPS}?limit=2", accept=TABLE)).json
    assert (page["kind"], page["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert page["columnDefinitions"][0]["name"] == "Name" and page["columnDefinitions"][0]["format"] == "name"
    assert [row["cells"][0] for row in page["rows"]] == ["a", "b"]
    assert {row["object"]["kind"] for row in page["rows"]} == {"PartialObjectMetadata"}
    assert page["metadata"]["remainingItemCount"] == 1
    following = (await rest.get(f"{MAPS}?continue={page['metadata']['continue']}", accept=TABLE)).json
    assert [row["cells"][0] for row in following["rows"]] == ["c"]
    path = f"{MAPS}?watch=1&resourceVersion={page['metadata']['resourceVersion']}"
    async with rest.watch(path, {"accept": TABLE}) as events, asyncio.timeout(SECONDS):
        await write(rest, "d")
        await write(rest, "e")
        first, second = await anext(events), await anext(events)
    assert first["object"]["kind"] == "Table" and first["object"]["columnDefinitions"]
    assert [row["cells"][0] for row in second["object"]["rows"]] == ["e"] and not second["object"]["columnDefinitions"]


async def test_lists_and_watches_of_metadata_alone(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    version = await write(rest, "a", {"x": "1"}, key="value")
    listed = (await rest.get(MAPS, accept=PARTIALS)).json
    assert listed["kind"] == "PartialObjectMetadataList" and "data" not in listed["items"][0]
    assert listed["items"][0]["metadata"]["labels"] == {"x": "1"}
    async with rest.watch(f"{MAPS}?watch=1&resourceVersion={version}", {"accept": PARTIAL}) as events:
        await write(rest, "a", {"x": "2"})
        async with asyncio.timeout(SECONDS):
            event = await anext(events)
    assert (event["type"], event["object"]["kind"]) == ("MODIFIED", "PartialObjectMetadata")
    assert event["object"]["metadata"]["labels"] == {"x": "2"} and "data" not in event["object"]


# -- watches ----------------------------------------------------------------------------------------------------------


@pytest.mark.conformance(
    "[sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps "
    "[Conformance]"
)
async def test_watches_by_label_see_their_objects(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    async with contextlib.AsyncExitStack() as stack:
        a, b, both = [
            await stack.enter_async_context(rest.watch(f"{MAPS}?watch=1&labelSelector={selector}"))
            for selector in ("w%3DA", "w%3DB", "w%20in%20(A,B)")
        ]
        for name, label in (("a", "A"), ("b", "B")):
            await write(rest, name, {"w": label})
            await write(rest, name, {"w": label}, mutation="1")
            await rest.request("DELETE", f"{MAPS}/{name}")
        kinds = ("ADDED", "MODIFIED", "DELETED")
        assert await take(a, 3) == [(kind, "a") for kind in kinds]
        assert await take(b, 3) == [(kind, "b") for kind in kinds]
        assert await take(both, 6) == [(kind, name) for name in ("a", "b") for kind in kinds]


@pytest.mark.conformance(
    "[sig-api-machinery] Watchers should be able to start watching from a specific resource version [Conformance]"
)
async def test_a_watch_from_a_version_sees_what_came_after(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await write(rest, "a")
    version = await write(rest, "a", mutation="1")
    await write(rest, "a", mutation="2")
    await rest.request("DELETE", f"{MAPS}/a")
    async with rest.watch(f"{MAPS}?watch=1&resourceVersion={version}") as events:
        assert await take(events, 2) == [("MODIFIED", "a"), ("DELETED", "a")]


@pytest.mark.conformance(
    "[sig-api-machinery] Watchers should be able to restart watching from the last resource version observed by the "
    "previous watch [Conformance]"
)
async def test_a_watch_goes_on_where_another_ended(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    async with rest.watch(f"{MAPS}?watch=1&labelSelector=w%3D1") as events:
        await write(rest, "a", {"w": "1"})
        async with asyncio.timeout(SECONDS):
            last = (await anext(events))["object"]["metadata"]["resourceVersion"]
    await write(rest, "a", {"w": "1"}, mutation="2")
    await rest.request("DELETE", f"{MAPS}/a")
    async with rest.watch(f"{MAPS}?watch=1&labelSelector=w%3D1&resourceVersion={last}") as events:
        assert await take(events, 2) == [("MODIFIED", "a"), ("DELETED", "a")]


@pytest.mark.conformance(
    "[sig-api-machinery] Watchers should observe an object deletion if it stops meeting the requirements of the "
    "selector [Conformance]"
)
async def test_leaving_a_selection_is_a_deletion_and_coming_back_a_creation(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    async with rest.watch(f"{MAPS}?watch=1&labelSelector=w%3D1") as events:
        await write(rest, "a", {"w": "1"}, step="1")
        left = await write(rest, "a", {"w": "2"}, step="2")
        await write(rest, "a", {"w": "2"}, step="3")
        await write(rest, "a", {"w": "1"}, step="4")
        await rest.request("DELETE", f"{MAPS}/a")
        async with asyncio.timeout(SECONDS):
            found = [await anext(events) for _ in range(4)]
    assert [event["type"] for event in found] == ["ADDED", "DELETED", "ADDED", "DELETED"]
    gone = found[1]["object"]
    assert (gone["metadata"]["labels"], gone["data"]) == ({"w": "1"}, {"step": "1"}), "the last state it was seen in"
    assert gone["metadata"]["resourceVersion"] == left


@pytest.mark.conformance(
    "[sig-api-machinery] Watchers should receive events on concurrent watches in same order [Conformance]"
)
async def test_concurrent_watches_see_one_order(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    version = (await rest.get(MAPS)).json["metadata"]["resourceVersion"]

    async def writer(number: int) -> None:
        for step in range(10):
            await write(rest, f"m{number}", step=str(step))
        await rest.request("DELETE", f"{MAPS}/m{number}")

    async def seen(path: str) -> list[tuple[str, str]]:
        async with rest.watch(path) as events, asyncio.timeout(SECONDS):
            found = [await anext(events) for _ in range(44)]
        return [(event["type"], event["object"]["metadata"]["resourceVersion"]) for event in found]

    paths = [f"{MAPS}?watch=1&resourceVersion={version}"] * 12
    paths += [f"/api/v1/configmaps?watch=1&resourceVersion={version}&fieldSelector=metadata.namespace%3Ddefault"] * 12
    async with asyncio.TaskGroup() as group:
        watches = [group.create_task(seen(path)) for path in paths]
        for number in range(4):
            group.create_task(writer(number))
    orders = [watch.result() for watch in watches]
    assert all(order == orders[0] for order in orders)
    versions = [int(version) for _, version in orders[0]]
    assert versions == sorted(versions) and len(set(versions)) == 44


async def test_a_watch_from_too_long_ago_begins_and_ends_with_the_error(
    apiserver: RunningApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apiserver.storage.cache.RING_EVENTS", 4)
    rest = apiserver.rest()
    version = await write(rest, "a")
    for step in range(8):
        await write(rest, "a", step=str(step))
    async with rest.watch(f"{MAPS}?watch=1&resourceVersion={version}") as events, asyncio.timeout(SECONDS):
        found = [event async for event in events]
    assert [event["type"] for event in found] == ["ERROR"]
    status = found[0]["object"]
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
    assert status["message"].startswith(f"too old resource version: {version} (")


@pytest.mark.parametrize("bookmarks", [True, False])
async def test_initial_events_end_with_a_mark_if_marks_are_wanted(apiserver: RunningApiServer, bookmarks: bool) -> None:
    rest = apiserver.rest()
    for name in ("a", "b"):
        await write(rest, name)
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    async with rest.watch(f"{MAPS}?{query}&allowWatchBookmarks={str(bookmarks).lower()}") as events:
        assert await take(events, 2) == [("ADDED", "a"), ("ADDED", "b")]
        await write(rest, "c")
        async with asyncio.timeout(SECONDS):
            mark = await anext(events)
            if bookmarks:
                assert mark["type"] == "BOOKMARK"
                meta = mark["object"]["metadata"]
                assert meta["annotations"] == {"k8s.io/initial-events-end": "true"} and meta["resourceVersion"]
                assert (mark["object"]["kind"], mark["object"]["apiVersion"]) == ("ConfigMap", "v1")
                mark = await anext(events)
        assert (mark["type"], mark["object"]["metadata"]["name"]) == ("ADDED", "c")


async def test_a_watch_learns_how_far_things_are_before_its_time_is_over(
    apiserver: RunningApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_watch, "REMIND_SECONDS", 0.9)
    rest = apiserver.rest()
    for bookmarks, kinds in (("true", ["BOOKMARK"]), ("false", [])):
        version = (await rest.get(MAPS)).json["metadata"]["resourceVersion"]
        other = await rest.post("/api/v1/namespaces", {"metadata": {"name": f"other-{bookmarks}"}})
        query = f"watch=1&resourceVersion={version}&timeoutSeconds=1&allowWatchBookmarks={bookmarks}"
        async with rest.watch(f"{MAPS}?{query}") as events, asyncio.timeout(SECONDS):
            found = [event async for event in events]
        assert [event["type"] for event in found] == kinds
        for event in found:
            newest = int(event["object"]["metadata"]["resourceVersion"])
            assert newest >= int(other.json["metadata"]["resourceVersion"])


async def test_bookmarks_come_every_minute_to_those_who_want_them(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    async with (
        rest.watch(f"{MAPS}?watch=1&allowWatchBookmarks=true") as marked,
        rest.watch(f"{MAPS}?watch=1") as plain,
    ):
        await eventually(lambda: len(apiserver.server.streams) == 2)
        await write(rest, "a")
        assert await take(marked, 1) == await take(plain, 1) == [("ADDED", "a")]
        apiserver.server.registry.feed.bookmark()
        await write(rest, "b")
        assert [kind for kind, _ in await take(marked, 2)] == ["BOOKMARK", "ADDED"]
        assert [kind for kind, _ in await take(plain, 1)] == ["ADDED"]


async def test_a_watcher_that_does_not_read_is_ended_and_slows_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_watcher, "BUFFER", 20)
    async with running_apiserver() as apiserver:
        rest = apiserver.rest()
        version = (await rest.get(MAPS)).json["metadata"]["resourceVersion"]
        own = len(_watchers(apiserver))  # the server's
        reader, writer = await rest.connect()
        transport = cast(asyncio.Transport, writer.transport)
        writer.write(rest.head("GET", f"{MAPS}?watch=1&resourceVersion={version}", b"", {}))
        await reader.readuntil(b"\r\n\r\n")
        transport.pause_reading()
        async with rest.watch(f"{MAPS}?watch=1&resourceVersion={version}") as events:
            for number in range(200):
                await write(rest, f"m{number}", big="x" * 500_000)
                assert await take(events, 1) == [("ADDED", f"m{number}")]
                if len(_watchers(apiserver)) == own + 1:
                    break
            assert len(_watchers(apiserver)) == own + 1, "the one that does not read was kept"
        held = sum(len(watcher._buffer) for watcher in apiserver.server.streams._open)
        assert held <= 20
        writer.close()


def _watchers(apiserver: RunningApiServer) -> list[Any]:
    return list(apiserver.server.registry.resource("", "v1", "configmaps").cache.watchers)


async def test_events_go_away_by_themselves() -> None:
    async with running_apiserver(clock=RealClock(3600.0)) as apiserver:
        rest = apiserver.rest()
        path = "/api/v1/namespaces/default/events"
        body = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}}
        made = await rest.post(path, {**body, "reason": "Tested", "type": "Normal"})
        assert made.status == 201, made.json
        await write(rest, "stays")
        version = made.json["metadata"]["resourceVersion"]
        async with rest.watch(f"{path}?watch=1&resourceVersion={version}&timeoutSeconds=36000") as events:
            assert await take(events, 1) == [("DELETED", "e")]
        assert (await rest.get(f"{path}/e")).status == 404 and (await rest.get(f"{MAPS}/stays")).status == 200
