"""SPDY/3.1 frames as values, and their bytes in both directions.

Owns: the layout of frames, the compression of headers (one zlib stream per direction and connection, primed with the
protocol's dictionary) and the limits of both. Never does I/O and knows no stream's state: `streams.spdy` does.
Data frames are passed on in the pieces in which they arrive, so their size costs no memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

VERSION = 3
MAX_CONTROL = 64 * 1024  # bytes of a control frame
MAX_HEADERS = 64 * 1024  # bytes of headers once decompressed
MAX_HEADER_COUNT = 256
FIN, UNIDIRECTIONAL = 0x01, 0x02
PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL, INTERNAL_ERROR = 1, 2, 3, 5, 6
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
_ID_MASK = 0x7FFFFFFF
_SMALLEST = {_SYN_STREAM: 10, _SYN_REPLY: 4, _RST_STREAM: 8, _SETTINGS: 4, _PING: 4, _GOAWAY: 8, _HEADERS: 4}
_SMALLEST[_WINDOW_UPDATE] = 8

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 "
    "Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec "
    "00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset="
    "iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    words = [word.replace("_", " ").encode() for word in _WORDS.split(" ")]
    return b"".join([struct.pack("!I", len(word)) + word for word in words]) + _TEXT.encode()


DICTIONARY = _dictionary()

Headers = Mapping[str, str]


class SpdyError(Exception):
    """The other side broke the protocol; the connection cannot go on."""


class SynStream(NamedTuple):
    """Opens a stream."""

    stream: int
    headers: Headers
    fin: bool = False
    unidirectional: bool = False


class SynReply(NamedTuple):
    """Accepts a stream."""

    stream: int
    headers: Headers
    fin: bool = False


class MoreHeaders(NamedTuple):
    """Adds headers to a stream."""

    stream: int
    headers: Headers
    fin: bool = False


class Data(NamedTuple):
    """Bytes of a stream."""

    stream: int
    data: bytes
    fin: bool = False


class Reset(NamedTuple):
    """Ends a stream at once, in both directions."""

    stream: int
    status: int


class Settings(NamedTuple):
    """The other side's preferences by number."""

    values: Mapping[int, int]


class Ping(NamedTuple):
    """To be sent back as it is."""

    number: int


class GoAway(NamedTuple):
    """No more streams from here on."""

    last: int
    status: int = 0


class WindowUpdate(NamedTuple):
    """Room for more bytes; stream 0 is the connection."""

    stream: int
    delta: int


Frame = SynStream | SynReply | MoreHeaders | Data | Reset | Settings | Ping | GoAway | WindowUpdate


