"""The HTTP side of a replay: it sends what a step says and hides nothing."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

USER_AGENT = "golden/1.0"
"""The server derives the field manager `golden` from it."""
REQUEST_TIMEOUT = 60.0
Headers = Mapping[str, str]


class Client:
    """Keeps one connection alive for our own requests; others get one each."""

    def __init__(self, server: str, ca: str, token: str) -> None:
        url = urllib.parse.urlsplit(server)
        self.host = url.netloc
        self.token = token
        self.context = ssl.create_default_context(cafile=ca)
        self._kept: http.client.HTTPSConnection | None = None

    def connect(self, timeout: float = REQUEST_TIMEOUT) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.host, timeout=timeout, context=self.context)

    def close(self) -> None:
        """Hang up."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def headers(self, extra: Headers | None, auth: str | None) -> dict[str, str]:
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
        if auth is None and self.token:
            headers["Authorization"] = "Bearer " + self.token
        elif auth and auth != "none":
            headers["Authorization"] = auth
        headers.update(extra or {})
        return headers

    def request(
        self, method: str, path: str, headers: Headers | None = None, body: bytes | None = None, auth: str | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers, body. auth: None = ours, "none" = anonymous, else a header value."""
        attempt = 0
        while True:
            attempt += 1
            conn = None if auth else self._kept
            fresh = conn is None
            conn = conn or self.connect()
            try:
                conn.request(method, path, body=body, headers=self.headers(headers, auth))
                response = conn.getresponse()
                data = response.read()
            except (http.client.HTTPException, OSError):
                conn.close()
                self._kept = None
                if fresh or attempt == 2:
                    raise
                continue
            if auth or response.will_close:
                conn.close()
                self._kept = self._kept if auth else None
            else:
                self._kept = conn
            return response.status, response.headers, data

    def json(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> tuple[int, Any]:
        """Status and decoded body of a request of ours."""
        data = None if body is None else json.dumps(body).encode()
        status, _, raw = self.request(method, path, {"Content-Type": content_type} if data else None, data)
        try:
            return status, json.loads(raw)
        except ValueError:
            return status, None


class Watch(threading.Thread):
    """Collects watch events until `collect` of them, a bookmark (until_bookmark), the end, or the timeout."""

    def __init__(
        self,
        client: Client,
        path: str,
        headers: Headers,
        collect: int | None,
        until_bookmark: bool | None,
        timeout: float,
    ) -> None:
        super().__init__(daemon=True)
        self.client, self.path, self.extra = client, path, headers
        self.collect, self.until_bookmark, self.timeout = collect, until_bookmark, timeout
        self.status: int | None = None
        self.headers: http.client.HTTPMessage = http.client.HTTPMessage()
        self.body = b""
        self.events: list[Any] = []
        self.opened = threading.Event()

    def run(self) -> None:
        conn = self.client.connect(timeout=self.timeout)
        try:
            conn.request("GET", self.path, headers=self.client.headers(self.extra, None))
            response = conn.getresponse()
            self.status, self.headers = response.status, response.headers
            self.opened.set()
            if response.status != 200:
                self.body = response.read()
                return
            deadline = time.monotonic() + self.timeout
            while time.monotonic() < deadline:
                line = response.readline()
                if not line:
                    return
                if not line.strip():
                    continue
                event = json.loads(line)
                self.events.append(event)
                if self.until_bookmark and event.get("type") == "BOOKMARK":
                    return
                if self.collect and len(self.events) >= self.collect:
                    return
        except OSError:
            pass  # the timeout: what came so far is the answer
        finally:
            self.opened.set()
            conn.close()
