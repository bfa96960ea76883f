"""Two processes of the autoscaler: one works, the other takes over when it is killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from api.models import coordination_v1
from cluster_autoscaler.autoscaler import NAME
from cluster_autoscaler.options import Options
from tests.harness.provider import FakeGroup
from tests.integration.cluster_autoscaler.conftest import running_site
from tests.integration.cluster_autoscaler.site import Site, until

ROOT = Path(__file__).resolve().parents[3]


async def started(there: Site) -> asyncio.subprocess.Process:
    argv = (sys.executable, "-m", "cluster_autoscaler", "--leader-elect", *there.flags)
    return await asyncio.create_subprocess_exec(*argv, cwd=ROOT)


async def holder(there: Site) -> str:
    found = await there.client.get(coordination_v1.Lease, NAME, "kube-system")
    return (found.spec.holderIdentity if found.spec else None) or ""


async def test_the_second_takes_over(tmp_path: Path) -> None:
    async with running_site(tmp_path, [FakeGroup("a", 0, 5)], Options()) as there:
        await there.kill()
        pair = [await started(there), await started(there)]
        try:
            await there.pod("p1", "1500m")

            async def one() -> bool:
                return there.cloud.groups["a"].target == 1

            await until(one)
            leader = int((await holder(there)).rpartition("_")[2])
            (first,) = [each for each in pair if each.pid == leader]
            first.kill()
            await first.wait()
            await there.pod("p2", "1500m", owner="other")

            async def two() -> bool:
                return there.cloud.groups["a"].target == 2

            await until(two)
            assert int((await holder(there)).rpartition("_")[2]) == next(each.pid for each in pair if each is not first)
            assert [asked for verb, _, asked in there.cloud.calls if verb == "increase"] == [1, 1]
        finally:
            for each in pair:
                if each.returncode is None:
                    each.terminate()
            async with asyncio.timeout(15):
                codes = [await each.wait() for each in pair]
        assert sorted(codes) == [-9, 0]