class Encoder:
    """Frames to bytes. Its output must be sent in the order in which it was made."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zdict=DICTIONARY)

    def encode(self, frame: Frame) -> bytes:
        match frame:
            case Data(stream, data, fin):
                return struct.pack("!II", stream & _ID_MASK, (FIN if fin else 0) << 24 | len(data)) + data
            case SynStream(stream, headers, fin, unidirectional):
                flags = (FIN if fin else 0) | (UNIDIRECTIONAL if unidirectional else 0)
                head = struct.pack("!IIBB", stream, 0, 0, 0)
                return _control(_SYN_STREAM, flags, head + self._block(headers))
            case SynReply(stream, headers, fin):
                return _control(_SYN_REPLY, FIN if fin else 0, struct.pack("!I", stream) + self._block(headers))
            case MoreHeaders(stream, headers, fin):
                return _control(_HEADERS, FIN if fin else 0, struct.pack("!I", stream) + self._block(headers))
            case Reset(stream, status):
                return _control(_RST_STREAM, 0, struct.pack("!II", stream, status))
            case Settings(values):
                entries = [struct.pack("!II", number & 0xFFFFFF, value) for number, value in values.items()]
                return _control(_SETTINGS, 0, struct.pack("!I", len(entries)) + b"".join(entries))
            case Ping(number):
                return _control(_PING, 0, struct.pack("!I", number))
            case GoAway(last, status):
                return _control(_GOAWAY, 0, struct.pack("!II", last, status))
            case WindowUpdate(stream, delta):
                return _control(_WINDOW_UPDATE, 0, struct.pack("!II", stream, delta))

    def _block(self, headers: Headers) -> bytes:
        parts = [struct.pack("!I", len(headers))]
        for name, value in headers.items():
            for text in (name.lower(), value):
                raw = text.encode("utf-8", "surrogateescape")
                parts.append(struct.pack("!I", len(raw)) + raw)
        return self._zlib.compress(b"".join(parts)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


def _control(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack("!HHI", 0x8000 | VERSION, kind, flags << 24 | len(payload)) + payload


class Decoder:
    """Bytes to frames."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)
        self._buffer = bytearray()
        self._stream = 0  # of the data frame under way
        self._left = 0  # bytes of it still to come
        self._fin = False

    def feed(self, received: bytes) -> Iterator[Frame]:
        """The frames, and pieces of data frames, that are complete now. Raises SpdyError."""
        buffer = self._buffer
        buffer += received
        while True:
            if self._left:
                if not buffer:
                    return
                piece = bytes(buffer[: self._left])
                del buffer[: len(piece)]
                self._left -= len(piece)
                yield Data(self._stream, piece, self._fin and not self._left)
                continue
            if len(buffer) < 8:
                return
            first, second = struct.unpack_from("!II", buffer)
            flags, length = second >> 24, second & 0xFFFFFF
            if not first & 0x80000000:
                if not first:
                    raise SpdyError("data for stream 0")
                del buffer[:8]
                self._stream, self._left, self._fin = first, length, bool(flags & FIN)
                if not length:
                    yield Data(first, b"", self._fin)
                continue
            if (first >> 16) & 0x7FFF != VERSION:
                raise SpdyError(f"unknown version {(first >> 16) & 0x7FFF}")
            if length > MAX_CONTROL:
                raise SpdyError(f"control frame of {length} bytes")
            if len(buffer) < 8 + length:
                return
            payload = bytes(buffer[8 : 8 + length])
            del buffer[: 8 + length]
            frame = self._frame(first & 0xFFFF, flags, payload)
            if frame is not None:
                yield frame

    def _frame(self, kind: int, flags: int, payload: bytes) -> Frame | None:
        """One control frame; None for a type that nobody needs to know."""
        if len(payload) < _SMALLEST.get(kind, 0):
            raise SpdyError(f"frame of type {kind} is too short")
        fin = bool(flags & FIN)
        if kind not in _SMALLEST:
            return None
        if kind == _SETTINGS:
            return _settings(payload)
        stream = struct.unpack_from("!I", payload)[0]
        if kind == _PING:
            return Ping(stream)
        stream &= _ID_MASK
        if kind == _SYN_STREAM:
            return SynStream(stream, self._headers(payload[10:]), fin, bool(flags & UNIDIRECTIONAL))
        if kind == _SYN_REPLY:
            return SynReply(stream, self._headers(payload[4:]), fin)
        if kind == _HEADERS:
            return MoreHeaders(stream, self._headers(payload[4:]), fin)
        number = struct.unpack_from("!I", payload, 4)[0]
        if kind == _RST_STREAM:
            return Reset(stream, number)
        if kind == _GOAWAY:
            return GoAway(stream, number)
        return WindowUpdate(stream, number & _ID_MASK)

    def _headers(self, block: bytes) -> Headers:
        try:
            raw = self._zlib.decompress(block, MAX_HEADERS)
        except zlib.error as error:
            raise SpdyError(f"bad headers: {error}") from error
        if self._zlib.unconsumed_tail or self._zlib.unused_data:
            raise SpdyError("headers are too large")
        return _pairs(raw)


def _settings(payload: bytes) -> Settings:
    count = struct.unpack_from("!I", payload)[0]
    if len(payload) != 4 + 8 * count:
        raise SpdyError("settings of the wrong length")
    entries = struct.iter_unpack("!II", payload[4:])
    return Settings({number & 0xFFFFFF: value for number, value in entries})


def _pairs(raw: bytes) -> Headers:
    """A decompressed block as headers; repeated values stay joined by NUL, as they come."""
    found: dict[str, str] = {}
    offset = 4
    try:
        count = struct.unpack_from("!I", raw)[0]
        if count > MAX_HEADER_COUNT:
            raise SpdyError(f"{count} headers")
        for _ in range(count):
            pair = []
            for _ in range(2):
                size = struct.unpack_from("!I", raw, offset)[0]
                offset += 4
                if size > len(raw) - offset:
                    raise SpdyError("header is cut off")
                pair.append(raw[offset : offset + size].decode("utf-8", "surrogateescape"))
                offset += size
            found[pair[0].lower()] = pair[1]
    except struct.error as error:
        raise SpdyError("headers are cut off") from error
    return found
