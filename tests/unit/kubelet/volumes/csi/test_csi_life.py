"""Pods that come and go, drivers that fail, kubelets that are killed in the middle of a call.

Nothing is ever pulled from under a pod, and in the end nothing is left.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.models import core_v1, storage_v1
from api.volumes import Claim, Volume
from kubelet.plugins.csi_client import CsiClient, CsiError
from kubelet.plugins.drivers import CsiDrivers, Driver
from kubelet.volumes.csi.attachment import Attachments
from kubelet.volumes.csi.devices import Devices
from kubelet.volumes.csi.folders import Folders
from kubelet.volumes.csi.messages import persistent
from kubelet.volumes.csi.pod_csi import PodCsi
from kubelet.volumes.payload import VolumeError
from machinery.clock import VirtualClock

PODS, HANDLES = ("a", "b", "c"), ("h-1", "h-2")
STEPS = st.one_of(
    st.tuples(st.just("use"), st.sampled_from(PODS), st.sampled_from(HANDLES)),
    st.tuples(st.just("drop"), st.sampled_from(PODS), st.just("")),
    st.tuples(st.just("fail"), st.sampled_from(["stage", "publish", "unpublish", "unstage"]), st.just("")),
    st.tuples(st.just("kill"), st.sampled_from(["0", "1", "2", "5"]), st.just("")),
    st.tuples(st.just("wait"), st.sampled_from(["1", "2", "4", "300"]), st.just("")),
)


class Node:
    """A driver on a machine that outlives its callers: what it has done stays done."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.staged: set[str] = set()
        self.published: dict[str, str] = {}
        self.failures: list[str] = []
        self.violations: list[str] = []

    async def _turn(self, method: str) -> None:
        await self._clock.sleep(1)
        if method in self.failures:
            self.failures.remove(method)
            raise CsiError("Internal", "not now")

    async def stage(self, request: Any) -> None:
        await self._turn("stage")
        self.staged.add(request.volume_id)
        await self._clock.sleep(1)

    async def publish(self, request: Any) -> None:
        await self._turn("publish")
        if request.volume_id not in self.staged:
            self.violations.append(f"{request.volume_id} published before it was staged")
        self.published[request.target_path] = request.volume_id
        await self._clock.sleep(1)

    async def unpublish(self, handle: str, path: str) -> None:
        await self._turn("unpublish")
        self.published.pop(path, None)
        await self._clock.sleep(1)

    async def unstage(self, handle: str, path: str) -> None:
        await self._turn("unstage")
        if handle in self.published.values():
            self.violations.append(f"{handle} unstaged under a pod")
        self.staged.discard(handle)
        await self._clock.sleep(1)


class Reader:
    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock

    async def csi_driver(self, name: str) -> storage_v1.CSIDriver:
        await self._clock.sleep(0.5)
        return msgspec.convert({"spec": {"attachRequired": True}}, storage_v1.CSIDriver)


class Unlimited:
    """No volume here ever grows, no node is ever full."""

    async def catch_up(self, *_: object) -> None:
        return


def pod(uid: str) -> core_v1.Pod:
    meta = {"name": uid, "namespace": "default", "uid": uid}
    return msgspec.convert({"metadata": meta, "spec": {"containers": []}}, core_v1.Pod)


def volume(handle: str) -> Volume:
    source = {"driver": "d.example", "volumeHandle": handle}
    return msgspec.convert({"metadata": {"name": f"pv-{handle}"}, "spec": {"csi": source}}, Volume)


