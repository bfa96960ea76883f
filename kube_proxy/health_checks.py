"""Answers load balancers that ask whether this machine has endpoints of a Service (`spec.healthCheckNodePort`).

Only Services whose connections from outside stay on the machine they reach have such a port: a balancer leaves out
machines that answer 503. Owns one small HTTP server for each. Called by services.py, which counts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from machinery import log
from machinery.log import kv

READ_TIMEOUT: Final = 10.0  # real seconds
LONGEST: Final = 16384  # bytes of a request
_log = log.get(__name__)


class Answer(NamedTuple):
    """A Service, and how many of its ready endpoints are here."""

    namespace: str
    name: str
    local: int


def response(answer: Answer) -> bytes:
    """The whole HTTP answer, as upstream's proxy gives it."""
    told = {
        "service": {"namespace": answer.namespace, "name": answer.name},
        "localEndpoints": answer.local,
        "serviceProxyHealthy": True,
    }
    body = json.dumps(told, indent="\t").encode()
    status = "200 OK" if answer.local else "503 Service Unavailable"
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
        f"X-Load-Balancing-Endpoint-Weight: {answer.local}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class HealthChecks:
    """The servers of this machine, by port."""

    def __init__(self, host: str = "0.0.0.0") -> None:
        self._host = host
        self._answers: dict[int, Answer] = {}
        self._servers: dict[int, asyncio.Server] = {}

    async def set(self, wanted: Mapping[int, Answer]) -> None:
        """Answer on these ports and no others. A port that cannot be had is tried again with the next change."""
        self._answers = dict(wanted)
        for port in self._servers.keys() - wanted.keys():
            self._servers.pop(port).close()
        for port in wanted.keys() - self._servers.keys():
            try:
                self._servers[port] = await asyncio.start_server(
                    lambda reader, writer, port=port: self._serve(port, reader, writer),  # type: ignore[misc]
                    self._host,
                    port,
                    limit=LONGEST,
                )
            except OSError as error:
                _log.warning("Failed to listen for health checks", extra=kv(port=port, error=error))

    async def close(self) -> None:
        await self.set({})

    async def _serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                await reader.readuntil(b"\r\n\r\n")
                answer = self._answers.get(port)
                if answer is not None:
                    writer.write(response(answer))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
