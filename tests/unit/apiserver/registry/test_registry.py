"""The registry on the memory store: create, read, change, delete, watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from api.resources import RESOURCES
from apiserver.auth.user import UserInfo
from apiserver.registry.store import (
    DeleteOptions,
    Event,
    ListOptions,
    Registry,
    RequestContext,
    ResourceStore,
    Watcher,
    WatchOptions,
)
from apiserver.storage.memory import MemoryStore
from machinery.clock import RealClock
from machinery.errors import AlreadyExists, BadRequest, Conflict, Expired, Invalid, NotFound, StatusError

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
Obj = dict[str, Any]


def ctx(*, dry_run: bool = False) -> RequestContext:
    return RequestContext(UserInfo("tester"), dry_run=dry_run)


def config_map(name: str = "web", **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str = "web", node: str = "", **meta: Any) -> Obj:
    spec: Obj = {"containers": [{"name": "main", "image": "nginx"}]}
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **meta}, "spec": spec}


def load(raw: bytes) -> Obj:
    obj: Obj = msgspec.json.decode(raw)
    return obj


def version(obj: Obj) -> int:
    return int(obj["metadata"]["resourceVersion"])


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def registry(store: MemoryStore) -> AsyncIterator[Registry]:
    registry = Registry(store, RealClock(), RESOURCES)
    task = asyncio.create_task(registry.run())
    await registry.wait_ready()
    yield registry
    task.cancel()
    await asyncio.wait((task,))


@pytest.fixture
def maps(registry: Registry) -> ResourceStore:
    return registry.resource("", "v1", "configmaps")


@pytest.fixture
def pods(registry: Registry) -> ResourceStore:
    return registry.resource("", "v1", "pods")


async def take(watcher: Watcher, count: int) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(5):
        while len(events) < count:
            events += await watcher.__anext__()
    return events


async def test_create_stamps_what_the_server_decides(maps: ResourceStore) -> None:
    made = load(await maps.create(ctx(), "ns", config_map(a="1")))
    assert made["kind"] == "ConfigMap"
    assert made["metadata"]["namespace"] == "ns"
    assert made["metadata"]["uid"] and made["metadata"]["creationTimestamp"].endswith("Z")
    assert load(await maps.get(ctx(), "ns", "web")) == made


async def test_create_twice_is_told(maps: ResourceStore) -> None:
    await maps.create(ctx(), "ns", config_map())
    with pytest.raises(AlreadyExists, match='configmaps "web" already exists'):
        await maps.create(ctx(), "ns", config_map())


async def test_generated_names_use_the_alphabet(maps: ResourceStore) -> None:
    body = {"metadata": {"generateName": "web-"}}
    names = {load(await maps.create(ctx(), "ns", body_copy(body)))["metadata"]["name"] for _ in range(50)}
    assert len(names) == 50
    assert all(name.startswith("web-") and len(name) == 9 for name in names)
    assert not set("".join(name[4:] for name in names)) & set("aeiou013")


def body_copy(body: Obj) -> Obj:
    return load(msgspec.json.encode(body))


async def test_put_without_version_overwrites_and_stale_one_conflicts(maps: ResourceStore) -> None:
    first = load(await maps.create(ctx(), "ns", config_map(a="1")))
    raw, created = await maps.update(ctx(), "ns", "web", config_map(a="2"))
    second = load(raw)
    assert not created and version(second) > version(first)
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    stale = config_map(a="9")
    stale["metadata"]["resourceVersion"] = str(version(first))
    with pytest.raises(Conflict) as caught:
        await maps.update(ctx(), "ns", "web", stale)
    assert caught.value.message == (
        'Operation cannot be fulfilled on configmaps "web": the object has been modified; please apply your changes '
        "to the latest version and try again"
    )


async def test_noop_put_keeps_the_version(maps: ResourceStore) -> None:
    first = load(await maps.create(ctx(), "ns", config_map(a="1", b="2")))
    raw, _ = await maps.update(ctx(), "ns", "web", config_map(b="2", a="1"))
    assert version(load(raw)) == version(first)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        pytest.param({"name": "other"}, BadRequest, "the name of the object (other) does not match", id="name"),
        pytest.param({"namespace": "x"}, BadRequest, "the namespace of the provided object does not", id="namespace"),
        pytest.param({"uid": "u"}, Conflict, "Precondition failed: UID in precondition: u,", id="uid"),
        pytest.param({"resourceVersion": "abc"}, StatusError, 'strconv.ParseUint: parsing "abc"', id="version"),
    ],
)
async def test_put_of_another_object(maps: ResourceStore, change: Obj, error: type[StatusError], text: str) -> None:
    await maps.create(ctx(), "ns", config_map())
    body = config_map()
    body["metadata"].update(change)
    with pytest.raises(error) as caught:
        await maps.update(ctx(), "ns", "web", body)
    assert text in caught.value.message


async def test_put_of_a_missing_object(maps: ResourceStore) -> None:
    with pytest.raises(NotFound, match='configmaps "web" not found'):
        await maps.update(ctx(), "ns", "web", config_map())


async def test_merge_patch_changes_and_removes(maps: ResourceStore) -> None:
    await maps.create(ctx(), "ns", config_map(a="1", b="2"))
    patched = load(await maps.patch(ctx(), "ns", "web", MERGE, b'{"data":{"a":null,"c":"3"}}'))
    assert patched["data"] == {"b": "2", "c": "3"}


async def test_patch_with_stale_version_conflicts(maps: ResourceStore) -> None:
    await maps.create(ctx(), "ns", config_map(a="1"))
    with pytest.raises(Conflict):
        await maps.patch(ctx(), "ns", "web", MERGE, b'{"metadata":{"resourceVersion":"1"},"data":{"a":"2"}}')


async def test_patch_can_test_the_version(maps: ResourceStore) -> None:
    made = load(await maps.create(ctx(), "ns", config_map(a="1")))
    ops = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": made["metadata"]["resourceVersion"]},
        {"op": "replace", "path": "/data/a", "value": "2"},
    ]
    patched = load(await maps.patch(ctx(), "ns", "web", JSON_PATCH, msgspec.json.encode(ops)))
    assert patched["data"] == {"a": "2"}


async def test_concurrent_patches_all_land(maps: ResourceStore) -> None:
    await maps.create(ctx(), "ns", config_map())
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            patch = msgspec.json.encode({"data": {f"k{number}": "v"}})
            group.create_task(maps.patch(ctx(), "ns", "web", MERGE, patch))
    assert len(load(await maps.get(ctx(), "ns", "web"))["data"]) == 20


async def test_delete_answers_with_a_status(maps: ResourceStore) -> None:
    made = load(await maps.create(ctx(), "ns", config_map()))
    result = await maps.delete(ctx(), "ns", "web", DeleteOptions())
    assert result.deleted and result.success is not None
    assert result.success["details"] == {"name": "web", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    with pytest.raises(NotFound):
        await maps.get(ctx(), "ns", "web")
    with pytest.raises(NotFound):
        await maps.delete(ctx(), "ns", "web", DeleteOptions())


async def test_finalizers_hold_an_object(maps: ResourceStore) -> None:
    body = config_map()
    body["metadata"]["finalizers"] = ["example.com/f"]
    await maps.create(ctx(), "ns", body)
    result = await maps.delete(ctx(), "ns", "web", DeleteOptions())
    marked = load(result.raw)
    assert not result.deleted and result.success is None
    assert marked["metadata"]["deletionTimestamp"] and marked["metadata"]["deletionGracePeriodSeconds"] == 0
    with pytest.raises(AlreadyExists, match='object is being deleted: configmaps "web" already exists'):
        await maps.create(ctx(), "ns", config_map())
    await maps.patch(ctx(), "ns", "web", MERGE, b'{"metadata":{"finalizers":null}}')
    with pytest.raises(NotFound):
        await maps.get(ctx(), "ns", "web")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        pytest.param(DeleteOptions(uid="x"), "the UID in the precondition (x) does not match", id="uid"),
        pytest.param(DeleteOptions(resource_version="1"), "the ResourceVersion in the precondition (1)", id="version"),
    ],
)
async def test_delete_preconditions(maps: ResourceStore, options: DeleteOptions, text: str) -> None:
    await maps.create(ctx(), "ns", config_map())
    with pytest.raises(Conflict) as caught:
        await maps.delete(ctx(), "ns", "web", options)
    assert caught.value.message.startswith('Operation cannot be fulfilled on ConfigMap "web": ' + text)
    assert await maps.get(ctx(), "ns", "web")


async def test_dry_run_writes_nothing(maps: ResourceStore, store: MemoryStore) -> None:
    made = load(await maps.create(ctx(dry_run=True), "ns", config_map()))
    assert "resourceVersion" not in made["metadata"] and made["metadata"]["uid"]
    with pytest.raises(NotFound):
        await maps.get(ctx(), "ns", "web")
    real = load(await maps.create(ctx(), "ns", config_map(a="1")))
    before = store.revision
    raw, _ = await maps.update(ctx(dry_run=True), "ns", "web", config_map(a="2"))
    assert load(raw)["data"] == {"a": "2"} and version(load(raw)) == version(real)
    assert (await maps.delete(ctx(dry_run=True), "ns", "web", DeleteOptions())).deleted
    assert store.revision == before
    with pytest.raises(AlreadyExists):
        await maps.create(ctx(dry_run=True), "ns", config_map())


async def test_list_by_namespace_and_label(maps: ResourceStore) -> None:
    for namespace, name, color in (("a", "x", "red"), ("a", "y", "blue"), ("a-b", "x", "red"), ("b", "x", "red")):
        body = config_map(name)
        body["metadata"]["labels"] = {"color": color}
        await maps.create(ctx(), namespace, body)

    async def keys(namespace: str, **options: str) -> list[tuple[str, str]]:
        page = await maps.list(ctx(), namespace, ListOptions(**options))  # type: ignore[arg-type]
        return [(load(raw)["metadata"]["namespace"], load(raw)["metadata"]["name"]) for raw in page.items]

    assert await keys("a") == [("a", "x"), ("a", "y")]
    assert await keys("") == [("a-b", "x"), ("a", "x"), ("a", "y"), ("b", "x")]
    assert await keys("", label_selector="color=red") == [("a-b", "x"), ("a", "x"), ("b", "x")]
    assert await keys("", field_selector="metadata.name=y") == [("a", "y")]
    assert await keys("", field_selector="metadata.namespace=b") == [("b", "x")]
    with pytest.raises(BadRequest, match=r'"data\.x" is not a known field selector'):
        await keys("", field_selector="data.x=1")


async def test_pages_show_one_state(maps: ResourceStore) -> None:
    for number in range(5):
        await maps.create(ctx(), "ns", config_map(f"c{number}"))
    first = await maps.list(ctx(), "ns", ListOptions(limit=2))
    assert first.remaining == 3
    await maps.create(ctx(), "ns", config_map("c00"))
    await maps.delete(ctx(), "ns", "c3", DeleteOptions())
    names, token = [load(raw)["metadata"]["name"] for raw in first.items], first.continue_
    while token:
        page = await maps.list(ctx(), "ns", ListOptions(limit=2, continue_=token))
        assert page.resource_version == first.resource_version
        names += [load(raw)["metadata"]["name"] for raw in page.items]
        token = page.continue_
    assert names == ["c0", "c1", "c2", "c3", "c4"]


async def test_expired_page_offers_to_go_on(maps: ResourceStore, store: MemoryStore) -> None:
    for number in range(4):
        await maps.create(ctx(), "ns", config_map(f"c{number}"))
    first = await maps.list(ctx(), "ns", ListOptions(limit=2))
    await maps.create(ctx(), "ns", config_map("c9"))
    await maps.sync()
    await store.compact(store.revision)
    with pytest.raises(Expired) as caught:
        await maps.list(ctx(), "ns", ListOptions(limit=2, continue_=first.continue_))
    token = caught.value.to_status()["metadata"]["continue"]
    rest = await maps.list(ctx(), "ns", ListOptions(continue_=token))
    assert [load(raw)["metadata"]["name"] for raw in rest.items] == ["c2", "c3", "c9"]


async def test_watch_from_a_version(maps: ResourceStore) -> None:
    first = load(await maps.create(ctx(), "ns", config_map("zero")))
    await maps.create(ctx(), "ns", config_map())
    await maps.patch(ctx(), "ns", "web", MERGE, b'{"data":{"a":"1"}}')
    await maps.delete(ctx(), "ns", "web", DeleteOptions())
    await maps.sync()
    options = WatchOptions(resource_version=first["metadata"]["resourceVersion"])
    async with maps.watch(ctx(), "ns", options) as watcher:
        events = await take(watcher, 3)
        await maps.create(ctx(), "ns", config_map("live"))
        await maps.create(ctx(), "elsewhere", config_map("far"))
        events += await take(watcher, 1)
    assert [event.type for event in events] == [b"ADDED", b"MODIFIED", b"DELETED", b"ADDED"]
    revisions = [version(load(event.raw)) for event in events]
    assert revisions == sorted(revisions) and revisions == [event.resource_version for event in events]
    assert load(events[3].raw)["metadata"]["name"] == "live"
    assert load(events[0].line) == {"type": "ADDED", "object": load(events[0].raw)}


async def test_watch_sees_objects_enter_and_leave_a_selection(maps: ResourceStore) -> None:
    first = load(await maps.create(ctx(), "ns", config_map("zero")))
    body = config_map("alpha", n="1")
    body["metadata"]["labels"] = {"color": "red"}
    await maps.create(ctx(), "ns", body)
    await maps.patch(ctx(), "ns", "alpha", MERGE, b'{"metadata":{"labels":{"color":"blue"}}}')
    await maps.patch(ctx(), "ns", "alpha", MERGE, b'{"metadata":{"labels":{"color":"red"}}}')
    await maps.delete(ctx(), "ns", "alpha", DeleteOptions())
    await maps.sync()
    options = WatchOptions(resource_version=first["metadata"]["resourceVersion"], label_selector="color=red")
    async with maps.watch(ctx(), "ns", options) as watcher:
        events = await take(watcher, 4)
    assert [event.type for event in events] == [b"ADDED", b"DELETED", b"ADDED", b"DELETED"]
    left = load(events[1].raw)
    assert left["metadata"]["labels"] == {"color": "red"} and version(left) == events[1].resource_version


async def test_initial_events_end_with_a_bookmark(maps: ResourceStore) -> None:
    await maps.create(ctx(), "ns", config_map("b"))
    await maps.create(ctx(), "ns", config_map("a"))
    options = WatchOptions(
        resource_version_match="NotOlderThan", allow_bookmarks=True, send_initial_events=True, resource_version=""
    )
    async with maps.watch(ctx(), "ns", options) as watcher:
        events = await take(watcher, 3)
    assert [event.type for event in events] == [b"ADDED", b"ADDED", b"BOOKMARK"]
    mark = load(events[2].raw)
    assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert mark["metadata"]["resourceVersion"] == str(events[2].resource_version)


async def test_pod_deletion_is_graceful(pods: ResourceStore) -> None:
    await pods.create(ctx(), "ns", pod("bound", "node-1"))
    result = await pods.delete(ctx(), "ns", "bound", DeleteOptions(grace_period_seconds=30))
    assert not result.deleted
    assert load(result.raw)["metadata"]["deletionGracePeriodSeconds"] == 30
    again = await pods.delete(ctx(), "ns", "bound", DeleteOptions(grace_period_seconds=100))
    assert load(again.raw)["metadata"]["deletionGracePeriodSeconds"] == 30
    assert (await pods.delete(ctx(), "ns", "bound", DeleteOptions(grace_period_seconds=0))).deleted


@pytest.mark.parametrize("meta", [{}, {"name": "other"}, {"name": ""}, None])
async def test_a_binding_of_another_name(pods: ResourceStore, meta: Any) -> None:
    await pods.create(ctx(), "ns", pod())
    binding = {"metadata": meta, "target": {"kind": "Node", "name": "alpha"}}
    with pytest.raises(BadRequest, match="name in URL does not match name in Binding object"):
        await pods.create(ctx(), "ns", binding, name="web", subresource="binding")


async def test_a_binding_in_the_older_spelling_names_its_pod(pods: ResourceStore) -> None:
    with pytest.raises(BadRequest, match="Name parameter required"):
        await pods.bind(ctx(), "ns", "", {"metadata": {}, "target": {"kind": "Node", "name": "alpha"}})


async def test_binding(pods: ResourceStore) -> None:
    await pods.create(ctx(), "ns", pod())
    binding = {"metadata": {"name": "web", "annotations": {"x": "y"}}, "target": {"kind": "Node", "name": "alpha"}}
    answer = load(await pods.create(ctx(), "ns", binding, name="web", subresource="binding"))
    assert answer["status"] == "Success"
    bound = load(await pods.get(ctx(), "ns", "web"))
    assert bound["spec"]["nodeName"] == "alpha" and bound["metadata"]["annotations"] == {"x": "y"}
    assert bound["status"]["conditions"][-1]["type"] == "PodScheduled"
    with pytest.raises(Conflict, match='pods/binding "web": pod web is already assigned to node "alpha"'):
        await pods.create(ctx(), "ns", binding, name="web", subresource="binding")


async def test_bindings_are_another_name_for_a_pods_binding(registry: Registry, pods: ResourceStore) -> None:
    await pods.create(ctx(), "ns", pod())
    bindings = registry.resource("", "v1", "bindings")
    await bindings.create(ctx(), "ns", {"metadata": {"name": "web"}, "target": {"name": "alpha"}})
    assert load(await pods.get(ctx(), "ns", "web"))["spec"]["nodeName"] == "alpha"
    with pytest.raises(NotFound, match='pods "ghost" not found'):
        await bindings.create(ctx(), "ns", {"metadata": {"name": "ghost"}, "target": {"name": "alpha"}})


async def test_a_refused_deletion_refuses_the_collection(maps: ResourceStore) -> None:
    for name in ("a", "b"):
        await maps.create(ctx(), "ns", {"metadata": {"name": name}})
    with pytest.raises(Conflict):
        await maps.delete_collection(ctx(), "ns", ListOptions(), DeleteOptions(uid="another"))


async def test_delete_collection_takes_the_selected(maps: ResourceStore) -> None:
    for name, color in (("a", "red"), ("b", "red"), ("c", "blue")):
        body = config_map(name)
        body["metadata"]["labels"] = {"color": color}
        await maps.create(ctx(), "ns", body)
    page = await maps.delete_collection(ctx(), "ns", ListOptions(label_selector="color=red"), DeleteOptions())
    assert [load(raw)["metadata"]["name"] for raw in page.items] == ["a", "b"]
    rest = await maps.list(ctx(), "ns", ListOptions())
    assert [load(raw)["metadata"]["name"] for raw in rest.items] == ["c"]


async def test_unknown_paths(registry: Registry, maps: ResourceStore) -> None:
    with pytest.raises(NotFound, match="the server could not find the requested resource"):
        registry.resource("", "v1", "gizmos")
    await maps.create(ctx(), "ns", config_map())
    with pytest.raises(NotFound, match="the server could not find the requested resource"):
        await maps.get(ctx(), "ns", "web", subresource="status")


async def test_invalid_objects_are_told(maps: ResourceStore) -> None:
    with pytest.raises(Invalid, match=r"metadata\.name: Required value: name or generateName is required"):
        await maps.create(ctx(), "ns", {"metadata": {}})