class Kubelet:
    """One life of the parts under test. What is wanted is kept by the machine's user, not by it."""

    def __init__(self, root: Path, node: Node, clock: VirtualClock, wanted: dict[str, set[str]]) -> None:
        self.wanted, self.clock, self.folders = wanted, clock, Folders(root)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.busy: set[str] = set()
        self.attachments = Attachments(cast(Any, None), clock, "n1", lambda: None)
        self.attachments.wait = self._attached  # type: ignore[method-assign]  # the controller's part is another test's
        drivers = CsiDrivers(cast(Any, None))
        drivers._drivers["d.example"] = Driver(
            "d.example", "x", cast(CsiClient, node), frozenset({"STAGE_UNSTAGE_VOLUME"})
        )
        self.devices = Devices(self.folders, drivers, self.attachments, clock, "n1", cast(Any, self))
        self.csi = PodCsi(
            cast(Any, Reader(clock)),
            clock,
            drivers,
            self.devices,
            self.attachments,
            cast(Any, None),
            self.folders,
            cast(Any, Unlimited()),
            "n1",
        )
        self.devices.recall()
        for uid in sorted({*wanted, *self.folders.pods()}):
            self.begin(uid)
        self.devices.give_back_unused()

    async def _attached(self, driver: str, handle: str, volume: str) -> dict[str, str]:
        return {}

    def create_task(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _keep(self, uid: str) -> None:
        """What a pod's worker does: mount what is wanted, and when nothing is, unmount until that is done."""
        mounted: set[str] = set()
        while True:
            try:
                if not self.wanted.get(uid):
                    await self.csi.tear_down(uid)
                    self.busy.discard(uid)
                    return
                for handle in sorted(self.wanted[uid] - mounted):
                    claim = msgspec.convert({"metadata": {"name": handle}}, Claim)
                    await self.csi.set_up(pod(uid), persistent(volume(handle), read_only=False), claim)
                    mounted.add(handle)
            except VolumeError:
                await self.clock.sleep(1)
            else:
                await self.clock.sleep(1)

    def begin(self, uid: str) -> None:
        self.busy.add(uid)
        self.create_task(self._keep(uid))

    async def kill(self) -> None:
        for task in tuple(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def live(root: Path, steps: list[tuple[str, str, str]]) -> None:
    clock, wanted = VirtualClock(), dict[str, set[str]]()
    node = Node(clock)
    kubelet = Kubelet(root, node, clock, wanted)

    async def pass_time(seconds: float) -> None:
        step = max(1.0, seconds / 70)
        for _ in range(int(seconds / step)):
            await clock.advance(step)

    for kind, what, handle in steps:
        match kind:
            case "use":
                if not wanted.get(what):
                    if what in kubelet.busy or node_holds(node, what):
                        continue  # a uid is used once: whoever comes again finds its former self gone
                    wanted[what] = {handle}
                    kubelet.begin(what)
            case "drop":
                wanted.pop(what, None)
            case "fail":
                node.failures.append(what)
            case "wait":
                await pass_time(float(what))
            case "kill":
                await pass_time(float(what))
                await kubelet.kill()
                kubelet = Kubelet(root, node, clock, wanted)
        assert not node.violations
        assert node.staged <= {name.rpartition("^")[2] for name in kubelet.attachments.in_use()}, "in use, and said so"
    wanted.clear()
    node.failures.clear()
    await pass_time(700)
    await kubelet.kill()
    assert not node.violations
    assert not node.staged and not node.published
    assert kubelet.attachments.in_use() == []
    assert not list(root.rglob("vol_data.json"))


def node_holds(node: Node, uid: str) -> bool:
    return any(f"/pods/{uid}/" in target for target in node.published)


USED = [("use", "a", "h-1"), ("wait", "6", "")]


@given(st.lists(STEPS, max_size=14))
@settings(max_examples=50, deadline=None)
@example([*USED, ("drop", "a", ""), ("wait", "3", ""), ("use", "b", "h-1"), ("wait", "6", "")])
@example([*USED, ("drop", "a", ""), ("wait", "4", ""), ("use", "b", "h-1"), ("wait", "6", "")])
@example([*USED, ("drop", "a", ""), ("wait", "5", ""), ("use", "b", "h-1"), ("wait", "6", "")])
@example([("fail", "stage", ""), ("use", "a", "h-1"), ("wait", "2", ""), ("drop", "a", "")])
@example([*USED, ("kill", "0", ""), ("drop", "a", "")])
def test_whatever_happens_nothing_is_pulled_from_under_a_pod_and_nothing_is_left(
    steps: list[tuple[str, str, str]],
) -> None:
    root = Path(tempfile.mkdtemp(prefix="nk-life-"))
    try:
        asyncio.run(live(root, steps))
    finally:
        shutil.rmtree(root, ignore_errors=True)
