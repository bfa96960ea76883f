"""What goes wrong with one object stays with it."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from api.models import core_v1, meta_v1
from controller_manager.environment import Options
from controller_manager.namespace import NamespaceController
from controller_manager.node_lifecycle.controller import UPDATE_WORKERS, NodeLifecycleController
from controller_manager.node_lifecycle.health import Verdict
from machinery.clock import VirtualClock
from machinery.errors import InternalError, ServiceUnavailable, StatusError
from machinery.meta import ObjectKey


def environment(objects: list[Any]) -> Any:
    env = Mock(clock=VirtualClock(), options=Options(), client=AsyncMock(), aggregated=None)
    informer = Mock(disconnects=0)
    informer.lister.list.return_value = objects
    informer.lister.by_index.return_value = []
    informer.lister.get.side_effect = lambda key: next((o for o in objects if o.metadata.name == key.name), None)
    env.informers.informer.return_value = informer
    return env


@pytest.mark.parametrize(
    ("error", "marked"),
    [
        pytest.param(InternalError("broken"), 20, id="one node's trouble"),
        pytest.param(ServiceUnavailable("away"), UPDATE_WORKERS, id="everybody's trouble ends the pass"),
    ],
)
async def test_a_node_that_cannot_be_marked_does_not_hide_the_others(error: StatusError, marked: int) -> None:
    nodes = [core_v1.Node(metadata=meta_v1.ObjectMeta(name=name)) for name in map(str, range(20))]
    env = environment(nodes)
    lifecycle = NodeLifecycleController(env)
    lifecycle._health = Mock(judge=lambda *_: Verdict("Unknown", "Unknown", [{"type": "Ready"}]))
    env.client.patch.side_effect = error
    try:
        await lifecycle.monitor()
    except ServiceUnavailable as raised:
        assert raised is error
    assert len({call.args[1] for call in env.client.patch.await_args_list}) == marked


async def test_while_pods_cannot_be_listed_a_namespace_keeps_what_they_need() -> None:
    doomed = core_v1.Namespace(
        metadata=meta_v1.ObjectMeta(name="x", deletionTimestamp=VirtualClock().now()),
        spec=core_v1.NamespaceSpec(finalizers=["kubernetes"]),
        status=core_v1.NamespaceStatus(),
    )
    env = environment([doomed])
    controller = NamespaceController(env)
    env.client.list.side_effect = InternalError("broken")
    result = await controller.reconcile(ObjectKey("", "x"))
    assert result.requeue_after
    assert env.client.list.await_count == 1
    assert "broken" in str(env.client.patch.await_args)
