"""A component's health endpoint: /healthz, /livez, /readyz, /metrics over plain HTTP on a Unix socket or address.

Owns the readiness checks and gauges of one process. Written on asyncio streams because it answers one short request
at a time; the API server has its own REST door and does not use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

REQUEST_TIMEOUT = 5.0


class HealthServer:
    """Readiness checks by name, and metrics in Prometheus' text format."""

    def __init__(self, address: str = "") -> None:
        """`address`: `unix:PATH`, `HOST:PORT`, or "" to serve nothing. Raises ValueError on a bad one."""
        self._address = address
        self._checks: dict[str, bool] = {}
        self._metrics: dict[str, float | Callable[[], float]] = {}
        self._server: asyncio.AbstractServer | None = None
        if address and not address.startswith("unix:") and not address.rpartition(":")[2].isdigit():
            raise ValueError(f"--healthz wants unix:PATH or HOST:PORT, got {address!r}")

    def ready(self, check: str, passed: bool = True) -> None:
        """Set a readiness check; /readyz passes when all do."""
        self._checks[check] = passed

    def metric(self, name: str, value: float | Callable[[], float]) -> None:
        """Set a gauge (labels may be part of the name), or a function that reads it when scraped."""
        self._metrics[name] = value

    @property
    def is_ready(self) -> bool:
        return all(self._checks.values())

    async def start(self) -> None:
        if self._address.startswith("unix:"):
            path = Path(self._address.removeprefix("unix:"))
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(path.stat().st_mode):
                    path.unlink()
            self._server = await asyncio.start_unix_server(self._serve, path)
            os.chmod(path, 0o600)
        elif self._address:
            host, _, port = self._address.rpartition(":")
            self._server = await asyncio.start_server(self._serve, host or "127.0.0.1", int(port))

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            if self._address.startswith("unix:"):
                Path(self._address.removeprefix("unix:")).unlink(missing_ok=True)

    def _answer(self, path: str) -> tuple[int, str]:
        if path in ("/healthz", "/livez"):
            return 200, "ok"
        if path == "/readyz":
            lines = [
                f"[{'+' if passed else '-'}]{name} {'ok' if passed else 'failed'}"
                for name, passed in self._checks.items()
            ]
            return (200, "ok") if self.is_ready else (500, "\n".join([*lines, "readyz check failed"]))
        if path == "/metrics":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            values: dict[str, float] = {"process_cpu_seconds_total": usage.ru_utime + usage.ru_stime}
            values |= {name: float(value() if callable(value) else value) for name, value in self._metrics.items()}
            return 200, "".join(f"{name} {value:g}\n" for name, value in values.items())
        return 404, "404 page not found"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            OSError, ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(REQUEST_TIMEOUT):
                request = await reader.readuntil(b"\r\n\r\n")
                path = request.split(b" ", 2)[1].decode("latin-1").partition("?")[0]
                code, body = self._answer(path)
                head = (
                    f"HTTP/1.1 {code} {'OK' if code == 200 else 'Error'}\r\nContent-Type: text/plain; charset=utf-8\r\n"
                )
                writer.write(f"{head}Content-Length: {len(body.encode())}\r\nConnection: close\r\n\r\n{body}".encode())
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
