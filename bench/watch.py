"""Watch fan-out: creates by 8 clients, every one delivered to 50 watchers; rate and delay of delivery.

The delay runs from the answer to the creator to the event at the watcher; an event that comes before the answer counts
as 0. The generator shares the cores with the server, so it only notes when how many events came: all watchers get the
same events in the same order, and what each one was is worked out afterwards from the bytes of the first watcher.
"""

from __future__ import annotations

import asyncio
import gc
import re
import ssl
import time
from collections.abc import Callable

import uvloop

from bench.harness import Figure, cluster, median, percentile, say
from bench.load import Target, cpu

WATCHERS, CLIENTS, SECONDS, ROUNDS = 50, 8, 5.0, 3
CATCH_UP = 10.0
PATH = "/api/v1/namespaces/default/configmaps"
_NAME = re.compile(rb'"name":"(w-[0-9-]+)"')


class _Watcher(asyncio.Protocol):
    """Counts events as they come."""

    def __init__(self, head: bytes, keep: bool) -> None:
        self._head = head
        self._split = False
        self.came: list[tuple[float, int]] = []
        """(time, events by then)"""
        self.count = 0
        self.kept: list[bytes] | None = [] if keep else None
        self.ready = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._head)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self.ready.done():
            self.ready.set_result(data)
            return
        found = data.count(b"}\n") + (self._split and data[:1] == b"\n")
        self._split = data[-1:] == b"}"
        if found:
            self.count += found
            self.came.append((time.monotonic(), self.count))
        if self.kept is not None:
            self.kept.append(data)


class _Creator(asyncio.Protocol):
    """One create after the other; `wanted` gives the next name, or "" to stop."""

    def __init__(self, head: str, wanted: Callable[[], str]) -> None:
        self._head = head
        self._wanted = wanted
        self._buffer = b""
        self._name = ""
        self.asked: dict[bytes, float] = {}
        self.acknowledged: dict[bytes, float] = {}
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        name = self._name = self._wanted()
        if not name:
            self.done.set_result(None)
            return
        body = f'{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"key":"value"}}}}'
        self.asked[name.encode()] = time.monotonic()
        self._transport.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n{body}".encode())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now, buffer = time.monotonic(), self._buffer + data
        end = buffer.find(b"\r\n\r\n")
        at = buffer.find(b"content-length: ")
        if end < 0 or len(buffer) < end + 4 + int(buffer[at + 16 : buffer.find(b"\r", at)]):
            self._buffer = buffer
            return
        self._buffer = b""
        if not buffer.startswith(b"HTTP/1.1 201"):
            self.done.set_exception(RuntimeError(buffer.decode()))
            return
        self.acknowledged[self._name.encode()] = now
        self._next()


async def one_round(target: Target, number: int) -> tuple[float, list[float], list[float]]:
    """(creates/s, delays from the answer, delays from the request). Raises when a watcher missed an event."""
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    head = f"HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {target.token}\r\n"

    async def opened(protocol: asyncio.Protocol) -> asyncio.BaseTransport:
        transport, _ = await loop.create_connection(lambda: protocol, "127.0.0.1", target.port, ssl=context)
        return transport

    query = f"watch=1&resourceVersion={target.revision(PATH)}&timeoutSeconds=60"
    watchers = [_Watcher(f"GET {PATH}?{query} {head}\r\n".encode(), index == 0) for index in range(WATCHERS)]
    opens = [await opened(watcher) for watcher in watchers]
    await asyncio.gather(*(watcher.ready for watcher in watchers))
    started, made = time.monotonic(), 0

    def wanted() -> str:
        nonlocal made
        if time.monotonic() >= started + SECONDS:
            return ""
        made += 1
        return f"w-{number}-{made}"

    posting = f"POST {PATH} {head}Content-Type: application/json\r\n"
    creators = [_Creator(posting, wanted) for _ in range(CLIENTS)]
    opens += [await opened(creator) for creator in creators]
    await asyncio.gather(*(creator.done for creator in creators))
    rate = made / (time.monotonic() - started)
    deadline = time.monotonic() + CATCH_UP
    while min(watcher.count for watcher in watchers) < made and time.monotonic() < deadline:  # noqa: ASYNC110  counted in hot code
        await asyncio.sleep(0.05)
    for transport in opens:
        transport.close()
    asked = {name: at for creator in creators for name, at in creator.asked.items()}
    answered = {name: at for creator in creators for name, at in creator.acknowledged.items()}
    order = _NAME.findall(b"".join(watchers[0].kept or ()))
    counts = [watcher.count for watcher in watchers]
    if set(order) != set(answered) or len(order) != made or set(counts) != {made}:
        raise RuntimeError(f"{made} events; watchers saw {min(counts)} to {max(counts)}")
    whole: list[float] = []
    delays: list[float] = []
    for watcher in watchers:
        seen = 0
        for at, count in watcher.came:
            for name in order[seen:count]:
                delays.append(max(at - answered[name], 0.0))
                whole.append(at - asked[name])
            seen = count
    return rate, delays, whole


def run() -> list[Figure]:
    """Several rounds against one server."""
    rates: list[float] = []
    p50s: list[float] = []
    p99s: list[float] = []
    with cluster("bench-watch", "--only", "apiserver") as made:
        target = Target(made)
        for number in range(ROUNDS):
            spent, own = cpu(target.pid), time.process_time()
            gc.collect()
            gc.disable()
            rate, delays, whole = uvloop.run(one_round(target, number))
            gc.enable()
            spent, own = cpu(target.pid) - spent, time.process_time() - own
            rates.append(rate)
            p50s.append(percentile(delays, 0.5) * 1000)
            p99s.append(percentile(delays, 0.99) * 1000)
            told = " / ".join(f"{percentile(whole, share) * 1000:.1f}" for share in (0.5, 0.99))
            say(
                f"watch: round {number + 1} of {ROUNDS}: {rate:.0f} creates/s, delay p50 {p50s[-1]:.1f}, p99 "
                f"{p99s[-1]:.1f} ms (from the request {told}); CPU: server {spent:.1f} s, generator {own:.1f} s"
            )
    value = f"{median(rates):,.0f}/s; {median(p50s):.1f} / {median(p99s):.1f} ms"
    what = f"creates by {CLIENTS} with {WATCHERS} watchers; delivery p50 / p99"
    return [Figure(what, value, "2,000/s; 1.5 / 8 ms", "1,052/s; 2.2 / 16.7 ms")]
