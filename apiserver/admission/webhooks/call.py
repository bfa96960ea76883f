"""HTTPS calls to webhooks.

Owns connections (a few idle ones are kept), certificates and addresses: a URL, or a Service, whose endpoints are asked
directly because the API server need not be able to reach service addresses. Never judges what comes back. All waits
together are bounded by the webhook's timeout, in real seconds.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
import ssl
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import h11

from apiserver.registry.store import Registry

Obj = Mapping[str, Any]

MAX_ANSWER = 3 << 20
IDLE_PER_TARGET = 4
TARGETS = 64
CHUNK = 65536
SERVICE_LABEL = "kubernetes.io/service-name"


class CallError(Exception):
    """No answer; the text tells why."""


class Target(NamedTuple):
    """Where a webhook is. `names`: what its certificate must be for."""

    shown: str
    host: str
    port: int
    server_name: str
    path: str
    ca: str


def resolve(registry: Registry, client: Obj, seconds: float) -> Target:
    """The target of a webhook's clientConfig; the webhook is told how long it has. Raises CallError."""
    ca = str(client.get("caBundle") or "")
    service = client.get("service")
    if not service:
        parts = urlsplit(str(client.get("url") or ""))
        if not parts.hostname:
            raise CallError("webhook configuration must have either service or URL")
        path = f"{parts.path or '/'}?{parts.query + '&' if parts.query else ''}timeout={seconds:g}s"
        shown = f"{parts.scheme}://{parts.netloc}{path}"
        return Target(shown, parts.hostname, parts.port or 443, parts.hostname, path, ca)
    namespace, name = str(service.get("namespace") or ""), str(service.get("name") or "")
    port, path = int(service.get("port") or 443), str(service.get("path") or "/") + f"?timeout={seconds:g}s"
    server_name = f"{name}.{namespace}.svc"
    shown = f"https://{server_name}:{port}{path}"
    host, target_port = _endpoint(registry, namespace, name, port, shown)
    return Target(shown, host, target_port, server_name, path, ca)


def _endpoint(registry: Registry, namespace: str, name: str, port: int, shown: str) -> tuple[str, int]:
    entry = registry.resource("", "v1", "services").peek(namespace, name)
    if entry is None:
        raise CallError(f'Post "{shown}": service "{name}" not found')
    spec = entry.decoded().get("spec") or {}
    chosen = next((each for each in spec.get("ports") or () if each.get("port") == port), None)
    if chosen is None:
        raise CallError(f'Post "{shown}": no service port {port} found for service "{name}"')
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName")), port
    found = []
    for each in registry.resource("discovery.k8s.io", "v1", "endpointslices").entries(namespace):
        if each.labels.get(SERVICE_LABEL) != name:
            continue
        endpoint_slice = each.decoded()
        wanted = chosen.get("name") or ""
        ports = [p.get("port") for p in endpoint_slice.get("ports") or () if (p.get("name") or "") == wanted]
        for endpoint in endpoint_slice.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False and endpoint.get("addresses"):
                found += [(str(endpoint["addresses"][0]), int(number)) for number in ports if number]
    if not found:
        raise CallError(f'Post "{shown}": no endpoints available for service "{name}"')
    return random.choice(found)  # spreading load, no secret


@lru_cache(maxsize=64)
def _context(bundle: str) -> ssl.SSLContext:
    if not bundle:
        return ssl.create_default_context()
    return ssl.create_default_context(cadata=base64.b64decode(bundle).decode())


class _Connection:
    """One connection and the state of HTTP on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)
        self.answered = False

    async def post(self, host: str, path: str, body: bytes) -> tuple[int, bytes]:
        self.answered = False
        headers = [
            ("host", host),
            ("content-type", "application/json"),
            ("accept", "application/json"),
            ("user-agent", "kube-apiserver-admission"),
            ("content-length", str(len(body))),
        ]
        request = h11.Request(method="POST", target=path, headers=headers)
        for part in (request, h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(self._http.send(part) or b"")
        await self._writer.drain()
        status, answer = 0, bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = await self._reader.read(CHUNK)
                self.answered = self.answered or bool(data)
                self._http.receive_data(data)
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                answer += event.data
                if len(answer) > MAX_ANSWER:
                    raise CallError(f"response is longer than {MAX_ANSWER} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return status, bytes(answer)
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("EOF")

    def reusable(self) -> bool:
        """May another request be sent on it?"""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return not self._reader.at_eof()
        return False

    def close(self) -> None:
        self._writer.close()


class Caller:
    """Posts reviews."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._idle: OrderedDict[tuple[str, int, str, str], list[_Connection]] = OrderedDict()
        """The targets that were asked last; of those that no configuration names any more nothing is kept for ever."""

    async def post(self, client: Obj, body: bytes, seconds: float) -> bytes:
        """The body of the answer. Raises CallError."""
        target = resolve(self._registry, client, seconds)
        shown = f'Post "{target.shown}"'
        try:
            async with asyncio.timeout(seconds):
                status, answer = await self._exchange(target, body)
        except TimeoutError:
            raise CallError(f"{shown}: context deadline exceeded") from None
        except ssl.SSLCertVerificationError as error:
            raise CallError(f"{shown}: tls: failed to verify certificate: x509: {error.verify_message}") from error
        except ConnectionRefusedError:
            where = f"{target.host}:{target.port}"
            raise CallError(f"{shown}: dial tcp {where}: connect: connection refused") from None
        except (OSError, ssl.SSLError, h11.ProtocolError, binascii.Error, ValueError) as error:
            raise CallError(f"{shown}: {error}") from error
        if status != 200:
            text = answer[:256].decode("utf-8", "replace").strip()
            raise CallError(f"{shown}: the server answered with status code {status}: {text}")
        return answer

    async def _exchange(self, target: Target, body: bytes) -> tuple[int, bytes]:
        key = (target.host, target.port, target.server_name, target.ca)
        idle = self._known(key)
        while True:
            reused = bool(idle)
            connection = idle.pop() if reused else await self._connect(target)
            try:
                result = await connection.post(target.server_name, target.path, body)
            except (OSError, h11.ProtocolError):
                connection.close()
                if reused and not connection.answered:
                    continue  # the webhook has closed an idle connection, as it may
                raise
            except BaseException:
                connection.close()
                raise
            if self._idle.get(key) is idle and len(idle) < IDLE_PER_TARGET and connection.reusable():
                idle.append(connection)
            else:
                connection.close()
            return result

    def _known(self, key: tuple[str, int, str, str]) -> list[_Connection]:
        idle = self._idle.setdefault(key, [])
        self._idle.move_to_end(key)
        if len(self._idle) > TARGETS:
            _, old = self._idle.popitem(last=False)
            while old:
                old.pop().close()
        return idle

    async def _connect(self, target: Target) -> _Connection:
        reader, writer = await asyncio.open_connection(
            target.host, target.port, ssl=_context(target.ca), server_hostname=target.server_name
        )
        return _Connection(reader, writer)
