"""Placeholder."""

from __future__ import annotations

from proto.cri.v1 import cri_pb2 as cri
from runtime.engine import Engine


class StreamServer:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def offer(self, request: cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest) -> str:
        return ""

    async def close(self) -> None: ...
