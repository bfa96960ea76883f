"""The handshake with the attach/detach controller, and how long a volume is waited for."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from api import attachments as names
from api.models import core_v1, meta_v1, storage_v1
from client.client import Client
from kubelet.volumes.csi.attachment import Attachments
from kubelet.volumes.payload import VolumeError, VolumeWait
from machinery.clock import VirtualClock
from machinery.errors import NotFound, ServiceUnavailable

DRIVER, HANDLE, NODE = "d.example", "h-1", "n1"
UNIQUE = names.unique_name(DRIVER, HANDLE)


class Server:
    """What the API server would say."""

    def __init__(self) -> None:
        self.attached = False
        self.status: storage_v1.VolumeAttachmentStatus | None = None
        self.away = False
        self.reads = 0

    async def get(self, kind: type[Any], name: str, namespace: str | None = None) -> Any:
        self.reads += 1
        if self.away:
            raise ServiceUnavailable("away")
        if kind is core_v1.Node:
            listed = [core_v1.AttachedVolume(name=UNIQUE, devicePath="")] if self.attached else None
            return core_v1.Node(
                metadata=meta_v1.ObjectMeta(name=NODE), status=core_v1.NodeStatus(volumesAttached=listed)
            )
        assert name == names.attachment_name(DRIVER, HANDLE, NODE)
        if self.status is None:
            raise NotFound("no such attachment")
        spec = storage_v1.VolumeAttachmentSpec(DRIVER, NODE, storage_v1.VolumeAttachmentSource())
        return storage_v1.VolumeAttachment(spec=spec, status=self.status)


class Scene:
    def __init__(self) -> None:
        self.server, self.clock, self.reports = Server(), VirtualClock(), 0
        self.attachments = Attachments(cast(Client, self.server), self.clock, NODE, self._report)

    def _report(self) -> None:
        self.reports += 1

    def wait(self) -> asyncio.Task[dict[str, str]]:
        return asyncio.ensure_future(self.attachments.wait(DRIVER, HANDLE, "pv"))

    async def later(self, seconds: float) -> None:
        for _ in range(round(seconds * 2)):
            await self.clock.advance(0.5)
            await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real = asyncio.sleep

    async def sleep(seconds: float, result: Any = None) -> Any:
        return await real(0, result)

    monkeypatch.setattr("kubelet.volumes.csi.attachment.asyncio.sleep", sleep)


async def test_attached_is_not_believed_before_it_is_written_that_we_use_it() -> None:
    scene = Scene()
    scene.server.attached = True
    scene.server.status = storage_v1.VolumeAttachmentStatus(True, attachmentMetadata={"path": "/dev/x"})
    scene.attachments.hold(UNIQUE)
    assert (scene.attachments.in_use(), scene.reports) == ([UNIQUE], 1)
    waiting = scene.wait()
    await scene.later(5)
    assert not waiting.done()
    assert scene.server.reads == 0
    scene.attachments.written([UNIQUE])
    await scene.later(1)
    assert await waiting == {"path": "/dev/x"}


async def test_what_was_written_in_a_former_use_does_not_count() -> None:
    scene = Scene()
    scene.server.attached = True
    scene.server.status = storage_v1.VolumeAttachmentStatus(attached=True)
    scene.attachments.hold(UNIQUE)
    scene.attachments.written([UNIQUE])
    scene.attachments.drop(UNIQUE)
    scene.attachments.hold(UNIQUE)
    waiting = scene.wait()
    await scene.later(5)
    assert not waiting.done()
    scene.attachments.written([])  # a report from before
    await scene.later(5)
    assert not waiting.done()
    scene.attachments.written([UNIQUE])
    await scene.later(1)
    assert await waiting == {}


async def test_a_volume_that_does_not_come_is_waited_for_two_minutes_and_a_little() -> None:
    scene = Scene()
    scene.attachments.hold(UNIQUE)
    scene.attachments.written([UNIQUE])
    waiting = scene.wait()
    await scene.later(122)
    assert not waiting.done()
    assert scene.server.reads < 40, "looks are spaced"
    await scene.later(2)
    with pytest.raises(VolumeWait, match="Volume not attached according to node status"):
        await waiting


async def test_an_api_server_that_is_away_is_waited_for() -> None:
    scene = Scene()
    scene.server.away = True
    scene.attachments.hold(UNIQUE)
    scene.attachments.written([UNIQUE])
    waiting = scene.wait()
    await scene.later(20)
    assert not waiting.done()
    scene.server.away, scene.server.attached = False, True
    scene.server.status = storage_v1.VolumeAttachmentStatus(attached=True)
    scene.attachments.look()
    await scene.later(11)
    assert await waiting == {}


async def test_an_attachment_that_failed_or_is_not_there_is_told() -> None:
    scene = Scene()
    scene.server.attached = True
    scene.attachments.hold(UNIQUE)
    scene.attachments.written([UNIQUE])
    with pytest.raises(VolumeError, match=r"has GET error for volume attachment csi-.*: no such attachment"):
        await scene.attachments.wait(DRIVER, HANDLE, "pv")
    scene.server.status = storage_v1.VolumeAttachmentStatus(
        attached=False, attachError=storage_v1.VolumeError(message="no room")
    )
    with pytest.raises(VolumeError, match=r'MountVolume.WaitForAttach failed for volume "pv" : no room'):
        await scene.attachments.wait(DRIVER, HANDLE, "pv")
