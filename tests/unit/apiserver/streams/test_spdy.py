from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver.rest.bodies import ClientGone
from apiserver.streams.spdy import BUFFER, MAX_STREAMS, SpdyConnection, SpdyStream
from apiserver.streams.spdy_frames import (
    INVALID_STREAM,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Data,
    Decoder,
    Encoder,
    Frame,
    GoAway,
    Ping,
    Reset,
    Settings,
    SynReply,
    SynStream,
    WindowUpdate,
)


class Client:
    """A pipe whose other end the test holds."""

    def __init__(self) -> None:
        self.encoder, self.decoder = Encoder(), Decoder()
        self.to_server: asyncio.Queue[bytes] = asyncio.Queue()
        self.sent: list[Frame] = []
        self.arrived = asyncio.Event()
        self.closed = False

    async def read(self) -> bytes:
        return await self.to_server.get()

    async def write(self, data: bytes) -> None:
        if self.closed:
            raise ClientGone
        self.sent += self.decoder.feed(data)
        self.arrived.set()

    async def close(self) -> None:
        self.closed = True

    def send(self, *frames: Frame) -> None:
        for frame in frames:
            self.to_server.put_nowait(self.encoder.encode(frame))

    def leave(self) -> None:
        self.to_server.put_nowait(b"")

    async def until(self, frame: Frame) -> None:
        async with asyncio.timeout(5):
            while frame not in self.sent:
                self.arrived.clear()
                await self.arrived.wait()


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[Client, SpdyConnection, list[SpdyStream]]]:
    client, streams = Client(), list[SpdyStream]()
    connection = SpdyConnection(client, streams.append)
    running = asyncio.ensure_future(connection.run())
    try:
        yield client, connection, streams
    finally:
        client.leave()
        async with asyncio.timeout(5):
            await running


async def test_a_stream_from_begin_to_end() -> None:
    async with connected() as (client, connection, streams):
        client.send(SynStream(1, {"streamtype": "data"}), Data(1, b"hello"), Data(1, b"", True))
        await client.until(SynReply(1, {}))
        stream = streams[0]
        assert (stream.headers, await stream.read(), await stream.read()) == ({"streamtype": "data"}, b"hello", b"")
        await stream.write(b"x" * 100_000)  # after the client's half close
        await stream.close()
        await client.until(Data(1, b"", True))
        assert b"".join(frame.data for frame in client.sent if isinstance(frame, Data)) == b"x" * 100_000
        assert len(connection) == 0


async def test_pings_come_back() -> None:
    async with connected() as (client, _, _):
        client.send(Ping(2), Ping(7))
        await client.until(Ping(7))
        assert Ping(2) not in client.sent


@pytest.mark.parametrize("number", [2, 1])
async def test_streams_out_of_order_end_the_connection(number: int) -> None:
    async with connected() as (client, _, _):
        client.send(SynStream(3, {}), SynStream(number, {}))
        await client.until(GoAway(3, PROTOCOL_ERROR))


async def test_data_for_a_stream_that_never_was() -> None:
    async with connected() as (client, _, _):
        client.send(Data(5, b"x"))
        await client.until(Reset(5, INVALID_STREAM))


async def test_a_reset_breaks_one_stream_only() -> None:
    async with connected() as (client, connection, streams):
        client.send(SynStream(1, {}), SynStream(3, {}), Reset(1, 5), Data(3, b"alive"))
        await client.until(SynReply(3, {}))
        assert await streams[1].read() == b"alive"
        with pytest.raises(ClientGone):
            await streams[0].read()
        with pytest.raises(ClientGone):
            await streams[0].write(b"x")
        assert len(connection) == 1


async def test_the_end_of_the_connection_breaks_every_stream() -> None:
    async with connected() as (client, _, streams):
        client.send(SynStream(1, {}))
        await client.until(SynReply(1, {}))
    with pytest.raises(ClientGone):
        await streams[0].read()


async def test_nothing_new_after_goaway() -> None:
    async with connected() as (client, _, streams):
        client.send(SynStream(1, {}), GoAway(0), SynStream(3, {}), Ping(1))
        await client.until(Ping(1))
        assert [stream.number for stream in streams] == [1]


async def test_too_many_streams_are_refused() -> None:
    async with connected() as (client, connection, _):
        client.send(*(SynStream(2 * number + 1, {}) for number in range(MAX_STREAMS + 1)))
        await client.until(Reset(2 * MAX_STREAMS + 1, REFUSED_STREAM))
        assert len(connection) == MAX_STREAMS


async def test_a_reader_that_is_slow_holds_the_client_up() -> None:
    async with connected() as (client, _, streams):
        piece = b"x" * (BUFFER // 4)
        client.send(SynStream(1, {}), *(Data(1, piece) for _ in range(8)), Ping(1))
        await client.until(SynReply(1, {}))
        async with asyncio.timeout(5):
            while client.to_server.qsize() > 5:  # noqa: ASYNC110  four pieces fill the buffer
                await asyncio.sleep(0)
        assert Ping(1) not in client.sent
        for _ in range(8):
            assert await streams[0].read() == piece
        await client.until(Ping(1))


async def test_what_nobody_reads_is_thrown_away() -> None:
    async with connected() as (client, _, streams):
        client.send(SynStream(1, {}))
        await client.until(SynReply(1, {}))
        streams[0].discard()
        client.send(*(Data(1, b"x" * BUFFER) for _ in range(3)), Ping(1))
        await client.until(Ping(1))


async def test_windows_are_kept_towards_those_who_keep_them() -> None:
    async with connected() as (client, _, streams):
        client.send(Settings({7: 10}), SynStream(1, {}), Data(1, b"abc"))
        await client.until(SynReply(1, {}))
        await streams[0].read()
        await client.until(WindowUpdate(1, 3))
        assert WindowUpdate(0, 3) in client.sent
        writing = asyncio.ensure_future(streams[0].write(b"0123456789abcdef"))
        await client.until(Data(1, b"0123456789"))
        client.send(Ping(1))
        await client.until(Ping(1))
        assert not writing.done()
        client.send(WindowUpdate(1, 100))
        await client.until(Data(1, b"abcdef"))
        await writing


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=200), max_size=6))
def test_noise_ends_the_connection_and_nothing_else(noise: list[bytes]) -> None:
    async def scenario() -> None:
        async with connected() as (client, _, _):
            client.send(SynStream(1, {}))
            for piece in noise:
                client.to_server.put_nowait(piece)

    asyncio.run(scenario())
