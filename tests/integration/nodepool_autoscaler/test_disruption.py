"""Disruption over a real API server and scheduler: what is written, and in which order."""

from __future__ import annotations

import contextlib

import msgspec
import pytest

from api.models import core_v1
from machinery.errors import Conflict
from nodepool_autoscaler import names
from nodepool_autoscaler.objects import CLAIMS, POOLS, NodeClaim
from tests.integration.nodepool_autoscaler.site import running, until
from tests.integration.nodepool_autoscaler.town import Town

SCALE = 60.0


def running_town() -> contextlib.AbstractAsyncContextManager[Town]:
    return running(Town, scale=SCALE)


async def only_claim(town: Town) -> NodeClaim:
    (claim,) = await town.claims()
    return claim


async def taints(town: Town, claim: NodeClaim) -> list[tuple[str, str]]:
    spec = (await town.nodes())[claim.status.nodeName].spec
    return [(each.key, each.effect) for each in (spec.taints if spec is not None else None) or ()]


async def condition(town: Town, claim: NodeClaim, kind: str) -> str:
    """Its reason; "" when it is not True."""
    found = (await town.client.get(CLAIMS, claim.name)).condition(kind)
    return found.reason if found is not None and found.status == "True" else ""


async def test_machines_follow_their_pods_down() -> None:
    async with running_town() as town:
        await town.add_pool()
        await town.run("web", 4, "1800m")
        await town.run("web", 1, "1800m")
        await town.left("m-2x4")
        assert await town.runs("web", 1)
        await town.run("web", 0)
        await town.left()
        assert await town.nodes() == {}


async def shrunk(town: Town) -> NodeClaim:
    """A machine that a cheaper one could replace, were it to become a node."""
    await town.add_pool()
    await town.run("web", 1, "3500m")
    old = await only_claim(town)
    town.join = False
    await town.run("web", 0)
    await town.run("web", 1, "900m")
    return old


async def replacement(town: Town, old: NodeClaim) -> NodeClaim:
    async def found() -> list[NodeClaim]:
        return [each for each in await town.claims() if each.name != old.name and each.is_true(names.LAUNCHED)]

    (new,) = await until(found, "a replacement is launched")
    return new


async def test_the_new_node_is_ready_before_the_old_one_goes() -> None:
    async with running_town() as town:
        old = await shrunk(town)
        new = await replacement(town, old)
        assert await town.told(new.name, "DisruptionLaunching") == "Launching NodeClaim: Underutilized"
        assert await town.told(new.name, "DisruptionWaitingReadiness")
        assert await taints(town, old) == [(names.DISRUPTED, "NoSchedule")]
        assert await condition(town, old, names.DISRUPTION_REASON) == "Underutilized"
        assert (
            await town.runs("web", 1) and (await town.client.get(CLAIMS, old.name)).metadata.deletionTimestamp is None
        )
        told = town.autoscaler.explainer.node("", old.status.nodeName)
        assert told is not None and told.headline.endswith("is being disrupted: Underutilized.")
        town.join = True
        await town.left("m-1x2")
        assert await town.told(old.name, "DisruptionTerminating") == "Disrupting NodeClaim: Underutilized"


async def test_a_lost_replacement_leaves_the_node_as_it_was() -> None:
    async with running_town() as town:
        old = await shrunk(town)
        new = await replacement(town, old)
        await town.client.delete(CLAIMS, new.name)

        async def unmarked() -> bool:
            return await taints(town, old) == [] and not await condition(town, old, names.DISRUPTION_REASON)

        await until(unmarked, "taint and condition are gone")
        assert await town.runs("web", 1)
        town.join = True
        await town.left("m-1x2")  # it is tried again


async def test_marks_that_a_dead_process_left_are_removed() -> None:
    async with running_town() as town:
        await town.add_pool(disruption={"consolidateAfter": "Never"})
        await town.run("web", 1)
        claim = await only_claim(town)

        async def known() -> bool:
            return any(each.claim is not None and each.initialized for each in town.autoscaler.cluster.world().nodes)

        await until(known, "the node is known")
        (state,) = [each for each in town.autoscaler.cluster.world().nodes if each.claim is not None]
        await town.autoscaler.hands.mark(state, "Drifted")
        assert await taints(town, claim) == [(names.DISRUPTED, "NoSchedule")]

        async def unmarked() -> bool:
            return await taints(town, claim) == [] and not await condition(town, claim, names.DISRUPTION_REASON)

        await until(unmarked, "taint and condition are gone")
        assert (await only_claim(town)).name == claim.name


async def test_pods_and_budgets_hold_their_nodes() -> None:
    async with running_town() as town:
        await town.add_pool()
        await town.run("web", 1, "3500m")
        await town.budget("web", 1)
        await town.run("web", 0)
        await town.run("web", 1, "900m")
        message = "Pdb prevents pod evictions (PodDisruptionBudget=[default/web])"

        async def blocked() -> bool:
            found = (await town.client.list(core_v1.Event)).items
            told = [each.involvedObject.kind or "" for each in found if each.message == message]
            return sorted(told) == ["Node", "NodeClaim"]

        await until(blocked, "node and claim tell what holds them")
        assert await town.types() == ["m-4x8"]


async def test_drifted_nodes_are_replaced() -> None:
    async with running_town() as town:
        await town.add_pool()
        await town.run("web", 1)
        old = await only_claim(town)
        patch = {"spec": {"template": {"spec": {"startupTaints": [{"key": "new", "effect": "NoSchedule"}]}}}}
        await town.client.patch(POOLS, "default", patch)

        async def drifted() -> bool:
            return await condition(town, old, names.DRIFTED) == "NodePoolDrifted"

        await until(drifted, "the claim tells that it has drifted")
        new = await replacement(town, old)

        async def joined() -> str:
            found = (await town.client.get(CLAIMS, new.name)).condition("Initialized")
            return found is not None and found.reason == "StartupTaintsExist"  # type: ignore[return-value]

        await until(joined, "the new node waits for its start")
        while True:
            node = (await town.nodes())[(await town.client.get(CLAIMS, new.name)).status.nodeName]
            assert node.spec is not None and node.metadata is not None and node.metadata.name is not None
            kept = msgspec.to_builtins([each for each in node.spec.taints or () if each.key != "new"])
            with contextlib.suppress(Conflict):
                await town.client.patch(
                    core_v1.Node,
                    node.metadata.name,
                    {"spec": {"taints": kept}},
                    resource_version=node.metadata.resourceVersion,
                )
                break
        await town.left("m-1x2")
        assert (await only_claim(town)).name == new.name and await town.runs("web", 1)


@pytest.mark.parametrize("forced", ["expired", "interrupted"])
async def test_expiry_and_interruption_ask_nobody(forced: str) -> None:
    async with running_town() as town:
        disruption = {"budgets": [{"nodes": "0"}], "consolidateAfter": "Never"}
        await town.add_pool(disruption=disruption, template={"expireAfter": "2m"} if forced == "expired" else {})
        await town.run("web", 1)
        old = await only_claim(town)
        if forced == "interrupted":
            notice = {"key": "nanokube.io/spot-interruption", "value": "terminating", "effect": "NoSchedule"}
            await town.client.patch(core_v1.Node, old.status.nodeName, {"spec": {"taints": [notice]}})
            assert await town.told(old.name, "SpotInterrupted") == "Spot interruption warning was triggered"

        async def gone() -> bool:
            return old.name not in {each.name for each in await town.claims()}

        await until(gone, "the old claim is gone")
        await until(lambda: town.runs("web", 1), "the pod runs elsewhere")
