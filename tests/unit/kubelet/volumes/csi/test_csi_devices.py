"""Volumes staged once for many pods, and given back when the last is gone, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from kubelet.plugins.csi_client import CsiClient, CsiError
from kubelet.plugins.drivers import CsiDrivers, Driver
from kubelet.volumes.csi.attachment import Attachments
from kubelet.volumes.csi.devices import Devices
from kubelet.volumes.csi.folders import Folders
from kubelet.volumes.csi.messages import CsiVolume
from machinery.clock import VirtualClock

VOLUME = CsiVolume("d.example", "h-1", "pv-1", modes=("ReadWriteOnce",))


class Client:
    """A driver's answers, which may take their time."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failures = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def stage(self, request: Any) -> None:
        self.calls.append("stage")

    async def unstage(self, handle: str, path: str) -> None:
        self.calls.append("unstage")
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise CsiError("Internal", "busy")


class Scene:
    def __init__(self, root: Path, tasks: asyncio.TaskGroup) -> None:
        self.client, self.clock, self.reports = Client(), VirtualClock(), 0
        self.driver = Driver("d.example", "x", cast(CsiClient, self.client), frozenset({"STAGE_UNSTAGE_VOLUME"}))
        self.attachments = Attachments(cast(Any, None), self.clock, "n1", lambda: None)
        drivers = CsiDrivers(cast(Any, None))
        drivers._drivers["d.example"] = self.driver
        self.devices = Devices(Folders(root), drivers, self.attachments, self.clock, "n1", tasks)

    async def use(self, uid: str) -> str:
        self.attachments.hold(VOLUME.unique)
        await self.devices.attach(VOLUME, uid, attached=False)
        self.devices._devices[VOLUME.unique].attached = True  # as if its wait were over
        return await self.devices.stage(VOLUME, self.driver, {}, {}, None)

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@asynccontextmanager
async def scene(root: Path) -> AsyncIterator[Scene]:
    async with asyncio.TaskGroup() as tasks:
        yield Scene(root, tasks)


async def test_one_stage_for_two_pods_and_one_unstage_after_the_last(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        assert await s.use("a") == await s.use("b")
        s.devices.release(VOLUME.unique, "a")
        await s.settle()
        assert s.client.calls == ["stage"]
        s.devices.release(VOLUME.unique, "b")
        await s.settle()
        assert s.client.calls == ["stage", "unstage"]
        assert s.attachments.in_use() == [] and len(s.devices) == 0
        assert not list((tmp_path / "plugins").rglob("vol_data.json"))


async def test_what_cannot_be_given_back_is_in_use_and_tried_ever_later(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.use("a")
        s.client.failures = 3
        s.devices.release(VOLUME.unique, "a")
        for wait, tries in ((0.0, 1), (0.6, 2), (0.3, 2), (0.8, 3), (1.5, 3)):
            await s.clock.advance(wait)
            await s.settle()
            assert s.client.calls.count("unstage") == tries
            assert s.attachments.in_use() == [VOLUME.unique]
        await s.clock.advance(1.0)
        await s.settle()
        assert s.attachments.in_use() == []


async def test_who_comes_while_a_volume_is_given_back_has_it_staged_anew(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.use("a")
        s.client.gate.clear()
        s.devices.release(VOLUME.unique, "a")
        await s.settle()
        using = asyncio.ensure_future(s.use("b"))
        await s.settle()
        assert not using.done(), "one thing at a time"
        s.client.gate.set()
        await using
        assert s.client.calls == ["stage", "unstage", "stage"]
        assert s.attachments.in_use() == [VOLUME.unique]
        s.devices.release_all("b")
        await s.settle()
        assert s.client.calls[-1] == "unstage" and s.attachments.in_use() == []


async def test_a_kubelet_that_comes_later_knows_what_is_here_and_gives_back_what_nobody_uses(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.use("a")
    async with scene(tmp_path) as s:
        s.devices.recall()
        assert s.attachments.in_use() == [VOLUME.unique], "before the first report"
        s.devices.give_back_unused()
        await s.settle()
        assert s.client.calls == ["unstage"] and len(s.devices) == 0
