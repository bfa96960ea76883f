"""How often drivers are asked what the node bears, on virtual time."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from api.models import storage_v1
from kubelet.plugins.csi_client import CsiError
from kubelet.plugins.drivers import CsiDrivers
from kubelet.plugins.limits import Limits
from machinery.clock import VirtualClock
from machinery.errors import ServiceUnavailable


class Drivers:
    def __init__(self) -> None:
        self.asked: list[float] = []
        self.here = ["d"]
        self.fail = False
        self.clock = VirtualClock()

    def names(self) -> list[str]:
        return self.here

    async def ask_again(self, name: str) -> None:
        self.asked.append(self.clock.monotonic())
        if self.fail:
            raise CsiError("Internal", "no")


class Scene:
    def __init__(self, period: int | None) -> None:
        self.drivers, self.reads, self.away = Drivers(), 0, False
        self.period = period
        self.start = self.drivers.clock.monotonic()
        self.limits = Limits(cast(CsiDrivers, self.drivers), self._read, self.drivers.clock)

    async def _read(self, name: str) -> storage_v1.CSIDriver | None:
        self.reads += 1
        if self.away:
            raise ServiceUnavailable("away")
        spec: dict[str, Any] = {"nodeAllocatableUpdatePeriodSeconds": self.period}
        return msgspec.convert({"spec": spec}, storage_v1.CSIDriver)

    async def minutes(self, number: float) -> list[float]:
        """When the driver was asked, in seconds from the start."""
        for _ in range(round(number * 12)):
            await self.limits.look()
            await self.drivers.clock.advance(5)
        return [each - self.start for each in self.drivers.asked]


@pytest.mark.parametrize(
    ("period", "asked"),
    [
        pytest.param(None, [], id="never"),
        pytest.param(10, [10, 20, 30, 40, 50], id="ten-seconds"),
        pytest.param(40, [40], id="forty-seconds"),
    ],
)
async def test_a_driver_is_asked_as_often_as_it_wishes(period: int | None, asked: list[float]) -> None:
    assert await Scene(period).minutes(1) == asked


async def test_a_long_period_is_kept_though_the_wish_is_read_again() -> None:
    scene = Scene(600)
    assert await scene.minutes(21) == [600, 1200]
    assert scene.reads <= 22, "one read a minute"


async def test_a_wish_that_comes_later_is_heard() -> None:
    scene = Scene(None)
    await scene.minutes(1)
    scene.period = 10
    assert (await scene.minutes(1))[0] <= 60


async def test_failures_are_borne_and_a_driver_that_left_is_not_asked() -> None:
    scene = Scene(10)
    scene.drivers.fail = True
    assert len(await scene.minutes(1)) == 5
    scene.away = True
    await scene.minutes(1)
    scene.away, scene.drivers.here = False, []
    assert len(await scene.minutes(2)) == 5
