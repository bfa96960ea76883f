"""What is on its way counts, whatever of it the server has been told, and however late caches are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from api.models import meta_v1
from client.client import Client
from client.informer import Informers
from machinery.clock import VirtualClock
from machinery.meta import ObjectKey
from nodepool_autoscaler import names
from nodepool_autoscaler.catalog import Catalog
from nodepool_autoscaler.cluster import UNSEEN_FOR, Cluster
from nodepool_autoscaler.objects import (
    CLASS_KIND,
    ClaimSpec,
    ClassRef,
    NodeClaim,
    NodeClass,
    Requested,
    RequirementSpec,
)
from nodepool_autoscaler.provider import FakeProvider
from tests.unit.nodepool_autoscaler.scene import offerings


class FastClock(VirtualClock):
    """Cluster seconds are short: `advance` and `monotonic` count these."""

    scale = 60.0


async def cluster(clock: VirtualClock) -> Cluster:
    catalog = Catalog(FakeProvider(offerings()), clock)
    await catalog.refresh()
    made = Cluster(Informers(cast(Client, None), clock), catalog, clock)
    made.classes.lister.put(ObjectKey("", "default"), NodeClass(meta_v1.ObjectMeta(name="default")))
    return made


def claim(**labels: str) -> NodeClaim:
    """One that the server knows, and no cloud yet."""
    wanted = RequirementSpec(names.CAPACITY_TYPE, "In", [names.ON_DEMAND])
    types = RequirementSpec(names.INSTANCE_TYPE, "In", ["m-2x4", "m-4x8"])
    made: Any = meta_v1.ObjectMeta(
        name="a",
        uid="a",
        labels={names.NODE_POOL: "default", **labels},
        creationTimestamp=datetime(2026, 1, 1, tzinfo=UTC),
    )
    spec = ClaimSpec(
        nodeClassRef=ClassRef(names.CLOUD_GROUP, CLASS_KIND, "default"),
        requirements=[wanted, types],
        resources=Requested({"cpu": "1500m"}),
    )
    return NodeClaim(made, spec)


LAUNCHED = {names.INSTANCE_TYPE: "m-4x8", names.ZONE: "a", names.CAPACITY_TYPE: names.ON_DEMAND}


@pytest.mark.parametrize(
    ("labels", "room", "counts"),
    [
        pytest.param({}, 2000, 4000, id="may-become-any"),
        pytest.param(LAUNCHED, 4000, 4000, id="launched-but-its-status-is-not-written-yet"),
    ],
)
async def test_a_claim_on_its_way_is_room_and_counts(labels: dict[str, str], room: int, counts: int) -> None:
    """Otherwise its pods would get a second machine, beyond the limits of the pool."""
    seen = await cluster(VirtualClock())
    seen.created(claim(**labels))
    (state,) = seen.world().nodes
    assert state.claim is not None and state.offering is not None
    assert state.claim.allocatable["cpu"] == room
    assert state.claim.capacity["cpu"] == counts


async def test_a_claim_that_no_cache_shows_counts_for_real_seconds() -> None:
    """A watch is no faster because time is."""
    clock = FastClock()
    seen = await cluster(clock)
    seen.created(claim())
    await clock.advance((UNSEEN_FOR - 1) * clock.scale)
    assert [each.name for each in seen.all_claims()] == ["a"]
    await clock.advance(2 * clock.scale)
    assert not seen.all_claims()
