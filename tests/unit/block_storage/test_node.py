"""One operation per volume at a time, also when its caller has hung up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from block_storage import disks
from block_storage.node import Node, Settings
from proto.csi.v1 import csi_pb2 as pb


class Aborted(Exception):
    pass


class Context:
    """What a servicer sees of a call."""

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(code.name)


async def test_work_whose_caller_hung_up_keeps_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node, begun, go = Node(Settings("n", "z", 8, tmp_path)), threading.Event(), threading.Event()
    unmounted: list[str] = []

    def slow(target: str) -> None:
        begun.set()
        assert go.wait(20)
        unmounted.append(target)

    monkeypatch.setattr(disks, "unmount", slow)
    request = pb.NodeUnstageVolumeRequest(volume_id="vol-1", staging_target_path="/staging")
    context: Any = Context()
    first = asyncio.ensure_future(node.NodeUnstageVolume(request, context))
    await asyncio.to_thread(begun.wait, 20)
    first.cancel()
    await asyncio.wait((first,))
    try:
        with pytest.raises(Aborted, match="ABORTED"):
            await asyncio.wait_for(node.NodeUnstageVolume(request, context), 20)
        assert unmounted == []
    finally:
        go.set()

    async with asyncio.timeout(20):
        while len(unmounted) < 2:
            with contextlib.suppress(Aborted):  # the first has to end
                await node.NodeUnstageVolume(request, context)
            await asyncio.sleep(0)
