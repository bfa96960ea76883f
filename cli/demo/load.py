"""Load: clients that ask for a URL one request after the other, each on a connection of its own, and count.

Owns its threads; `stop` ends them. A connection per request lets the Service choose a pod each time.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

TIMEOUT = 10.0
RECENT = 5.0
"""Seconds over which rate and latency are told."""


@dataclass(frozen=True)
class Rates:
    """`per_second`: answers; `median`: seconds of one, 0 when there was none; `pods`: who answered."""

    per_second: float
    median: float
    pods: int

    def __str__(self) -> str:
        return f"{self.per_second:.0f} requests/s from {self.pods} pods, median {self.median * 1000:.0f} ms"


def ask(host: str, port: int, path: str, timeout: float = TIMEOUT) -> str:
    """The body of one answer. Raises OSError, also for an answer that is no success."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace").strip()
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"status {answer.status}")
    return body


class Load:
    """`clients` threads; each pauses `pause` seconds between requests."""

    def __init__(self, request: Callable[[], str], clients: int, pause: float) -> None:
        self._request = request
        self._pause = pause
        self._ends = threading.Event()
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, float, str]] = deque()
        self._began = self._ended = 0.0
        self.answered = 0
        self.failed = 0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def start(self) -> None:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends all clients; waits for their last answers. May be called again."""
        self._ended = self._ended or time.monotonic()
        self._ends.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(TIMEOUT)

    def rates(self) -> Rates:
        """Of the last seconds (before `stop`)."""
        now = self._ended or time.monotonic()
        span = max(0.1, min(RECENT, now - self._began))
        with self._lock:
            self._forget(now)
            taken = sorted(each[1] for each in self._recent)
            pods = len({each[2] for each in self._recent})
        return Rates(len(taken) / span, taken[len(taken) // 2] if taken else 0.0, pods)

    def _run(self) -> None:
        while not self._ends.is_set():
            began = time.monotonic()
            try:
                answer = self._request()
            except OSError:
                with self._lock:
                    self.failed += 1
            else:
                ended = time.monotonic()
                with self._lock:
                    self.answered += 1
                    self._recent.append((ended, ended - began, answer))
                    self._forget(ended)
            self._ends.wait(self._pause)

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0][0] < now - RECENT:
            self._recent.popleft()
