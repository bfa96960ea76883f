"""Our client of gRPC against grpcio's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from apiserver.storage import http2
from apiserver.storage.http2 import RpcError
from apiserver.storage.rpc import Channel
from machinery.tls import CertificateAuthority

SECONDS = 10.0


async def _echo(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return request


async def _fail(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    await context.abort(grpc.StatusCode.OUT_OF_RANGE, "gone: 1 % ü")
    raise AssertionError


async def _hang(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    await asyncio.sleep(60)
    return b""


async def _repeat(requests: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
    async for request in requests:
        for _ in range(int(request)):
            yield b"x" * 100_000


def _server() -> grpc.aio.Server:
    made = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
    handlers: dict[str, Any] = {
        "Echo": grpc.unary_unary_rpc_method_handler(_echo),
        "Fail": grpc.unary_unary_rpc_method_handler(_fail),
        "Hang": grpc.unary_unary_rpc_method_handler(_hang),
        "Repeat": grpc.stream_stream_rpc_method_handler(_repeat),
    }
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handlers),))
    return made


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[Channel]:
    target = f"unix:{tmp_path}/s"
    server = _server()
    server.add_insecure_port(target)
    await server.start()
    opened = Channel(target)
    yield opened
    await opened.close()
    await server.stop(0)


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 70_000, 3 << 20, 20 << 20])
async def test_messages_of_every_size(channel: Channel, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"!" * (size % 256)
    assert await channel.unary(channel.method("/t.T/Echo"), data, SECONDS) == data


async def test_many_calls_at_once(channel: Channel) -> None:
    method = channel.method("/t.T/Echo")
    asked = [f"{number}".encode() * (number % 50 + 1) for number in range(500)]
    assert await asyncio.gather(*(channel.unary(method, each, SECONDS) for each in asked)) == asked


async def test_statuses(channel: Channel) -> None:
    with pytest.raises(RpcError) as failed:
        await channel.unary(channel.method("/t.T/Fail"), b"", SECONDS)
    assert (failed.value.code, failed.value.details, failed.value.sent) == (http2.OUT_OF_RANGE, "gone: 1 % ü", True)
    with pytest.raises(RpcError) as unknown:
        await channel.unary(channel.method("/t.T/Nothing"), b"", SECONDS)
    assert unknown.value.code == http2.UNIMPLEMENTED


async def test_deadlines_and_cancellation_leave_the_connection_in_order(channel: Channel) -> None:
    method = channel.method("/t.T/Hang")
    with pytest.raises(RpcError) as late:
        await channel.unary(method, b"", 0.05)
    assert late.value.code == http2.DEADLINE_EXCEEDED and late.value.sent
    waiting = asyncio.ensure_future(channel.unary(method, b"", SECONDS))
    await asyncio.sleep(0.01)
    waiting.cancel()
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
    assert await channel.unary(channel.method("/t.T/Echo"), b"on", SECONDS) == b"on"


async def test_streams_are_held_back_by_their_reader_and_go_on(channel: Channel) -> None:
    call = await channel.stream(channel.method("/t.T/Repeat"), b"300", SECONDS)
    await channel.unary(channel.method("/t.T/Echo"), b"", SECONDS)  # a stream that nobody reads stops no other call
    async with asyncio.timeout(SECONDS):
        for _ in range(300):
            assert len(await call.read()) == 100_000
        call.send(b"1")
        assert len(await call.read()) == 100_000
    call.cancel()
    with pytest.raises(RpcError):
        await call.read()
    with pytest.raises(RpcError):
        call.send(b"1")


async def test_dials_again_after_the_server_came_back(tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/s"
    channel = Channel(target)
    echo = channel.method("/t.T/Echo")
    with pytest.raises(RpcError) as missing:
        await channel.unary(echo, b"", 0.1)
    assert missing.value.code == http2.UNAVAILABLE and not missing.value.sent
    for _ in range(2):
        server = _server()
        server.add_insecure_port(target)
        await server.start()
        hanging = asyncio.ensure_future(channel.unary(channel.method("/t.T/Hang"), b"", SECONDS))
        assert await channel.unary(echo, b"there", SECONDS) == b"there"
        await server.stop(0)
        lost = (await asyncio.gather(hanging, return_exceptions=True))[0]
        assert isinstance(lost, RpcError) and lost.sent
    await channel.close()
    with pytest.raises(RpcError, match="closed"):
        await channel.unary(echo, b"", SECONDS)


async def test_mutual_tls(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path)
    pair = authority.issue_to("t", "etcd", sans=["127.0.0.1"], server=True)
    server = _server()
    credentials = grpc.ssl_server_credentials(
        [(pair.key.read_bytes(), pair.cert.read_bytes())], pair.ca.read_bytes(), require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    channel = Channel(f"127.0.0.1:{port}", pair)
    assert await channel.unary(channel.method("/t.T/Echo"), b"secret", SECONDS) == b"secret"
    await channel.close()
    await server.stop(0)


async def test_a_server_that_accepts_but_says_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apiserver.storage.rpc.DIAL_SECONDS", 0.05)
    held: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_unix_server(lambda reader, writer: held.append(writer), f"{tmp_path}/s")
    channel = Channel(f"unix:{tmp_path}/s")
    with pytest.raises(RpcError, match="introduce itself") as refused:
        await channel.unary(channel.method("/t.T/Echo"), b"", 0.3)
    assert refused.value.code == http2.UNAVAILABLE and not refused.value.sent
    await channel.close()
    for writer in held:
        writer.close()
        await writer.wait_closed()
    silent.close()
    await silent.wait_closed()


async def test_a_server_that_falls_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apiserver.storage.rpc.KEEPALIVE_SECONDS", 0.05)
    monkeypatch.setattr("apiserver.storage.rpc.KEEPALIVE_TIMEOUT", 0.05)
    heard: list[bytes] = []
    left = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http2.frame(http2.SETTINGS, 0, 0))
        while data := await reader.read(4096):
            heard.append(data)
        writer.close()
        await writer.wait_closed()
        left.set()

    silent = await asyncio.start_unix_server(mute, f"{tmp_path}/s")
    channel = Channel(f"unix:{tmp_path}/s")
    call = await channel.stream(channel.method("/t.T/Repeat"), b"1", SECONDS)
    async with asyncio.timeout(SECONDS):
        with pytest.raises(RpcError, match="closed"):
            await call.read()
        await left.wait()
    assert http2.frame(http2.PING, 0, 0, b"\0" * 8) in b"".join(heard)
    await channel.close()
    silent.close()
    await silent.wait_closed()
