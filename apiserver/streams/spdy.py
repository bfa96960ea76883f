"""The server's side of a SPDY/3.1 connection: streams that the client opens, over any pipe of bytes.

Owns: the state of streams, back-pressure, pings, and the end of it all. Never knows what streams are for. Used by
port-forward (inside a WebSocket or after an upgrade) and by exec and attach of older clients.

Back-pressure: a stream nobody reads holds up the whole connection once its buffer is full, as with the original.
Windows are kept only towards a client that shows that it keeps them, by a SETTINGS or WINDOW_UPDATE frame: the library
of Kubernetes' clients never sends either, and would wait forever for a sender that needed them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from apiserver.rest.bodies import ClientGone
from apiserver.streams.spdy_frames import (
    INTERNAL_ERROR,
    INVALID_STREAM,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Data,
    Decoder,
    Encoder,
    Frame,
    GoAway,
    Headers,
    Ping,
    Reset,
    Settings,
    SpdyError,
    SynReply,
    SynStream,
    WindowUpdate,
)

MAX_STREAMS = 2000
BUFFER = 512 * 1024  # bytes of a stream that wait for its reader
CHUNK = 32 * 1024
INITIAL_WINDOW = 64 * 1024
_WINDOW_SETTING = 7


class Pipe(Protocol):
    """Bytes both ways."""

    async def read(self) -> bytes:
        """Some bytes; b"" at the end."""

    async def write(self, data: bytes) -> None:
        """Raises ClientGone."""

    async def close(self) -> None:
        """End both directions."""


class SpdyStream:
    """One stream that the client opened."""

    def __init__(self, connection: SpdyConnection, number: int, headers: Headers, window: int) -> None:
        self.number = number
        self.headers = headers
        self.window = window  # what may be sent, once windows are kept
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._discarding = False
        self._changed = asyncio.Event()
        self.drained = asyncio.Event()
        self.drained.set()
        self.remote_closed = False
        self.local_closed = False
        self.broken = False

    async def read(self) -> bytes:
        """The next bytes; b"" when the client has closed its side. Raises ClientGone after a reset."""
        while not self._chunks:
            if self.broken:
                raise ClientGone
            if self.remote_closed:
                return b""
            self._changed.clear()
            await self._changed.wait()
        chunk = self._chunks.popleft()
        self._waiting -= len(chunk)
        if self._waiting < BUFFER:
            self.drained.set()
        await self._connection.consumed(self, len(chunk))
        return chunk

    async def write(self, data: bytes) -> None:
        """Send; nothing happens once this side is closed. Raises ClientGone."""
        await self._connection.send_data(self, data)

    async def close(self) -> None:
        """Send the end of this side."""
        if not self.local_closed and not self.broken:
            self.local_closed = True
            await self._connection.send(Data(self.number, b"", True))
            self._connection.forget(self)

    async def reset(self, status: int) -> None:
        """Refuse the stream, or give it up."""
        if not self.broken:
            self.breaks()
            await self._connection.send(Reset(self.number, status))
            self._connection.forget(self)

    def discard(self) -> None:
        """Nobody reads any more: what comes is thrown away."""
        self._discarding = True
        self._chunks.clear()
        self._waiting = 0
        self.drained.set()

    def receives(self, data: bytes, fin: bool) -> None:
        """Called by the connection."""
        if data and not self._discarding and not self.remote_closed:
            self._chunks.append(data)
            self._waiting += len(data)
            if self._waiting >= BUFFER:
                self.drained.clear()
        if fin:
            self.remote_closed = True
        self._changed.set()

    def breaks(self) -> None:
        """Called by the connection: the stream was reset, or its connection is gone."""
        self.broken = self.remote_closed = self.local_closed = True
        self.drained.set()
        self._changed.set()


class SpdyConnection:
    """Serves one client; `on_stream` is told of each new stream and must not wait."""

    def __init__(self, pipe: Pipe, on_stream: Callable[[SpdyStream], None]) -> None:
        self._pipe = pipe
        self._on_stream = on_stream
        self._encoder = Encoder()
        self._sending = asyncio.Lock()
        self._streams: dict[int, SpdyStream] = {}
        self._last = 0
        self._gone = False  # the client opens no more streams
        self._keeps_windows = False
        self._initial_window = INITIAL_WINDOW
        self._window = INITIAL_WINDOW
        self._room = asyncio.Event()

    def __len__(self) -> int:
        return len(self._streams)

    async def run(self) -> None:
        """Read until the client leaves or breaks the protocol; afterwards all streams are broken."""
        decoder = Decoder()
        try:
            while received := await self._pipe.read():
                for frame in decoder.feed(received):
                    await self._take(frame)
        except SpdyError:
            await self.go_away(PROTOCOL_ERROR)
        except ClientGone:
            pass
        finally:
            for stream in self._streams.values():
                stream.breaks()
            self._streams.clear()
            self._room.set()

    async def go_away(self, status: int = 0) -> None:
        """Tell the client that nothing more is served."""
        self._gone = True
        try:
            await self.send(GoAway(self._last, status))
        except ClientGone:
            return

    async def send(self, frame: Frame) -> None:
        """Frames leave in the order in which their headers were compressed. Raises ClientGone."""
        async with self._sending:
            await self._pipe.write(self._encoder.encode(frame))

    async def send_data(self, stream: SpdyStream, data: bytes) -> None:
        while data:
            if stream.broken:
                raise ClientGone
            if stream.local_closed:
                return
            size = min(len(data), CHUNK)
            if self._keeps_windows:
                size = min(size, stream.window, self._window)
                if size <= 0:
                    self._room.clear()
                    await self._room.wait()
                    continue
            stream.window -= size
            self._window -= size
            piece, data = data[:size], data[size:]
            await self.send(Data(stream.number, piece))

    async def consumed(self, stream: SpdyStream, size: int) -> None:
        if self._keeps_windows and size:
            await self.send(WindowUpdate(0, size))
            if not stream.remote_closed:
                await self.send(WindowUpdate(stream.number, size))

    def forget(self, stream: SpdyStream) -> None:
        """Drop a stream that both sides have closed."""
        if stream.local_closed and stream.remote_closed:
            self._streams.pop(stream.number, None)

    async def _take(self, frame: Frame) -> None:
        match frame:
            case Data(number, data, fin):
                await self._take_data(number, data, fin)
            case SynStream():
                await self._open(frame)
            case Ping(number) if number & 1:  # even numbers would be answers to our own
                await self.send(frame)
            case Reset(number, _):
                stream = self._streams.pop(number, None)
                if stream is not None:
                    stream.breaks()
            case GoAway():
                self._gone = True
            case Settings(values):
                self._keep_windows()
                initial = min(values.get(_WINDOW_SETTING, self._initial_window), 0x7FFFFFFF)
                for stream in self._streams.values():
                    stream.window += initial - self._initial_window
                self._initial_window = initial
            case WindowUpdate(number, delta):
                self._keep_windows()
                if number == 0:
                    self._window += delta
                elif number in self._streams:
                    self._streams[number].window += delta
            case _:  # replies and more headers: nothing here opens streams or reads trailers
                return

    def _keep_windows(self) -> None:
        self._keeps_windows = True
        self._room.set()

    async def _take_data(self, number: int, data: bytes, fin: bool) -> None:
        stream = self._streams.get(number)
        if stream is None:
            if number > self._last or not number & 1:
                await self.send(Reset(number, INVALID_STREAM))
            return  # of a stream that is over: on its way when it ended
        stream.receives(data, fin)
        self.forget(stream)
        await stream.drained.wait()

    async def _open(self, frame: SynStream) -> None:
        if not frame.stream & 1 or frame.stream <= self._last:
            raise SpdyError(f"stream {frame.stream} after {self._last}")
        self._last = frame.stream
        if self._gone:
            return
        if len(self._streams) >= MAX_STREAMS:
            await self.send(Reset(frame.stream, REFUSED_STREAM))
            return
        stream = SpdyStream(self, frame.stream, frame.headers, self._initial_window)
        stream.local_closed = frame.unidirectional
        self._streams[frame.stream] = stream
        if not frame.unidirectional:
            await self.send(SynReply(frame.stream, {}))
        if frame.fin:
            stream.receives(b"", True)
        self._on_stream(stream)


__all__ = ["INTERNAL_ERROR", "PROTOCOL_ERROR", "REFUSED_STREAM", "Pipe", "SpdyConnection", "SpdyStream"]
