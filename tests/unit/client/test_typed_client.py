from __future__ import annotations

import msgspec
import pytest

from api.models import coordination_v1, core_v1, meta_v1
from api.resources import Resource, lookup
from client.client import Client, PatchType, recorded_writes
from client.kinds import View
from machinery.errors import Conflict, ServiceUnavailable
from machinery.meta import ObjectKey
from proto.api.v1 import resource_pb2 as pb
from tests.unit.client.scripted import AWAY, ScriptedTransport, added, bookmark, page, pod

_PODS = lookup("", "v1", "pods")
assert _PODS is not None
PODS: Resource = _PODS


class Slim(msgspec.Struct):
    metadata: dict[str, object]


@pytest.fixture
def transport() -> ScriptedTransport:
    return ScriptedTransport()


async def test_the_kind_decides_what_comes_back(transport: ScriptedTransport) -> None:
    client = Client(transport)
    transport.script("get", pod("a", 3), pod("a", 3), pod("a", 3))
    typed = await client.get(core_v1.Pod, "a", "default")
    assert isinstance(typed, core_v1.Pod)
    untyped = await client.get(PODS, "a", "default")
    assert untyped["metadata"]["name"] == "a"
    slim = await client.get(View(PODS, Slim), "a", "default")
    assert isinstance(slim, Slim)
    refs = [request.ref for request in transport.sent(pb.GetRequest)]
    assert all(ref == pb.ResourceRef(version="v1", resource="pods", namespace="default", name="a") for ref in refs)


async def test_create_fills_in_kind_and_takes_the_namespace_of_the_object(transport: ScriptedTransport) -> None:
    client = Client(transport, field_manager="tester")
    transport.script("create", pod("a", 3))
    await client.create(core_v1.Pod(metadata=meta_v1.ObjectMeta(name="a", namespace="shop")))
    (request,) = transport.sent(pb.CreateRequest)
    assert request.ref.namespace == "shop"
    assert request.options.field_manager == "tester"
    body = msgspec.json.decode(request.json)
    assert (body["apiVersion"], body["kind"]) == ("v1", "Pod")


async def test_a_binding_goes_to_its_pod(transport: ScriptedTransport) -> None:
    client = Client(transport)
    transport.script("create", pb.Object(json=b'{"kind":"Status","status":"Success"}'))
    binding = core_v1.Binding(target=core_v1.ObjectReference(kind="Node", name="n1"))
    assert await client.create_subresource(core_v1.Pod, "a", "default", "binding", binding) is binding
    transport.script("create", pb.Object(json=b'{"target":{}}'))
    await client.create(binding, namespace="default", name="a", subresource="binding")
    wanted = pb.ResourceRef(version="v1", resource="pods", namespace="default", name="a", subresource="binding")
    assert [request.ref for request in transport.sent(pb.CreateRequest)] == [wanted, wanted]


async def test_cluster_scoped_kinds_have_no_namespace(transport: ScriptedTransport) -> None:
    transport.script("patch", pod("n1", 3, namespace=""))
    await Client(transport).patch(core_v1.Node, "n1", {"spec": {}}, "ignored", type=PatchType.STRATEGIC)
    (request,) = transport.sent(pb.PatchRequest)
    assert request.ref.namespace == ""
    assert request.patch_type == "application/strategic-merge-patch+json"


async def test_a_patch_can_be_conditional(transport: ScriptedTransport) -> None:
    transport.script("patch", Conflict("stale"))
    with pytest.raises(Conflict):
        await Client(transport).patch(core_v1.Pod, "a", {"metadata": {"labels": {}}}, "d", resource_version="7")
    (request,) = transport.sent(pb.PatchRequest)
    assert msgspec.json.decode(request.patch) == {"metadata": {"labels": {}, "resourceVersion": "7"}}


@pytest.mark.parametrize("grace", [pytest.param(None, id="unset"), pytest.param(0, id="zero")])
async def test_delete_options(transport: ScriptedTransport, grace: int | None) -> None:
    transport.script("delete", pb.DeleteResponse(deleted=True))
    await Client(transport).delete(
        core_v1.Pod, "a", "d", uid="u", grace_period_seconds=grace, propagation_policy="Background"
    )
    (request,) = transport.sent(pb.DeleteRequest)
    assert request.options.HasField("grace_period_seconds") is (grace is not None)
    assert (request.options.uid, request.options.propagation_policy) == ("u", "Background")


async def test_writes_are_recorded(transport: ScriptedTransport) -> None:
    client = Client(transport)
    transport.script("patch", pod("a", 20))
    transport.script("delete", pb.DeleteResponse(deleted=True, object=pod("b", 21)))
    with recorded_writes() as writes:
        await client.patch(core_v1.Pod, "a", {}, "default")
        await client.delete(core_v1.Pod, "b", "default")
    transport.script("patch", pod("a", 22))
    await client.patch(core_v1.Pod, "a", {}, "default")
    assert [(write.key, write.revision, write.gone) for write in writes] == [
        (ObjectKey("default", "a"), 20, False),
        (ObjectKey("default", "b"), 21, True),
    ]


async def test_watch_yields_typed_batches(transport: ScriptedTransport) -> None:
    transport.script("watch", [[added(pod("a", 3)), bookmark(9)], AWAY])
    batches = []
    with pytest.raises(ServiceUnavailable):
        async for batch in Client(transport).watch(core_v1.Pod, resource_version="1"):
            batches.append([(each.type, each.object is not None, each.resource_version) for each in batch])
    assert batches == [[("ADDED", True, "3"), ("BOOKMARK", False, "9")]]


async def test_list_pages(transport: ScriptedTransport) -> None:
    transport.script("list", page(5, pod("a", 3), token="next"))
    result = await Client(transport).list(core_v1.Pod, "default", limit=1, label_selector="a=b")
    assert (len(result.items), result.resource_version, result.continue_) == (1, "5", "next")


async def test_lease_times_keep_their_fraction(transport: ScriptedTransport) -> None:
    from datetime import UTC, datetime

    transport.script("create", pb.Object(json=b'{"metadata":{}}'))
    moment = datetime(2026, 1, 1, 0, 0, 0, 120000, tzinfo=UTC)
    lease = coordination_v1.Lease(
        metadata=meta_v1.ObjectMeta(name="n"), spec=coordination_v1.LeaseSpec(renewTime=moment)
    )
    await Client(transport).create(lease, namespace="kube-node-lease")
    (request,) = transport.sent(pb.CreateRequest)
    assert b'"renewTime":"2026-01-01T00:00:00.120000Z"' in request.json
