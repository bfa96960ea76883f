"""Clients over REST, plain and blocking, each in a thread: writers with optimistic concurrency, and watchers."""

from __future__ import annotations

import http.client
import json
import random
import ssl
import threading
import time
from typing import Any

from tests.robustness.history import Event, History, Operation, Watch

COLLECTION = "/api/v1/namespaces/default/configmaps"
PREFIX = "r-"
TIMEOUT = 10.0


class Rest:
    """One keep-alive connection; reconnects when it breaks."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port = port
        self._context = context
        self._connection: http.client.HTTPSConnection | None = None

    def open(self) -> http.client.HTTPSConnection:
        """A new connection, for a stream of its own."""
        return http.client.HTTPSConnection("127.0.0.1", self._port, timeout=TIMEOUT, context=self._context)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """(code, decoded body). OSError means: nobody knows whether it happened."""
        if self._connection is None:
            self._connection = self.open()
        try:
            self._connection.request(method, path, json.dumps(body) if body is not None else None,
                                     {"Content-Type": "application/json"})  # fmt: skip
            response = self._connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._connection = None
            raise OSError(str(error)) from error
        return response.status, json.loads(raw)


class Writer(threading.Thread):
    """Creates, updates (with the resourceVersion it saw last) and deletes its own few keys until told to stop."""

    def __init__(self, number: int, rest: Rest, history: History, stop: threading.Event, seed: int) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self._number = number
        self._rest = rest
        self._history = history
        self._stopping = stop
        self._random = random.Random(seed * 1000 + number)
        self._known: dict[str, int | None] = {}  # key → last revision seen, None: ask first
        self._count = 0

    def run(self) -> None:
        while not self._stopping.is_set():
            key = f"{PREFIX}{self._number}-{self._random.randrange(5)}"
            try:
                self._once(key)
            except OSError:
                self._known[key] = None
                time.sleep(0.02)
        self._rest.close()

    def _once(self, key: str) -> None:
        revision = self._known.get(key, 0)
        if revision is None:
            code, body = self._rest.call("GET", f"{COLLECTION}/{key}")
            if code not in (200, 404):
                time.sleep(0.02)
                return
            revision = self._known[key] = int(body["metadata"]["resourceVersion"]) if code == 200 else 0
        self._count += 1
        value = f"{self._number}-{self._count}"
        if not revision:
            self._write("create", key, value, "POST", COLLECTION, self._body(key, value))
        elif self._random.random() < 0.2:
            options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"resourceVersion": str(revision)}}
            self._write("delete", key, value, "DELETE", f"{COLLECTION}/{key}", options)
        else:
            self._write("update", key, value, "PUT", f"{COLLECTION}/{key}", self._body(key, value, revision))

    @staticmethod
    def _body(key: str, value: str, revision: int = 0) -> dict[str, Any]:
        metadata = {"name": key, **({"resourceVersion": str(revision)} if revision else {})}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}

    def _write(self, kind: str, key: str, value: str, method: str, path: str, body: Any) -> None:
        self._known[key] = None
        try:
            code, answer = self._rest.call(method, path, body)
        except OSError:
            self._history.record(Operation(kind, key, value, None))
            raise
        if code in (200, 201):
            metadata = answer.get("metadata") or {}
            # A delete that took effect at once answers with a Status; its revision is only told by watches.
            last = max((each.revision or 0 for each in self._history.operations if each.key == key), default=0)
            revision = int(metadata.get("resourceVersion") or 0) or last
            self._history.record(Operation(kind, key, value, revision))
            self._known[key] = 0 if kind == "delete" else revision
        elif code in (404, 409, 422):
            self._history.record(Operation(kind, key, value, None, failed=True))
        else:  # 5xx: the server does not know either
            self._history.record(Operation(kind, key, value, None))
            time.sleep(0.02)


class Watcher(threading.Thread):
    """Watches from a revision; when the stream ends it resumes after the last event it saw."""

    def __init__(self, number: int, rest: Rest, history: History, start: int, stop: threading.Event) -> None:
        super().__init__(name=f"watcher-{number}", daemon=True)
        self._rest = rest
        self._stopping = stop
        self.record = Watch(self.name, start)
        self.revision = start
        history.watches.append(self.record)

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._stream()
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.02)
            self.record.resumed += 1

    def _stream(self) -> None:
        connection = self._rest.open()
        response = None
        try:
            connection.request("GET", f"{COLLECTION}?watch=1&allowWatchBookmarks=true&resourceVersion={self.revision}")
            response = connection.getresponse()
            if response.status != 200:
                time.sleep(0.02)
                return
            connection.sock.settimeout(0.5) if connection.sock else None
            buffer = b""
            while not self._stopping.is_set():
                try:
                    chunk = response.read1(65536)
                except TimeoutError:
                    continue
                if not chunk:
                    return
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    self._tell(json.loads(line))
        finally:
            connection.close()
            if response is not None:
                response.close()

    def _tell(self, event: dict[str, Any]) -> None:
        kind, obj = event["type"], event["object"]
        if kind == "ERROR":
            raise ValueError(obj)
        metadata = obj["metadata"]
        self.revision = int(metadata["resourceVersion"])
        if kind != "BOOKMARK" and metadata["name"].startswith(PREFIX):
            value = (obj.get("data") or {}).get("value", "")
            self.record.events.append(Event(kind, metadata["name"], value, self.revision))
