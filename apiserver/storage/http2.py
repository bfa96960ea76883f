"""gRPC calls on one HTTP/2 connection, as a client: frames, flow control, message framing, statuses.

Owns the state of a connection and of its streams. Does no I/O of its own: it is an asyncio protocol over whatever
transport it is given. Never dials, times out or retries (`rpc.Channel` does). What calls write in one turn of the loop
leaves in one write. Response headers are told to be stateless (a dynamic table of size 0), so a block of bytes always
means the same and is decoded once. RFC 9113, RFC 7541 and gRPC's PROTOCOL-HTTP2.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from struct import Struct, pack
from typing import cast
from urllib.parse import unquote

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, HAS_PRIORITY, ACK = 0x1, 0x4, 0x8, 0x20, 0x1
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, REFUSED_STREAM, CANCEL = 0, 1, 3, 7, 8

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED = 0, 1, 2, 3, 4
NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED, OUT_OF_RANGE, UNIMPLEMENTED, UNAVAILABLE = 5, 7, 8, 11, 12, 14
UNAUTHENTICATED = 16

DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384
MOST_WINDOW = (1 << 31) - 1
OUR_WINDOW = 8 << 20
OUR_FRAME = 1 << 20
CREDIT_AFTER = 1 << 20
MOST_MESSAGE = 64 << 20
MOST_HEADERS = 64 << 10
STATUSES_KEPT = 64

_front = Struct(">BHBBI")
_setting = Struct(">HI")


class RpcError(Exception):
    """A call that failed. `sent` tells whether the server may have acted on it."""

    def __init__(self, code: int, details: str, *, sent: bool) -> None:
        super().__init__(f"code {code}: {details}")
        self.code = code
        self.details = details
        self.sent = sent


class _Broken(Exception):
    """The other side broke the protocol."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Stream:
    """One call. `on_end` is called once, with the error or None; `on_message` never after it."""

    __slots__ = ("buffer", "credit", "id", "on_end", "on_message", "opened", "status", "unread", "window")

    def __init__(
        self, on_message: Callable[[bytes], None], on_end: Callable[[RpcError | None], None], window: int
    ) -> None:
        self.id = 0
        self.opened = False
        self.on_message = on_message
        self.on_end = on_end
        self.window = window
        self.buffer = bytearray()
        self.credit = True
        """May the server send as much again as it has sent? A reader that lags says no."""
        self.unread = 0
        self.status: RpcError | None = None


def request_head(path: str, authority: str, scheme: str = "http") -> bytes:
    """The header block of a call, to be used for all calls of a method."""
    block = bytearray(b"\x83\x86" if scheme == "http" else b"\x83\x87")
    for name, value in (
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ):
        block += b"\0" + _text(name) + _text(value)  # a literal that the other side need not remember
    return bytes(block)


def _text(value: bytes) -> bytes:
    """A string of RFC 7541, section 5.2, without Huffman coding."""
    length = len(value)
    if length < 127:
        return bytes((length,)) + value
    out = bytearray((127,))
    length -= 127
    while length >= 128:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    return bytes(out) + value


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    length = len(payload)
    return _front.pack(length >> 16, length & 0xFFFF, kind, flags, stream) + payload


