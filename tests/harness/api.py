"""A plain synchronous REST client for tests that look at a cluster from outside: JSON in, JSON out, errors as Status.

    api = Api(home / "kubeconfig")
    pods = api.of("v1", "pods", "default")
    pods.create({...}); pods.get("web"); pods.patch("web", {...}, subresource="status")
    with pods.watch(resource_version=rv) as events:
        first = next(events)

It hides nothing: paths, queries and content types are the caller's.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

TIMEOUT = 60.0
Obj = dict[str, Any]
Objs = list[Obj]
Names = list[str]

PATCHES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}


class ApiError(Exception):
    """An answer that is no success; `status` is the Status object."""

    def __init__(self, code: int, status: Obj) -> None:
        super().__init__(f"{code} {status.get('reason')}: {status.get('message')}")
        self.code = code
        self.status = status

    @property
    def reason(self) -> str:
        return str(self.status.get("reason", ""))

    @property
    def message(self) -> str:
        return str(self.status.get("message", ""))


@dataclass(frozen=True)
class Reply:
    """One answer, read whole."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    """A cluster by its kubeconfig's current context (client certificate)."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        context = next(each["context"] for each in config["contexts"] if each["name"] == config["current-context"])
        cluster = next(each["cluster"] for each in config["clusters"] if each["name"] == context["cluster"])
        user = next(each["user"] for each in config["users"] if each["name"] == context["user"])
        found = urlsplit(cluster["server"])
        self.host, self.port = str(found.hostname), int(found.port or 443)
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as pair:
            for part in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[part]))
            pair.flush()
            self._tls.load_cert_chain(pair.name)

    def _connect(self, timeout: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self._tls)

    def raw(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Any request; header names with underscores for dashes. Never raises for a status."""
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("content-type", "application/json")
        with contextlib.closing(self._connect(TIMEOUT)) as connection:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return Reply(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The decoded answer. Raises ApiError."""
        reply = self.raw(method, path, body, **headers)
        if reply.code >= 300:
            raise ApiError(reply.code, _status(reply))
        return reply.json

    def of(self, version: str, plural: str, namespace: str = "") -> Collection:
        """One kind, `version` as in apiVersion; without a namespace: cluster-scoped or of all namespaces."""
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        return Collection(self, f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}")

    @contextlib.contextmanager
    def stream(self, path: str, timeout: float) -> Iterator[Iterator[Obj]]:
        """Decoded lines of an answer that goes on; `timeout` seconds without one raise TimeoutError."""
        with contextlib.closing(self._connect(timeout)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            if answer.status >= 300:
                headers = {key.lower(): value for key, value in answer.getheaders()}
                raise ApiError(answer.status, _status(Reply(answer.status, headers, answer.read())))
            yield (json.loads(line) for line in iter(answer.readline, b""))


def _status(reply: Reply) -> Obj:
    try:
        found: Obj = json.loads(reply.body)
    except ValueError:
        return {"message": reply.body.decode(errors="replace")}
    return found


class Collection:
    """Verbs on one collection path."""

    def __init__(self, api: Api, path: str) -> None:
        self.api = api
        self.path = path

    def url(self, name: str = "", subresource: str = "", **query: Any) -> str:
        parts = "/".join(filter(None, (self.path, name, subresource)))
        return f"{parts}?{urlencode(query)}" if query else parts

    def create(self, obj: Obj, name: str = "", subresource: str = "", **query: Any) -> Obj:
        made: Obj = self.api.call("POST", self.url(name, subresource, **query), obj)
        return made

    def get(self, name: str, subresource: str = "", **query: Any) -> Obj:
        found: Obj = self.api.call("GET", self.url(name, subresource, **query))
        return found

    def list(self, **query: Any) -> Objs:
        found: Objs = self.page(**query)["items"]
        return found

    def page(self, **query: Any) -> Obj:
        """The List object."""
        found: Obj = self.api.call("GET", self.url(**query))
        return found

    def names(self, **query: Any) -> Names:
        return [each["metadata"]["name"] for each in self.list(**query)]

    def update(self, obj: Obj, subresource: str = "", **query: Any) -> Obj:
        made: Obj = self.api.call("PUT", self.url(obj["metadata"]["name"], subresource, **query), obj)
        return made

    def modify(self, name: str, change: Any, subresource: str = "") -> Obj:
        """Read, let `change(obj)` edit it, write; again after a conflict, as client-go's RetryOnConflict."""
        for _ in range(20):
            obj = self.get(name, subresource)
            change(obj)
            try:
                return self.update(obj, subresource)
            except ApiError as error:
                if error.reason != "Conflict":
                    raise
        raise AssertionError(f"{self.path}/{name}: conflicts without end")

    def patch(self, name: str, patch: Any, kind: str = "merge", subresource: str = "", **query: Any) -> Obj:
        """`kind`: merge, strategic, json or apply."""
        url = self.url(name, subresource, **query)
        made: Obj = self.api.call("PATCH", url, patch, content_type=PATCHES[kind])
        return made

    def delete(self, name: str, **options: Any) -> Obj:
        """`options` are fields of DeleteOptions."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **options}
        gone: Obj = self.api.call("DELETE", self.url(name), body)
        return gone

    def delete_all(self, options: Obj | None = None, **query: Any) -> Obj:
        """Delete the collection."""
        gone: Obj = self.api.call("DELETE", self.url(**query), options)
        return gone

    def exists(self, name: str) -> bool:
        reply = self.api.raw("GET", self.url(name))
        assert reply.code in (200, 404), reply.body
        return reply.code == 200

    @contextlib.contextmanager
    def watch(self, timeout: float = 30.0, **query: Any) -> Iterator[Iterator[Obj]]:
        """Events as they come; `timeout` seconds without one raise TimeoutError."""
        with self.api.stream(self.url(watch="true", **query), timeout) as events:
            yield events


def until(events: Iterator[Obj], kind: str, wanted: Any = None, limit: int = 500) -> Obj:
    """The object of the next `kind` event that is as `wanted`. Raises AssertionError when there is none."""
    seen = []
    for event, _ in zip(events, range(limit), strict=False):
        if event["type"] == kind and (wanted is None or wanted(event["object"])):
            found: Obj = event["object"]
            return found
        seen.append((event["type"], event["object"].get("metadata", {}).get("name")))
    raise AssertionError(f"no such {kind} event among {seen}")
