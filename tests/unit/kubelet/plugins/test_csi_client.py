"""Calls of a driver that leaves: whoever waits for one is told, and is not mistaken for somebody who was cancelled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kubelet.plugins.csi_client import CsiClient, CsiError
from machinery import grpc as transport
from proto.csi.v1 import csi_pb2_grpc


class Slow:
    """A node service that never gets done."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        async def call(request: Any, context: Any) -> None:
            self.asked.set()
            await asyncio.Event().wait()

        return call


async def test_a_call_ends_when_its_driver_leaves(tmp_path: Path) -> None:
    slow: Any = Slow()
    server = transport.server()
    csi_pb2_grpc.add_NodeServicer_to_server(slow, server)
    transport.add_port(server, f"unix:{tmp_path / 'csi.sock'}")
    await server.start()
    try:
        client = CsiClient(str(tmp_path / "csi.sock"))
        waiting = asyncio.ensure_future(client.unpublish("vol-1", "/x"))
        async with asyncio.timeout(10):
            await slow.asked.wait()
        await client.close()
        with pytest.raises(CsiError, match="code = Canceled"):
            await waiting
        with pytest.raises(CsiError, match="code = Unavailable"):
            await client.unpublish("vol-1", "/x")

        client = CsiClient(str(tmp_path / "csi.sock"))
        slow.asked.clear()
        waiting = asyncio.ensure_future(client.unpublish("vol-1", "/x"))
        async with asyncio.timeout(10):
            await slow.asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await client.close()
    finally:
        await server.stop(0)