class Connection(asyncio.Protocol):
    """One connection and its calls. `ready` is done when the server has introduced itself, or fails."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.error: RpcError | None = None
        """Why no call can be made any more."""
        self.heard = 0.0
        """Loop time of the last bytes from the server."""
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._queued: deque[tuple[Stream, bytes, bytes, bool]] = deque()
        self._pending: deque[tuple[Stream, memoryview, bool]] = deque()
        self._next = 1
        self._most_streams = MOST_WINDOW
        self._window = DEFAULT_WINDOW
        self._stream_window = DEFAULT_WINDOW
        self._frame_limit = DEFAULT_FRAME
        self._unread = 0
        self._input = b""
        self._headers: tuple[int, int, bytearray] | None = None
        self._out: list[bytes] = []
        self._decoder = hpack.Decoder()
        self._decoder.max_allowed_table_size = 0
        self._decoder.header_table_size = 0
        self._statuses: dict[bytes, tuple[int, str]] = {}

    # -- the transport ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        settings = ((1, 0), (2, 0), (4, OUR_WINDOW), (5, OUR_FRAME), (6, MOST_HEADERS))
        hello = frame(SETTINGS, 0, 0, b"".join(_setting.pack(*each) for each in settings))
        self._write(PREFACE + hello + frame(WINDOW_UPDATE, 0, 0, pack(">I", MOST_WINDOW - DEFAULT_WINDOW)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"connection lost: {exc or 'closed by the other side'}")

    def close(self) -> None:
        """End every call and the connection."""
        self._fail("the connection was closed")

    def _fail(self, why: str) -> None:
        self.error = self.error or RpcError(UNAVAILABLE, why, sent=False)
        if not self.ready.done():
            self.ready.set_exception(self.error)
            self.ready.exception()  # counts as seen: whoever dials may have given up
        streams, self._streams = self._streams, {}
        queued, self._queued = self._queued, deque()
        for stream in (*streams.values(), *(each[0] for each in queued)):
            stream.on_end(RpcError(UNAVAILABLE, why, sent=stream.opened))
        self._pending.clear()
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    # -- calls --------------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        return bool(self._streams)

    def open(
        self,
        head: bytes,
        message: bytes,
        on_message: Callable[[bytes], None],
        on_end: Callable[[RpcError | None], None],
        *,
        last: bool,
    ) -> Stream:
        """Begin a call with its first (or, with `last`, only) message. Raises RpcError when it cannot be sent."""
        if self.error is not None:
            raise RpcError(self.error.code, self.error.details, sent=False)
        stream = Stream(on_message, on_end, self._stream_window)
        if len(self._streams) >= self._most_streams:
            self._queued.append((stream, head, message, last))
        else:
            self._begin(stream, head, message, last)
        return stream

    def _begin(self, stream: Stream, head: bytes, message: bytes, last: bool) -> None:
        stream.id, stream.opened = self._next, True
        stream.window = self._stream_window
        self._next += 2
        self._streams[stream.id] = stream
        self._write(frame(HEADERS, END_HEADERS, stream.id, head))
        self.send(stream, message, last=last)
        if self._next > MOST_WINDOW - 2:
            self.error = RpcError(UNAVAILABLE, "stream numbers are used up", sent=False)

    def send(self, stream: Stream, message: bytes, *, last: bool = False) -> None:
        """One message of a call that has begun and not ended; what no window is left for waits in line."""
        data = b"\0" + len(message).to_bytes(4, "big") + message
        size = len(data)
        if size <= self._frame_limit and size <= self._window and size <= stream.window and not self._pending:
            self._window -= size
            stream.window -= size
            self._write(frame(DATA, END_STREAM if last else 0, stream.id, data))
            return
        self._pending.append((stream, memoryview(data), last))
        self._pump()

    def _pump(self) -> None:
        blocked: deque[tuple[Stream, memoryview, bool]] = deque()
        waits: set[int] = set()
        while self._pending:
            stream, data, last = self._pending.popleft()
            if self._streams.get(stream.id) is not stream:
                continue
            while data and stream.id not in waits:
                size = min(len(data), self._frame_limit, self._window, stream.window)
                if size <= 0:
                    break
                self._window -= size
                stream.window -= size
                end = END_STREAM if last and size == len(data) else 0
                self._write(frame(DATA, end, stream.id, bytes(data[:size])))
                data = data[size:]
            if data:
                waits.add(stream.id)
                blocked.append((stream, data, last))
        self._pending = blocked

    def reset(self, stream: Stream, code: int = CANCEL) -> None:
        """Give a call up; `on_end` is not called."""
        if self._streams.pop(stream.id, None) is not None:
            self._write(frame(RST_STREAM, 0, stream.id, pack(">I", code)))
            self._dequeue()
        elif not stream.opened:
            self._queued = deque(each for each in self._queued if each[0] is not stream)

    def give_credit(self, stream: Stream) -> None:
        """Tell the server that it may send again what it has sent, unless it is too little to be worth a frame."""
        if stream.credit and stream.unread >= CREDIT_AFTER and self._streams.get(stream.id) is stream:
            self._write(frame(WINDOW_UPDATE, 0, stream.id, pack(">I", stream.unread)))
            stream.unread = 0

    def ping(self) -> None:
        self._write(frame(PING, 0, 0, b"\0" * 8))

    def _dequeue(self) -> None:
        while self._queued and len(self._streams) < self._most_streams and self.error is None:
            self._begin(*self._queued.popleft())

    def _end(self, stream: Stream, error: RpcError | None) -> None:
        self._streams.pop(stream.id, None)
        if self._queued:
            self._dequeue()
        stream.on_end(error)

    # -- frames -------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self.heard = self._loop.time()
        data = self._input + data if self._input else data
        at, size = 0, len(data)
        try:
            while size - at >= 9:
                length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
                if length > OUR_FRAME:
                    raise _Broken(PROTOCOL_ERROR, f"a frame of {length} bytes")
                end = at + 9 + length
                if end > size:
                    break
                number = int.from_bytes(data[at + 5 : at + 9], "big") & MOST_WINDOW
                self._frame(data[at + 3], data[at + 4], number, data[at + 9 : end])
                at = end
        except _Broken as broken:
            self._write(frame(GOAWAY, 0, 0, pack(">II", 0, broken.code)))
            self._fail(f"the server broke HTTP/2: {broken}")
            return
        self._input = data[at:] if at else data

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._headers is not None and kind != CONTINUATION:
            raise _Broken(PROTOCOL_ERROR, "a header block was interrupted")
        if not self.ready.done() and kind != SETTINGS:
            raise _Broken(PROTOCOL_ERROR, "no settings came first")
        if kind == DATA:
            self._data(flags, number, payload)
        elif kind == HEADERS:
            block = bytearray(_unpadded(flags, payload))
            if flags & HAS_PRIORITY:
                del block[:5]
            self._block(number, flags, block)
        elif kind == CONTINUATION:
            if self._headers is None or self._headers[0] != number:
                raise _Broken(PROTOCOL_ERROR, "a header block continued that had not begun")
            _, first, block = self._headers
            self._headers = None
            self._block(number, first | flags & END_HEADERS, block + payload)
        elif kind == SETTINGS:
            self._settings(flags, payload)
        elif kind == WINDOW_UPDATE:
            self._grow(number, int.from_bytes(_sized(payload, 4), "big") & MOST_WINDOW)
        elif kind == PING:
            if not flags & ACK:
                self._write(frame(PING, ACK, 0, _sized(payload, 8)))
        elif kind == RST_STREAM:
            code = int.from_bytes(_sized(payload, 4), "big")
            stream = self._streams.get(number)
            if stream is not None:
                self._end(stream, _of_reset(code))
        elif kind == GOAWAY:
            self._going_away(payload)
        elif kind == PUSH_PROMISE:
            raise _Broken(PROTOCOL_ERROR, "a push that was not allowed")

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._unread += size
        if self._unread >= CREDIT_AFTER:
            self._write(frame(WINDOW_UPDATE, 0, 0, pack(">I", self._unread)))
            self._unread = 0
        stream = self._streams.get(number)
        if stream is None:
            return  # of a call that was given up
        stream.unread += size
        buffer = stream.buffer
        buffer += _unpadded(flags, payload)
        while len(buffer) >= 5:
            length = int.from_bytes(buffer[1:5], "big")
            if buffer[0] or length > MOST_MESSAGE:
                self.reset(stream)
                code, why = RESOURCE_EXHAUSTED, f"a message of {length} bytes"
                if buffer[0]:
                    code, why = UNIMPLEMENTED, "a compressed message"
                stream.on_end(RpcError(code, why, sent=True))
                return
            if len(buffer) < 5 + length:
                break
            message = bytes(buffer[5 : 5 + length])
            del buffer[: 5 + length]
            stream.on_message(message)
            if self._streams.get(number) is not stream:
                return
        if stream.unread >= CREDIT_AFTER:
            self.give_credit(stream)
        if flags & END_STREAM:
            self._end(stream, RpcError(UNKNOWN, "the call ended without a status", sent=True))

    def _block(self, number: int, flags: int, block: bytearray) -> None:
        if len(block) > MOST_HEADERS:
            raise _Broken(PROTOCOL_ERROR, "headers without end")
        if not flags & END_HEADERS:
            self._headers = number, flags, block
            return
        code, details = self._status(bytes(block))
        stream = self._streams.get(number)
        if stream is None:
            return
        if flags & END_STREAM:
            if code < 0:
                code, details = UNKNOWN, "the call ended without a status"
            self._end(stream, RpcError(code, details, sent=True) if code else None)
        elif code > 0:
            self.reset(stream)
            stream.on_end(RpcError(code, details, sent=True))

    def _status(self, block: bytes) -> tuple[int, str]:
        """(gRPC's status, its text) of a header block; -1 where it tells none."""
        found = self._statuses.get(block)
        if found is not None:
            return found
        try:
            fields = {bytes(name): bytes(value) for name, value in self._decoder.decode(block, raw=True)}
        except (hpack.HPACKError, UnicodeDecodeError, IndexError, ValueError) as error:
            raise _Broken(PROTOCOL_ERROR, f"headers that cannot be read: {error}") from error
        code, details = -1, unquote(fields.get(b"grpc-message", b"").decode("latin-1"))
        given = fields.get(b"grpc-status")
        if given is not None:
            code = int(given) if given.isdigit() and len(given) < 3 else UNKNOWN
        elif fields.get(b":status", b"200") != b"200":
            code, details = UNAVAILABLE, f"HTTP status {fields[b':status'].decode('latin-1')}"
        if len(self._statuses) >= STATUSES_KEPT:
            self._statuses.clear()
        self._statuses[block] = code, details
        return code, details

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            return
        if len(payload) % 6:
            raise _Broken(PROTOCOL_ERROR, "settings of a wrong size")
        for name, value in _setting.iter_unpack(payload):
            if name == 3:
                self._most_streams = value
            elif name == 4:
                if value > MOST_WINDOW:
                    raise _Broken(FLOW_CONTROL_ERROR, "a window that is too large")
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
            elif name == 5:
                if not DEFAULT_FRAME <= value < 1 << 24:
                    raise _Broken(PROTOCOL_ERROR, f"a frame size of {value}")
                self._frame_limit = value
        self._write(frame(SETTINGS, ACK, 0))
        if not self.ready.done():
            self.ready.set_result(None)
        self._dequeue()
        self._pump()

    def _grow(self, number: int, size: int) -> None:
        stream = self._streams.get(number)
        if not number:
            self._window += size
            if self._window > MOST_WINDOW:
                raise _Broken(FLOW_CONTROL_ERROR, "the window grew too large")
        elif stream is not None:
            stream.window += size
        if self._pending:
            self._pump()

    def _going_away(self, payload: bytes) -> None:
        if len(payload) < 8:
            raise _Broken(PROTOCOL_ERROR, "a farewell that is cut off")
        last = int.from_bytes(payload[:4], "big") & MOST_WINDOW
        why = f"the server is going away: {payload[8:].decode('utf-8', 'replace')}"
        self.error = self.error or RpcError(UNAVAILABLE, why, sent=False)
        for number in [number for number in self._streams if number > last]:
            self._streams.pop(number).on_end(RpcError(UNAVAILABLE, why, sent=False))
        queued, self._queued = self._queued, deque()
        for each in queued:
            each[0].on_end(RpcError(UNAVAILABLE, why, sent=False))


def _of_reset(code: int) -> RpcError:
    """What a reset means: gRPC's PROTOCOL-HTTP2, "Errors"."""
    if code == REFUSED_STREAM:
        return RpcError(UNAVAILABLE, "the server refused the stream", sent=False)
    if code == CANCEL:
        return RpcError(CANCELLED, "the server cancelled the call", sent=True)
    return RpcError(UNAVAILABLE, f"the server reset the stream: HTTP/2 error {code}", sent=True)


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise _Broken(PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]


def _sized(payload: bytes, size: int) -> bytes:
    if len(payload) != size:
        raise _Broken(PROTOCOL_ERROR, "a frame of a wrong size")
    return payload
