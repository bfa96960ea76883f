"""Writing answers: status line, prebuilt header lists, bodies, Status errors.

Owns: which headers every answer carries and how errors and warnings become bytes. Never decides what to answer.
Called by every handler of the REST door. Header lists of the common cases exist once; an answer adds only what differs.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from random import getrandbits
from typing import Any, Protocol

import msgspec

from machinery.errors import StatusError

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Header = tuple[bytes, bytes]
Whole = Callable[[int, Iterable[Header], bytes], bool]  # writes an answer at once, or says that it cannot
Chunk = Callable[[bytes], bool]  # the same for a part of a chunked answer, already framed

encode_json = msgspec.json.Encoder().encode

JSON_TYPE = b"application/json"
PROTOBUF_TYPE = b"application/vnd.kubernetes.protobuf"
TEXT_TYPE = b"text/plain; charset=utf-8"
NOT_FOUND_PAGE = b"404 page not found\n"

PIECE = 256 << 10
"""Bytes of one write of a large answer."""
ZIPPED = 128 << 10
"""Answers above this size are compressed for clients that ask for it, as upstream does."""
GZIP_LEVEL = 1

_CACHE: Header = (b"cache-control", b"no-cache, private")
_JSON_HEADER: Header = (b"content-type", JSON_TYPE)


def audit_id() -> bytes:
    """A random version-4 UUID; ids of requests need no cryptographic strength."""
    bits = getrandbits(128)
    text = b"%032x" % bits
    return b"%b-%b-4%b-%b%b-%b" % (
        text[:8],
        text[8:12],
        text[13:16],
        b"89ab"[bits & 3 : (bits & 3) + 1],
        text[17:20],
        text[20:],
    )


def warning_header(text: str) -> Header:
    """`299 - "text"` as RFC 7234 writes it; control characters would break the header and are dropped."""
    clean = "".join(char for char in text if char >= " " and char != "\x7f")
    quoted = clean.replace("\\", "\\\\").replace('"', '\\"')
    return (b"warning", f'299 - "{quoted}"'.encode())


class PlainRefusal(StatusError):
    """A refusal whose message is the whole body, as text: what stands before an upgrade that a kubelet refused."""


class Answerable(Protocol):
    """The part of a request that an answer needs; `code` is set once an answer has begun."""

    send: Send
    headers: Mapping[bytes, bytes]
    audit: bytes
    flow: tuple[Header, ...]
    code: int
    size: int
    warnings: list[str]
    whole: Whole | None

    @property
    def only_protobuf(self) -> bool: ...


async def send_bytes(
    request: Answerable,
    code: int,
    body: bytes,
    *,
    content_type: bytes = JSON_TYPE,
    extra: Iterable[Header] = (),
) -> None:
    """One whole answer."""
    request.code, request.size = code, len(body)
    headers: list[Header] = [(b"audit-id", request.audit), (b"content-length", b"%d" % len(body))]
    if not extra or all(name != b"cache-control" for name, _ in extra):
        headers.append(_CACHE)
    headers += request.flow
    headers += extra
    if content_type is JSON_TYPE:
        headers.append(_JSON_HEADER)
    elif content_type:
        headers.append((b"content-type", content_type))
    if len(body) <= PIECE and request.whole is not None and request.whole(code, headers, body):
        return
    await _send_pieces(request.send, code, headers, (body,))


async def send_object(
    request: Answerable,
    code: int,
    parts: Sequence[bytes],
    *,
    content_type: bytes = JSON_TYPE,
    extra: Sequence[Header] = (),
) -> None:
    """An object or a list, in parts that need not be joined; compressed when it is large and the client takes that."""
    size = sum(map(len, parts))
    if size > ZIPPED and accepts_gzip(request.headers.get(b"accept-encoding", b"")):
        body = await asyncio.to_thread(_zipped, parts)
        extra = (*extra, (b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding"))
        await send_bytes(request, code, body, content_type=content_type, extra=extra)
    elif size <= PIECE:
        await send_bytes(request, code, b"".join(parts), content_type=content_type, extra=extra)
    else:
        request.code, request.size = code, size
        headers = [(b"audit-id", request.audit), _CACHE, (b"content-length", b"%d" % size), *request.flow, *extra]
        headers.append((b"content-type", content_type))
        await _send_pieces(request.send, code, headers, parts)


async def _send_pieces(send: Send, code: int, headers: list[Header], parts: Iterable[bytes]) -> None:
    """Write as the client reads: what waits for a slow one is one piece, and others get their turn between two."""
    await send({"type": "http.response.start", "status": code, "headers": headers})
    for part in parts:
        view = memoryview(part)
        for at in range(0, len(part), PIECE):
            await send({"type": "http.response.body", "body": view[at : at + PIECE], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def accepts_gzip(header: bytes) -> bool:
    """Does Accept-Encoding name gzip? Parameters are ignored, as upstream does."""
    return b"gzip" in header and any(part.partition(b";")[0].strip() == b"gzip" for part in header.split(b","))


def _zipped(parts: Sequence[bytes]) -> bytes:
    packer = zlib.compressobj(GZIP_LEVEL, wbits=16 + zlib.MAX_WBITS)
    return b"".join([*(packer.compress(part) for part in parts), packer.flush()])


async def send_not_modified(request: Answerable, etag: bytes) -> None:
    """304: nothing but the tag. A content type here would replace the one a client has cached."""
    request.code = 304
    headers: list[Header] = [(b"audit-id", request.audit), _CACHE, (b"etag", etag), *request.flow]
    await request.send({"type": "http.response.start", "status": 304, "headers": headers})
    await request.send({"type": "http.response.body", "body": b""})


async def send_error(request: Answerable, error: StatusError) -> None:
    """A Status, with Retry-After where the error names one."""
    extra = [warning_header(text) for text in request.warnings]
    if error.retry_after_seconds:
        extra.append((b"retry-after", b"%d" % error.retry_after_seconds))
    if error.code == 413:
        extra.append((b"connection", b"close"))  # the rest of the body is not worth reading
    if isinstance(error, PlainRefusal):
        body = error.message.encode() + b"\n"
        await send_bytes(request, error.code, body, content_type=TEXT_TYPE, extra=extra)
        return
    status = error.to_status()
    if request.only_protobuf:
        from machinery import protobuf

        body, content_type = protobuf.encode(status), PROTOBUF_TYPE
    else:
        body, content_type = encode_json(status), JSON_TYPE
    await send_bytes(request, error.code, body, content_type=content_type, extra=extra)


async def send_not_found_page(request: Answerable) -> None:
    """What upstream's mux answers to a path nobody registered."""
    extra = ((b"x-content-type-options", b"nosniff"),)
    await send_bytes(request, 404, NOT_FOUND_PAGE, content_type=TEXT_TYPE, extra=extra)
