"""What the autoscaler counts on from any provider behind the externalgrpc contract: our cloud and the scripted one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api.models import core_v1, meta_v1
from cloud.app import serving
from cloud.core import Core
from cloud.model import Group, State, standard_types
from cloud.provider import CloudProvider
from cloud.requests import Requests
from cluster_autoscaler import node_facts as facts
from cluster_autoscaler.options import GroupOptions
from cluster_autoscaler.provider import GrpcProvider, NodeGroup, NodeRef, ProviderError
from tests.harness.provider import FakeCloud, FakeGroup

GROUP = "pool"


@contextlib.asynccontextmanager
async def scripted(address: str) -> AsyncIterator[None]:
    async with FakeCloud([FakeGroup(GROUP, 1, 4)]).serving(address):
        yield


@contextlib.asynccontextmanager
async def real(address: str) -> AsyncIterator[None]:
    """The cloud's own service; a tick after each change stands for its engine."""
    types = standard_types()
    group = Group(name=GROUP, type=next(iter(types)), min=1, max=4, desired=0, prefix=GROUP, hollow=True)
    core = Core(State(cluster="test", since=0.0, groups={GROUP: group}, types=types))

    def changed() -> None:
        for effect in core.tick(0.0, {}):
            core.done(effect, 0.0)

    async with serving(address, CloudProvider(Requests(core), changed)):
        yield


@pytest.fixture(params=[scripted, real])
async def provider(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[GrpcProvider]:
    address = f"unix:{tmp_path / 'cloud'}"
    async with request.param(address):
        made = GrpcProvider(address)
        yield made
        await made.close()


async def test_groups_have_bounds_and_a_size(provider: GrpcProvider) -> None:
    await provider.refresh()
    assert await provider.node_groups() == [NodeGroup(GROUP, 1, 4)]
    assert await provider.target_size(GROUP) == 0
    assert await provider.nodes(GROUP) == []


async def test_a_raise_brings_machines(provider: GrpcProvider) -> None:
    await provider.increase_size(GROUP, 2)
    assert await provider.target_size(GROUP) == 2
    machines = await provider.nodes(GROUP)
    assert len({each.id for each in machines}) == 2
    assert all("://" in each.id and each.state in ("running", "creating") for each in machines)


@pytest.mark.parametrize("delta", [0, -1, 5])
async def test_impossible_raises_are_refused(provider: GrpcProvider, delta: int) -> None:
    with pytest.raises(ProviderError):
        await provider.increase_size(GROUP, delta)
    assert await provider.target_size(GROUP) == 0


async def test_nodes_are_known_by_their_provider_id(provider: GrpcProvider) -> None:
    await provider.increase_size(GROUP, 1)
    (machine,) = await provider.nodes(GROUP)
    name = machine.id.rpartition("/")[2]
    assert await provider.group_of(NodeRef(machine.id, name)) == GROUP
    assert await provider.group_of(NodeRef("other://x", "x")) == ""


async def test_deleting_takes_the_machine_and_lowers_the_target(provider: GrpcProvider) -> None:
    await provider.increase_size(GROUP, 3)
    machine = (await provider.nodes(GROUP))[0]
    await provider.delete_nodes(GROUP, [NodeRef(machine.id, machine.id.rpartition("/")[2])])
    assert await provider.target_size(GROUP) == 2
    left = [each.id for each in await provider.nodes(GROUP) if each.state != "deleting"]
    assert len(left) == 2 and machine.id not in left


async def test_nothing_is_deleted_below_the_minimum(provider: GrpcProvider) -> None:
    await provider.increase_size(GROUP, 1)
    (machine,) = await provider.nodes(GROUP)
    with pytest.raises(ProviderError):
        await provider.delete_nodes(GROUP, [NodeRef(machine.id, machine.id.rpartition("/")[2])])
    assert await provider.target_size(GROUP) == 1


async def test_a_machine_that_never_joined_is_deleted_by_its_id(provider: GrpcProvider) -> None:
    await provider.increase_size(GROUP, 2)
    machine = (await provider.nodes(GROUP))[1]
    await provider.delete_nodes(GROUP, [NodeRef(machine.id, machine.id)])
    assert await provider.target_size(GROUP) == 1


@pytest.mark.parametrize("delta", [2, 0])
async def test_a_target_is_not_lowered_below_what_exists(provider: GrpcProvider, delta: int) -> None:
    await provider.increase_size(GROUP, 2)
    with contextlib.suppress(ProviderError):
        await provider.decrease_target_size(GROUP, delta)
    machines = [each for each in await provider.nodes(GROUP) if each.state == "running"]
    assert await provider.target_size(GROUP) >= len(machines)


async def test_a_template_is_a_node_with_room(provider: GrpcProvider) -> None:
    template = await provider.template(GROUP)
    assert template is not None and facts.is_ready(template)
    assert facts.allocatable(template)["cpu"] > 0 and facts.allocatable(template)["memory"] > 0
    price = await provider.node_price(template, datetime(2026, 1, 1, tzinfo=UTC), 1.0)
    assert price is not None and price > 0


async def test_pods_may_have_a_price(provider: GrpcProvider) -> None:
    container = core_v1.Container(
        name="c", image="i", resources=core_v1.ResourceRequirements(requests={"cpu": "1", "memory": "1Gi"})
    )
    pod = core_v1.Pod(metadata=meta_v1.ObjectMeta(name="p"), spec=core_v1.PodSpec(containers=[container]))
    price = await provider.pod_price(pod, datetime(2026, 1, 1, tzinfo=UTC), 1.0)
    assert price is None or price > 0


async def test_options_default_to_the_autoscalers(provider: GrpcProvider) -> None:
    defaults = GroupOptions(unneeded_time=77.0)
    assert await provider.options(GROUP, defaults) == defaults


@pytest.mark.parametrize("verb", ["target_size", "nodes", "template"])
async def test_unknown_groups_are_refused(provider: GrpcProvider, verb: str) -> None:
    with pytest.raises(ProviderError) as caught:
        await getattr(provider, verb)("nobody")
    assert caught.value.code == "NOT_FOUND"
