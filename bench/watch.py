"""Watch fan-out: creates by 8 clients, every one delivered to 50 watchers; rate and delay from request to delivery.

The load generator is one process on uvloop that reads raw bytes; it takes most of a core itself.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from pathlib import Path

import uvloop

from bench.harness import Figure, cluster, median, percentile, say
from cli import layout

WATCHERS, CLIENTS, SECONDS, ROUNDS = 50, 8, 5.0, 3
_NAME = re.compile(rb'"name":"(w-[0-9-]+)"')


class Round:
    """One run of creators and watchers against an address."""

    def __init__(self, port: int, token: str, number: int) -> None:
        self._port = port
        self._head = f"Authorization: Bearer {token}\r\nHost: localhost\r\n"
        self._number = number
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._sent: dict[bytes, float] = {}
        self._delays: list[float] = []
        self._seen = [0] * WATCHERS
        self.created = 0

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context, limit=1 << 22)

    async def _watch(self, index: int, ready: asyncio.Event) -> None:
        reader, writer = await self._open()
        path = "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0&timeoutSeconds=60"
        writer.write(f"GET {path} HTTP/1.1\r\n{self._head}\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        ready.set()
        sent, delays, tail = self._sent, self._delays, b""
        try:
            while chunk := await reader.read(1 << 18):
                now = time.monotonic()
                data = tail + chunk
                end = data.rfind(b"\n") + 1
                for name in _NAME.findall(data, 0, end):
                    if name in sent:
                        delays.append(now - sent[name])
                        self._seen[index] += 1
                tail = data[end:]
        finally:
            writer.close()

    async def _create(self, client: int, until: float) -> None:
        reader, writer = await self._open()
        count = 0
        while time.monotonic() < until:
            count += 1
            name = f"w-{self._number}-{client}-{count}"
            body = f'{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"key":"value"}}}}'
            self._sent[name.encode()] = time.monotonic()
            writer.write(
                f"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\n{self._head}Content-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 201"):
                raise RuntimeError(head.decode())
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            assert length is not None
            await reader.readexactly(int(length.group(1)))
        self.created += count
        writer.close()

    async def run(self) -> tuple[float, float, float]:
        """(creates/s, p50, p99 of the delay in ms). Raises when a watcher missed an event."""
        ready = [asyncio.Event() for _ in range(WATCHERS)]
        watchers = [asyncio.ensure_future(self._watch(index, event)) for index, event in enumerate(ready)]
        await asyncio.gather(*(event.wait() for event in ready))
        started = time.monotonic()
        await asyncio.gather(*(self._create(client, started + SECONDS) for client in range(CLIENTS)))
        rate = self.created / (time.monotonic() - started)
        deadline = time.monotonic() + 10
        while min(self._seen) < self.created and time.monotonic() < deadline:  # noqa: ASYNC110  counted in hot code
            await asyncio.sleep(0.05)
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        if min(self._seen) != self.created:
            raise RuntimeError(f"a watcher saw {min(self._seen)} of {self.created} events")
        return rate, percentile(self._delays, 0.5) * 1000, percentile(self._delays, 0.99) * 1000


def run() -> list[Figure]:
    """Several rounds against one server."""
    rates: list[float] = []
    p50s: list[float] = []
    p99s: list[float] = []
    with cluster("bench-watch", "--only", "apiserver") as made:
        config = layout.load(layout.ClusterPaths.of(made.name))
        assert config is not None
        token = (Path(made.root) / "pki" / "tokens.csv").read_text().partition(",")[0]
        for number in range(ROUNDS):
            rate, p50, p99 = uvloop.run(Round(config.rest_port, token, number).run())
            rates.append(rate)
            p50s.append(p50)
            p99s.append(p99)
            say(f"watch: round {number + 1} of {ROUNDS}: {rate:.0f} creates/s, delay p50 {p50:.1f}, p99 {p99:.1f} ms")
    value = f"{median(rates):,.0f}/s; {median(p50s):.1f} / {median(p99s):.1f} ms"
    return [Figure(f"creates with {WATCHERS} watchers; delay p50 / p99", value, "", "1,052/s; 2.2 / 16.7 ms")]
