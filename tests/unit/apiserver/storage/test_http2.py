"""The client side of HTTP/2, frame by frame, against a server that is a list of bytes."""

from __future__ import annotations

import asyncio
from struct import pack
from typing import Any

import hpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apiserver.storage import http2
from apiserver.storage.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    RpcError,
    frame,
    request_head,
)

METHOD = request_head("/a.B/C", "localhost")


class Wire:
    """What a transport does, and the frames that were written to it."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def take(self) -> list[tuple[int, int, int, bytes]]:
        data, self.written = self.written.removeprefix(PREFACE), b""
        found = []
        while data:
            size = int.from_bytes(data[:3], "big")
            found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
            data = data[9 + size :]
        return found


class Caller:
    """Notes what becomes of a call."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.ends: list[RpcError | None] = []


def block(*fields: tuple[str, str]) -> bytes:
    return bytes(hpack.Encoder().encode(fields, huffman=True))


def stateless(*fields: tuple[str, str]) -> bytes:
    """As an encoder writes it that was told to keep nothing."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return bytes(encoder.encode(fields, huffman=True))


def message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4, "big") + data


HEAD = stateless((":status", "200"), ("content-type", "application/grpc"))
DONE = stateless(("grpc-status", "0"))


async def opened(*pairs: tuple[int, int]) -> tuple[Connection, Wire]:
    connection, wire = Connection(), Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]
    connection.data_received(frame(SETTINGS, 0, 0, b"".join(pack(">HI", *pair) for pair in pairs)))
    await connection.ready
    await asyncio.sleep(0)
    wire.take()
    return connection, wire


def call(connection: Connection, data: bytes = b"ask", *, last: bool = True) -> tuple[Caller, http2.Stream]:
    caller = Caller()
    return caller, connection.open(METHOD, data, caller.messages.append, caller.ends.append, last=last)


async def sent(wire: Wire) -> list[tuple[int, int, int, bytes]]:
    await asyncio.sleep(0)
    return wire.take()


async def test_introduces_itself_without_a_header_table() -> None:
    connection, wire = Connection(), Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert wire.written.startswith(PREFACE)
    first = wire.take()[0]
    assert first[0] == SETTINGS and pack(">HI", 1, 0) in first[3] and pack(">HI", 2, 0) in first[3]
    connection.close()


async def test_one_question_one_answer() -> None:
    connection, wire = await opened()
    caller, _ = call(connection)
    head, data = await sent(wire)
    assert head[:3] == (HEADERS, END_HEADERS, 1) and data == (DATA, END_STREAM, 1, message(b"ask"))
    told = {bytes(name): bytes(value) for name, value in hpack.Decoder().decode(head[3], raw=True)}
    assert told[b":path"] == b"/a.B/C" and told[b":method"] == b"POST" and told[b"te"] == b"trailers"
    connection.data_received(
        frame(HEADERS, END_HEADERS, 1, HEAD)
        + frame(DATA, 0, 1, message(b"answer"))
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, DONE)
    )
    assert (caller.messages, caller.ends) == ([b"answer"], [None])


async def test_any_split_of_the_bytes_says_the_same() -> None:
    whole = (
        frame(HEADERS, 0, 1, HEAD[:3])
        + frame(CONTINUATION, END_HEADERS, 1, HEAD[3:])
        + frame(DATA, PADDED, 1, b"\2" + message(b"an")[:3] + b"xx")
        + frame(DATA, 0, 1, message(b"an")[3:] + message(b"swer"))
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, DONE)
    )
    for step in range(1, len(whole)):
        connection, _ = await opened()
        caller, _ = call(connection)
        for at in range(0, len(whole), step):
            connection.data_received(whole[at : at + step])
        assert (caller.messages, caller.ends) == ([b"an", b"swer"], [None])


@pytest.mark.parametrize(
    ("fields", "code", "details"),
    [
        pytest.param((("grpc-status", "11"), ("grpc-message", "of%20old")), 11, "of old", id="status"),
        pytest.param((("grpc-status", "x"),), http2.UNKNOWN, "", id="no number"),
        pytest.param(((":status", "503"),), http2.UNAVAILABLE, "HTTP status 503", id="a proxy's answer"),
        pytest.param(((":status", "200"),), http2.UNKNOWN, "the call ended without a status", id="none"),
    ],
)
async def test_failures_tell_their_status(fields: tuple[tuple[str, str], ...], code: int, details: str) -> None:
    connection, _ = await opened()
    caller, _ = call(connection)
    connection.data_received(frame(HEADERS, END_HEADERS | END_STREAM, 1, stateless(*fields)))
    error = caller.ends[0]
    assert error is not None and (error.code, error.details, error.sent) == (code, details, True)


async def test_windows_hold_back_what_is_sent() -> None:
    connection, wire = await opened((4, 10))
    caller, _ = call(connection, b"x" * 20)
    assert [each[3] for each in (await sent(wire))[1:]] == [message(b"x" * 20)[:10]]
    other, _ = call(connection, b"yy")
    assert [each[0] for each in await sent(wire)] == [HEADERS, DATA], "another stream's window is its own"
    connection.data_received(frame(WINDOW_UPDATE, 0, 1, pack(">I", 15)))
    frames = await sent(wire)
    assert [each[:3] for each in frames] == [(DATA, END_STREAM, 1)] and len(frames[0][3]) == 15
    assert caller.ends == other.ends == []


async def test_the_connection_has_a_window_too_and_settings_change_those_of_streams() -> None:
    connection, wire = await opened((4, 100))
    call(connection, b"x" * (1 << 17))
    assert sum(len(each[3]) for each in (await sent(wire))[1:]) == 100
    connection.data_received(frame(SETTINGS, 0, 0, pack(">HI", 4, 1 << 20)))
    frames = [each for each in await sent(wire) if each[0] == DATA]
    assert sum(len(each[3]) for each in frames) == http2.DEFAULT_WINDOW - 100
    assert max(len(each[3]) for each in frames) <= http2.DEFAULT_FRAME
    connection.data_received(frame(WINDOW_UPDATE, 0, 0, pack(">I", 1 << 20)))
    frames = [each for each in await sent(wire) if each[0] == DATA]
    assert frames[-1][1] == END_STREAM


async def test_gives_windows_back_unless_the_reader_lags() -> None:
    connection, wire = await opened()
    _, stream = call(connection, last=False)
    await sent(wire)
    part = frame(DATA, 0, 1, message(b"z" * (1 << 19)))
    connection.data_received(part * 3)
    assert (WINDOW_UPDATE, 1) in [(each[0], each[2]) for each in await sent(wire)]
    stream.credit = False
    connection.data_received(part * 3)
    assert (WINDOW_UPDATE, 1) not in [(each[0], each[2]) for each in await sent(wire)]
    stream.credit = True
    connection.give_credit(stream)
    assert (WINDOW_UPDATE, 1) in [(each[0], each[2]) for each in await sent(wire)]


async def test_no_more_streams_than_the_server_bears() -> None:
    connection, wire = await opened((3, 1))
    first, _ = call(connection)
    second, _ = call(connection)
    third, given_up = call(connection)
    assert [each[2] for each in await sent(wire)] == [1, 1]
    connection.reset(given_up)
    connection.data_received(frame(HEADERS, END_HEADERS | END_STREAM, 1, DONE))
    assert [each[2] for each in await sent(wire)] == [3, 3] and first.ends == [None]
    connection.connection_lost(None)
    assert [error.sent for error in second.ends if error is not None] == [True]
    assert third.ends == []


async def test_a_farewell_tells_which_calls_were_not_begun() -> None:
    connection, _ = await opened()
    first, _ = call(connection)
    second, _ = call(connection)
    connection.data_received(frame(GOAWAY, 0, 0, pack(">II", 1, 0) + b"bye"))
    assert first.ends == [] and [error.sent for error in second.ends if error is not None] == [False]
    with pytest.raises(RpcError, match="bye") as refused:
        call(connection)
    assert not refused.value.sent
    connection.data_received(frame(HEADERS, END_HEADERS | END_STREAM, 1, DONE))
    assert first.ends == [None]


@pytest.mark.parametrize(("code", "was_sent"), [(http2.REFUSED_STREAM, False), (http2.CANCEL, True), (2, True)])
async def test_a_reset_ends_its_call_alone(code: int, was_sent: bool) -> None:
    connection, _ = await opened()
    first, _ = call(connection)
    second, _ = call(connection)
    connection.data_received(frame(RST_STREAM, 0, 1, pack(">I", code)))
    assert [error.sent for error in first.ends if error is not None] == [was_sent] and second.ends == []


async def test_answers_pings_and_asks() -> None:
    connection, wire = await opened()
    connection.data_received(frame(PING, 0, 0, b"12345678"))
    connection.ping()
    assert await sent(wire) == [(PING, http2.ACK, 0, b"12345678"), (PING, 0, 0, b"\0" * 8)]


async def test_a_call_given_up_is_cancelled_and_what_still_comes_is_dropped() -> None:
    connection, wire = await opened()
    caller, stream = call(connection)
    await sent(wire)
    connection.reset(stream)
    assert await sent(wire) == [(RST_STREAM, 0, 1, pack(">I", http2.CANCEL))]
    connection.data_received(frame(DATA, 0, 1, message(b"late")) + frame(HEADERS, END_HEADERS | END_STREAM, 1, DONE))
    assert caller.messages == [] and caller.ends == [] and connection.error is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(DATA, PADDED, 1, b"\x05abc"), id="more padding than frame"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"), id="no header block"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, block(("x-other", "value")) + b"\xbe"), id="a table we have not"),
        pytest.param(frame(HEADERS, 0, 1, HEAD) + frame(PING, 0, 0, b"12345678"), id="interrupted headers"),
        pytest.param(frame(CONTINUATION, END_HEADERS, 1, HEAD), id="continued nothing"),
        pytest.param(frame(PING, 0, 0, b"short"), id="ping"),
        pytest.param(frame(SETTINGS, 0, 0, b"short"), id="settings"),
        pytest.param(frame(SETTINGS, 0, 0, pack(">HI", 4, 1 << 31)), id="window"),
        pytest.param(frame(SETTINGS, 0, 0, pack(">HI", 5, 1)), id="frame size"),
        pytest.param(frame(WINDOW_UPDATE, 0, 0, pack(">I", (1 << 31) - 1)), id="too large a window"),
        pytest.param(frame(5, 0, 1, b""), id="push"),
        pytest.param(b"\xff\xff\xff\0\0\0\0\0\1", id="too large a frame"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="HTTP/1.1"),
    ],
)
async def test_a_broken_server_ends_the_connection_and_its_calls(data: bytes) -> None:
    connection, wire = await opened()
    caller, _ = call(connection)
    connection.data_received(data)
    assert wire.closed and GOAWAY in [each[0] for each in wire.take()]
    assert [error.code for error in caller.ends if error is not None] == [http2.UNAVAILABLE]


@pytest.mark.parametrize("head", [b"\1\0\0\0\1x", b"\0\xff\xff\xff\xff"], ids=["compressed", "too long"])
async def test_messages_that_cannot_be_taken_end_the_call(head: bytes) -> None:
    connection, _ = await opened()
    caller, _ = call(connection)
    connection.data_received(frame(DATA, 0, 1, head))
    assert len(caller.ends) == 1 and caller.ends[0] is not None and connection.error is None


_pieces = st.one_of(
    st.binary(max_size=40),
    st.builds(
        frame,
        st.integers(0, 12),
        st.integers(0, 255),
        st.integers(0, 9),
        st.one_of(st.binary(max_size=40), st.just(HEAD), st.just(DONE), st.just(message(b"hello"))),
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.lists(_pieces, max_size=12))
def test_no_bytes_make_it_raise_or_end_a_call_twice(pieces: list[bytes]) -> None:
    async def play() -> list[Any]:
        connection, _ = await opened()
        callers = [call(connection, last=number % 2 == 0)[0] for number in range(3)]
        for piece in pieces:
            connection.data_received(piece)
        await asyncio.sleep(0)
        connection.connection_lost(None)
        return [caller.ends for caller in callers]

    assert [len(ends) for ends in asyncio.run(play())] == [1, 1, 1]
