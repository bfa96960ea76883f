"""/openapi/v2: one document of everything served, as JSON or protobuf.

Owns: bringing together the pieces of built-in, custom and aggregated resources, and the two finished documents, kept
compressed. They are made when first asked for after a change, a group at a time, so that nobody waits long for the
loop. Called by the REST door.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from api import schema
from apiserver import openapi, openapi_gnostic, openapi_v2
from apiserver.aggregation.openapi_v3 import references
from apiserver.crd.catalog import Catalog
from apiserver.crd.resource import CustomResource
from apiserver.openapi_names import component_name

Node = Mapping[str, Any]
PATH, DEFINITION, PARAMETER = "paths", "definitions", "parameters"
LEVEL = 4  # of gzip: half the time of the usual 6, a tenth more bytes
HEAD: Mapping[str, Any] = {
    "swagger": "2.0",
    "info": {"title": "Kubernetes", "version": f"v{schema.KUBERNETES_VERSION}"},
    "securityDefinitions": {
        "BearerToken": {
            "description": "Bearer Token authentication",
            "type": "apiKey",
            "name": "authorization",
            "in": "header",
        }
    },
    "security": [{"BearerToken": []}],
}


class Piece(NamedTuple):
    """One entry of the document."""

    part: str
    name: str
    node: Node


@dataclass(frozen=True)
class Remote:
    """The document of an aggregated server, and the path of the group version that it answers for. `tag`: its hash."""

    path: str
    tag: str
    document: bytes  # gzipped JSON


class Finished(NamedTuple):
    """A document ready to be sent."""

    etag: bytes
    zipped: bytes


Remotes = Callable[[], Awaitable[list[Remote]]]


class Swagger:
    """The documents of one API server."""

    def __init__(self, catalog: Catalog, remotes: Remotes) -> None:
        self._catalog = catalog
        self._remotes = remotes
        self._made: dict[bool, tuple[object, Finished]] = {}
        self._making = asyncio.Lock()

    async def document(self, *, binary: bool) -> Finished:
        """The document as JSON, or as protobuf."""
        async with self._making:
            remotes = await self._remotes()
            of = (self._catalog.custom, tuple((each.path, each.tag) for each in remotes))
            kept = self._made.get(binary)
            if kept is None or kept[0] != of:
                body = await _binary(self._pieces(remotes)) if binary else await _json(self._pieces(remotes))
                zipped = await asyncio.to_thread(gzip.compress, body, LEVEL, mtime=0)
                etag = b'"%b"' % hashlib.sha512(body).hexdigest().upper().encode()
                kept = self._made[binary] = (of, Finished(etag, zipped))
            return kept[1]

    async def _pieces(self, remotes: list[Remote]) -> AsyncIterator[Piece]:
        """Each path and definition once."""
        seen: set[tuple[str, str]] = set()
        custom = self._catalog.custom
        kinds = {component_name(resource, resource.kind): resource for resource in custom}
        lists = {component_name(resource, resource.list_kind): resource for resource in custom}
        elsewhere = tuple(f"{each.path}/" for each in remotes)
        for name in sorted(self._catalog.openapi.index):
            await asyncio.sleep(0)
            whole = msgspec.json.decode(openapi_of(self._catalog, name))
            for piece in _of_document(whole, kinds, lists):
                told = (piece.part, piece.name)
                if told not in seen and not (piece.part == PATH and piece.name.startswith(elsewhere)):
                    seen.add(told)
                    yield piece
        for remote in remotes:
            await asyncio.sleep(0)
            for piece in _of_remote(remote):
                if (piece.part, piece.name) not in seen:
                    seen.add((piece.part, piece.name))
                    yield piece


def openapi_of(catalog: Catalog, name: str) -> bytes:
    """A v3 document, not kept: they are all needed once."""
    return openapi.make(name) if name in openapi.index() else catalog.openapi.make(name)


def _of_document(
    whole: Node, kinds: Mapping[str, CustomResource], lists: Mapping[str, CustomResource]
) -> Iterator[Piece]:
    for path, item in whole["paths"].items():
        yield Piece(PATH, path, openapi_v2.path_item(item))
        for key, parameter in openapi_v2.parameters(item):
            yield Piece(PARAMETER, key, parameter)
    for name, node in whole["components"]["schemas"].items():
        if name in kinds:
            yield Piece(DEFINITION, name, openapi_v2.custom_definition(kinds[name]))
        elif name in lists:
            yield Piece(DEFINITION, name, openapi_v2.custom_list(lists[name]))
        else:
            yield Piece(DEFINITION, name, openapi_v2.definition(name, node))


def _of_remote(remote: Remote) -> Iterator[Piece]:
    """The paths of a backend's group version, and the definitions that they lead to."""
    whole = msgspec.json.decode(gzip.decompress(remote.document))
    definitions, shared = whole.get("definitions") or {}, whole.get("parameters") or {}
    waiting: list[str] = []
    for path, item in (whole.get("paths") or {}).items():
        if path == remote.path or path.startswith(f"{remote.path}/"):
            yield Piece(PATH, path, item)
            waiting += references(item)
    done: set[str] = set()
    while waiting:
        reference = waiting.pop()
        if reference in done:
            continue
        done.add(reference)
        _, part, name = reference.split("/", 2) if reference.count("/") >= 2 else ("", "", "")
        found = {"definitions": definitions, "parameters": shared}.get(part, {}).get(name)
        if isinstance(found, dict):
            yield Piece(part, name, found)
            waiting += references(found)


async def _json(pieces: AsyncIterator[Piece]) -> bytes:
    parts: dict[str, list[bytes]] = {PATH: [], DEFINITION: [], PARAMETER: []}
    async for piece in pieces:
        parts[piece.part].append(msgspec.json.encode(piece.name) + b":" + msgspec.json.encode(piece.node))
    listed = [b'"%b":{%b}' % (name.encode(), b",".join(sorted(entries))) for name, entries in parts.items()]
    return b",".join((msgspec.json.encode(HEAD)[:-1], *listed)) + b"}"


async def _binary(pieces: AsyncIterator[Piece]) -> bytes:
    parts: dict[str, dict[str, bytes]] = {PATH: {}, DEFINITION: {}, PARAMETER: {}}
    encoders = {
        PATH: openapi_gnostic.path,
        DEFINITION: openapi_gnostic.definition,
        PARAMETER: openapi_gnostic.shared_parameter,
    }
    async for piece in pieces:
        parts[piece.part][piece.name] = encoders[piece.part](piece.name, piece.node)
    listed = {part: [made[name] for name in sorted(made)] for part, made in parts.items()}
    return openapi_gnostic.document(HEAD, listed[PATH], listed[DEFINITION], listed[PARAMETER])
