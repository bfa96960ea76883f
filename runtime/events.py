"""Container events to every subscriber of GetContainerEvents.

A subscriber that does not read is cut off rather than waited for: its stream ends and it lists again, as after any
broken stream. Called by the container lifecycle; read by the gRPC door.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from proto.cri.v1 import cri_pb2 as cri

QUEUE = 4096


class Events:
    """Fan-out of events within one loop."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[cri.ContainerEventResponse | None]] = set()

    @property
    def wanted(self) -> bool:
        """Whether anybody listens (building an event costs)."""
        return bool(self._queues)

    def publish(self, event: cri.ContainerEventResponse) -> None:
        """Hand an event to every subscriber; never blocks."""
        for queue in list(self._queues):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._queues.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)

    def close(self) -> None:
        """End all streams."""
        for queue in list(self._queues):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
        self._queues.clear()

    async def subscribe(self) -> AsyncIterator[cri.ContainerEventResponse]:
        """Events from now on."""
        queue: asyncio.Queue[cri.ContainerEventResponse | None] = asyncio.Queue(QUEUE)
        self._queues.add(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.discard(queue)
