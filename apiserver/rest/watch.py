"""A watch as a chunked HTTP answer.

Owns: the life of one watch stream: writing batches as they come (all events of one turn of the loop in one write),
ending it at its timeout, when the client leaves, when the server stops, or with an ERROR event. A client that does not
read blocks only its own stream: the buffer behind it is bounded and ends the watch when it overflows. Called by the
REST handlers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import uniform

from apiserver.metrics import Histogram
from apiserver.rest.request import Request
from apiserver.rest.responses import Chunk, encode_json
from apiserver.storage.entry import Event
from apiserver.storage.watcher import Watcher
from machinery.clock import Clock
from machinery.errors import StatusError

MIN_SECONDS = 1800.0
REMIND_SECONDS = 2.0
"""So long before its time is over a watch gets a last bookmark."""
SIZES = tuple(1024.0 * 2**power for power in range(8))
Key = tuple[str, str, str]
Render = Callable[[Sequence[Event]], bytes]


def render_lines(batch: Sequence[Event]) -> bytes:
    """Whole objects: lines are made once for all watchers."""
    if len(batch) == 1:
        return batch[0].line
    return b"".join([event.line for event in batch])


def error_line(error: StatusError) -> bytes:
    """The event that ends a watch with a reason."""
    return b'{"type":"ERROR","object":%b}\n' % encode_json(error.to_status())


def duration(options_seconds: int | None, least: float = MIN_SECONDS) -> float:
    """How long a watch lasts in cluster seconds; spread where the client did not say, so that not all end at once."""
    if options_seconds is not None and options_seconds > 0:
        return float(options_seconds)
    return uniform(least, 2 * least)


class WatchStreams:
    """All watches of a door, so that a stop can end them."""

    def __init__(self, clock: Clock, least_seconds: float = MIN_SECONDS) -> None:
        """`least_seconds`: how long a watch lasts at least, and half of the most, when the client names no time."""
        self.least_seconds = least_seconds
        self._clock = clock
        self._open: set[Watcher] = set()
        self._stopping = False
        self._sizes = Histogram(SIZES)
        self._batch: list[Event] = []
        self._framed = b""
        self._batch_of: Key = ("", "", "")
        self._written = 0
        """How many watches have got the batch."""

    def __len__(self) -> int:
        return len(self._open)

    def sizes(self) -> Histogram:
        """The sizes of all events that were sent, by (group, version, resource)."""
        self._count_batch()
        return self._sizes

    def _count_batch(self) -> None:
        """What many watches have got is counted once, with their number."""
        if self._written:
            for event in self._batch:
                self._sizes.observe(self._batch_of, len(event.raw), self._written)
            self._written = 0

    async def stop(self) -> None:
        """End every watch cleanly; clients reconnect elsewhere."""
        self._stopping = True
        for watcher in list(self._open):
            await watcher.aclose()

    async def serve(
        self,
        request: Request,
        watcher: Watcher,
        seconds: float,
        render: Render = render_lines,
        content_type: bytes = b"application/json",
        *,
        key: Key = ("", "", ""),
    ) -> None:
        """Stream until something ends it. Errors after the head become ERROR events."""
        loop = asyncio.get_running_loop()
        self._open.add(watcher)
        gone = loop.create_task(self._until_gone(request, watcher))
        timers = [self._clock.call_later(seconds, lambda: closing.append(loop.create_task(watcher.aclose())))]
        closing: list[asyncio.Task[None]] = []
        if seconds > REMIND_SECONDS:
            timers.append(self._clock.call_later(seconds - REMIND_SECONDS, watcher.remind))
        send = request.send
        try:
            if self._stopping:
                await watcher.aclose()
            headers = [
                (b"audit-id", request.audit),
                (b"cache-control", b"no-cache, private"),
                (b"content-type", content_type),
                *request.flow,
            ]
            request.code = 200
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if render is render_lines and request.chunk is not None:
                watcher.sink = self._direct(request.chunk, key)
            try:
                async for batch in watcher:
                    await send({"type": "http.response.body", "body": render(batch), "more_body": True})
                    for event in batch:
                        self._sizes.observe(key, len(event.raw))
            except StatusError as error:
                await send({"type": "http.response.body", "body": error_line(error), "more_body": True})
            if not gone.done():
                await send({"type": "http.response.body", "body": b""})
        finally:
            for timer in timers:
                timer.cancel()
            gone.cancel()
            self._open.discard(watcher)
            await watcher.aclose()
            await asyncio.gather(gone, *closing, return_exceptions=True)

    def _direct(self, write: Chunk, key: Key) -> Callable[[list[Event]], bool]:
        """A sink that spares the stream's task; watchers that wake together with the same events share their bytes."""

        def sink(batch: list[Event]) -> bool:
            if batch != self._batch:
                self._count_batch()
                self._batch_of = key
                lines = render_lines(batch)
                self._batch, self._framed = batch.copy(), b"%x\r\n%b\r\n" % (len(lines), lines)
            sent = write(self._framed)
            self._written += sent
            return sent

        return sink

    @staticmethod
    async def _until_gone(request: Request, watcher: Watcher) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            continue
        await watcher.aclose()
