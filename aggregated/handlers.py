"""The order in which a request to an aggregated API server is judged: health, who, what, may they.

Owns: that order, and the documents' paths. A server derives from `Handlers` and answers for its resources.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from aggregated import documents
from aggregated.access import Access
from aggregated.door import Asked, Told
from machinery.errors import MethodNotAllowed, NotFound

Document = dict[str, Any]
Query = Mapping[str, list[str]]
Documents = Mapping[str, Callable[[], Document | bytes]]
ALWAYS_ALLOWED = ("/healthz", "/livez", "/readyz")
TEXT = "text/plain; charset=utf-8"


class Handlers(abc.ABC):
    """Answers requests. Raises StatusError."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @property
    @abc.abstractmethod
    def unready(self) -> str:
        """The name of the check that /readyz fails, or ""."""

    @abc.abstractmethod
    def documents(self) -> Documents:
        """By path: discovery and OpenAPI."""

    @abc.abstractmethod
    def aggregated_discovery(self) -> Document:
        """/apis as apidiscovery.k8s.io/v2."""

    @abc.abstractmethod
    def attributes(self, method: str, path: str, query: Query) -> Mapping[str, str] | None:
        """What a path of a resource means to authorization; None for a path of anything else."""

    @abc.abstractmethod
    async def answer(self, asked: Asked, attributes: Mapping[str, str], query: Query) -> Told:
        """The answer to a GET of a resource by one who may."""

    async def __call__(self, asked: Asked) -> Told:
        parts = urlsplit(asked.target)
        path = parts.path.rstrip("/") or "/"
        if path in ALWAYS_ALLOWED:
            return self._health(path)
        user = await self._access.authenticate(asked)
        query = parse_qs(parts.query, keep_blank_values=True)
        attributes = self.attributes(asked.method, path, query)
        if attributes is None:
            await self._access.authorize(user, {}, path)
            return self._document(asked, path)
        await self._access.authorize(user, attributes)
        if attributes["verb"] not in ("get", "list"):
            raise MethodNotAllowed
        return await self.answer(asked, attributes, query)

    def _health(self, path: str) -> Told:
        failing = self.unready if path == "/readyz" else ""
        if failing:
            return Told(500, f"[-]{failing} failed: reason withheld\nreadyz check failed\n".encode(), TEXT)
        return Told(200, b"ok", TEXT)

    def _document(self, asked: Asked, path: str) -> Told:
        found = self.documents().get(path)
        if found is None:
            raise NotFound.path()
        if asked.method not in ("GET", "HEAD"):
            raise MethodNotAllowed
        if path == "/apis" and "as=APIGroupDiscoveryList" in asked.header(b"accept"):
            return Told(200, msgspec.json.encode(self.aggregated_discovery()), documents.DISCOVERY_TYPE)
        body = found()
        return Told(200, body if isinstance(body, bytes) else msgspec.json.encode(body))


def verb_of(method: str, *, single: bool, watch: bool) -> str:
    """The verb of a request, as authorization knows it."""
    if method in ("GET", "HEAD"):
        return "get" if single else "watch" if watch else "list"
    named = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(method, method.lower())
    return "deletecollection" if named == "delete" and not single else named


def watches(query: Query) -> bool:
    return query.get("watch", [""])[0] in ("1", "true")
