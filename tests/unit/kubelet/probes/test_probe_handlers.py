"""Single probe tries against real sockets, and the thresholds above them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from api.models import core_v1
from kubelet.probes.handlers import Target, http_get, tcp_connect
from kubelet.probes.runner import Threshold

SILENCE = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"


@contextlib.asynccontextmanager
async def answering(reply: bytes | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers every connection with `reply`, or never."""
    seen: list[bytes] = []
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        talks.add(me)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            if reply is not None:
                writer.write(reply)
                await writer.drain()
            else:
                await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen
    await asyncio.wait_for(asyncio.gather(*talks), 5)


@pytest.mark.parametrize(
    ("reply", "ok", "message"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", True, "", id="200"),
        pytest.param(b"HTTP/1.1 302 Found\r\n\r\n", True, "", id="302"),
        pytest.param(b"HTTP/1.1 500 No\r\n\r\n", False, "HTTP probe failed with statuscode: 500", id="500"),
        pytest.param(b"", False, 'Get "http://127.0.0.1:{port}/up": EOF', id="nothing"),
        pytest.param(
            None,
            False,
            f'Get "http://127.0.0.1:{{port}}/up": {SILENCE}',
            id="silence",
        ),
    ],
)
async def test_http(reply: bytes | None, ok: bool, message: str) -> None:
    async with answering(reply) as (port, seen):
        action = core_v1.HTTPGetAction(
            port="web", path="/up", httpHeaders=[core_v1.HTTPHeader(name="x-test", value="1")]
        )
        verdict = await http_get(action, Target("c", "127.0.0.1", {"web": port}), 0.3)
    assert (verdict.ok, verdict.message) == (ok, message.format(port=port))
    assert seen[0].startswith(b"GET /up HTTP/1.1\r\n") and b"X-Test: 1\r\n" in seen[0]


async def test_refused_connections_fail() -> None:
    async with answering(b"") as (port, _):
        pass
    verdict = await http_get(core_v1.HTTPGetAction(port=port), Target("c", "127.0.0.1", {}), 1)
    assert verdict.message == (
        f'Get "http://127.0.0.1:{port}/": dial tcp 127.0.0.1:{port}: connect: connection refused'
    )
    assert (
        await tcp_connect("127.0.0.1", port, 1)
    ).message == f"dial tcp 127.0.0.1:{port}: connect: connection refused"


async def test_tcp() -> None:
    async with answering(b"") as (port, _):
        assert (await tcp_connect("127.0.0.1", port, 1)).ok


async def test_an_unknown_port_name_is_an_error_not_a_failure() -> None:
    verdict = await http_get(core_v1.HTTPGetAction(port="none"), Target("c", "127.0.0.1", {}), 1)
    assert verdict.error and not verdict.ok


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        pytest.param("FFF", [None, None, False], id="three-failures"),
        pytest.param("FFSFF", [None, None, None, None, None], id="success-starts-over"),
        pytest.param("SS", [None, True], id="two-successes"),
        pytest.param("SFSS", [None, None, None, True], id="failure-starts-over"),
    ],
)
def test_thresholds(verdicts: str, expected: list[bool | None]) -> None:
    threshold = Threshold(success=2, failure=3)
    assert [threshold.count(each == "S") for each in verdicts] == expected
