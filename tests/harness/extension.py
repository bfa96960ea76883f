"""A small extension API server in the test's process: flunders of wardle.example.com, over TLS, behind the aggregator.

    async with extension(pki, host) as wardle:
        ...register(rest, wardle)

It believes X-Remote-* headers only from the front proxy's certificate, as real ones do, and notes every request down.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from machinery.patch import apply_merge_patch
from machinery.tls import CertificateAuthority, KeyPair
from tests.harness.apiserver import DEADLINE, Answer, RestClient

GROUP, VERSION = "wardle.example.com", "v1alpha1"
BASE = f"/apis/{GROUP}/{VERSION}"
NAME = f"{VERSION}.{GROUP}"
API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
SERVICE = "sample-api"
_GVK = {"group": GROUP, "version": VERSION, "kind": "Flunder"}
VERBS = ["create", "delete", "get", "list", "patch", "watch"]
SCHEMA = "com.example.wardle.v1alpha1.Flunder"


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, list[str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return self.headers.get(name, [])


@dataclass
class Extension:
    """The server's state; tests may change it while it runs."""

    host: str
    port: int
    ca: bytes
    asked: list[Asked] = field(default_factory=list)
    flunders: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    aggregated: bool = True
    stamps: bool = False
    """Whether objects get a uid, a namespace and versions, as those of a real store do."""
    revision: int = 1
    history: list[dict[str, Any]] = field(default_factory=list)
    """What happened at revision 2, 3, …"""
    healthy: bool = True
    watchers: list[asyncio.Queue[dict[str, Any]]] = field(default_factory=list)
    openapi_v2_asked: int = 0
    openapi_v3: bool = True
    hangs: set[str] = field(default_factory=set)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def told(self, path: str) -> Asked:
        """The last request for a path."""
        return next(each for each in reversed(self.asked) if each.path.partition("?")[0] == path)

    # -- answers ------------------------------------------------------------------------------------------------------

    def answer(self, asked: Asked) -> tuple[int, Any]:
        path = asked.path.partition("?")[0]
        if not self.healthy:
            return 500, {"kind": "Status", "status": "Failure", "code": 500, "message": "ill"}
        match path:
            case "/apis" if self.aggregated and "as=APIGroupDiscoveryList" in asked.header("accept")[0]:
                return 200, self._aggregated_discovery()
            case "/apis":
                return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}
            case _ if path == BASE:
                return 200, self._resource_list()
            case "/openapi/v3" if self.openapi_v3:
                url = f"/openapi/v3{BASE}?hash=ABC"
                return 200, {"paths": {BASE[1:]: {"serverRelativeURL": url}}}
            case "/openapi/v2":
                self.openapi_v2_asked += 1
                return 200, self._swagger()
            case _ if path == f"/openapi/v3{BASE}":
                return 200, {"openapi": "3.0.0", "components": {"schemas": {SCHEMA: {"type": "object"}}}}
        if path.endswith("/flunders/moved"):
            return 302, {"location": "https://elsewhere.example/"}
        return self._flunder(asked, path)

    def _flunder(self, asked: Asked, path: str) -> tuple[int, Any]:
        if path == f"{BASE}/flunders":
            return 200, self._listed(None)
        parts = path.removeprefix(f"{BASE}/namespaces/").split("/")
        if len(parts) < 2 or parts[1] != "flunders":
            return 404, _status(404, "NotFound", path)
        namespace, name = parts[0], parts[2] if len(parts) > 2 else ""
        if asked.method == "POST":
            made = json.loads(asked.body)
            if self.stamps:
                made["metadata"] |= {"namespace": namespace, "uid": f"uid-of-{made['metadata']['name']}"}
            self.flunders[namespace, made["metadata"]["name"]] = made
            self._tell("ADDED", made)
            return 201, made
        if not name:
            return 200, self._listed(namespace)
        if (namespace, name) not in self.flunders:
            return 404, _status(404, "NotFound", f'flunders.{GROUP} "{name}" not found')
        if asked.method == "DELETE":
            self._tell("DELETED", self.flunders.pop((namespace, name)))
            return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        if asked.method == "PATCH":
            patch = json.loads(asked.body)
            patch["metadata"].pop("resourceVersion", None)
            self.flunders[namespace, name] = apply_merge_patch(self.flunders[namespace, name], patch)
            self._tell("MODIFIED", self.flunders[namespace, name])
        return 200, self.flunders[namespace, name]

    def _listed(self, namespace: str | None) -> dict[str, Any]:
        items = [obj for (found, _), obj in self.flunders.items() if namespace in (None, found)]
        meta = {"resourceVersion": str(self.revision)} if self.stamps else {}
        return {"kind": "FlunderList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": meta, "items": items}

    def _tell(self, type_: str, obj: dict[str, Any]) -> None:
        if self.stamps:
            self.revision += 1
            obj["metadata"]["resourceVersion"] = str(self.revision)
        event = {"type": type_, "object": copy.deepcopy(obj)}
        if self.stamps:
            self.history.append(event)
        for queue in self.watchers:
            queue.put_nowait(event)

    @staticmethod
    def _resource_list() -> dict[str, Any]:
        verbs = VERBS
        entry = {"name": "flunders", "singularName": "flunder", "namespaced": True, "kind": "Flunder", "verbs": verbs}
        status = {
            "name": "flunders/status",
            "singularName": "",
            "namespaced": True,
            "kind": "Flunder",
            "verbs": ["get"],
        }
        group_version = f"{GROUP}/{VERSION}"
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": group_version,
            "resources": [entry, status],
        }

    @staticmethod
    def _aggregated_discovery() -> dict[str, Any]:
        flunders = {"resource": "flunders", "responseKind": _GVK, "scope": "Namespaced", "verbs": VERBS}
        version = {"version": VERSION, "resources": [{**flunders, "singularResource": "flunder"}]}
        items = [{"metadata": {"name": GROUP}, "versions": [version]}]
        return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items}

    @staticmethod
    def _swagger() -> dict[str, Any]:
        reference = {"$ref": f"#/definitions/{SCHEMA}"}
        operation = {"responses": {"200": {"description": "OK", "schema": reference}}}
        schema = {
            "type": "object",
            "x-kubernetes-group-version-kind": [_GVK],
            "properties": {"spec": {"type": "object"}},
        }
        return {
            "swagger": "2.0",
            "paths": {f"{BASE}/namespaces/{{namespace}}/flunders": {"get": operation}, "/healthz": {"get": operation}},
            "definitions": {SCHEMA: schema, "unused": {"type": "object"}},
        }

    def cut(self) -> None:
        """Break off every connection that is open."""
        for writer in list(self.writers):
            writer.transport.abort()

    # -- wire ---------------------------------------------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = lines[0].split(" ")
            headers: dict[str, list[str]] = {}
            for line in filter(None, lines[1:]):
                key, _, value = line.partition(":")
                headers.setdefault(key.lower(), []).append(value.strip())
            body = await reader.readexactly(int(headers.get("content-length", ["0"])[0]))
            asked = Asked(method, path, headers, body)
            self.asked.append(asked)
            if path in self.hangs:
                await asyncio.Event().wait()
            elif "upgrade" in headers:
                await self._echo(reader, writer, headers)
            elif "watch=true" in path or "watch=1" in path:
                await self._watch(writer, path)
            else:
                code, document = self.answer(asked)
                await self._write(writer, code, document)
        self.writers.discard(writer)
        writer.close()

    async def _write(self, writer: asyncio.StreamWriter, code: int, document: Any) -> None:
        raw = json.dumps(document).encode()
        kind = "application/json"
        if document.get("kind") == "APIGroupDiscoveryList":
            kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        moved = f"location: {document['location']}\r\n" if code == 302 else ""
        head = (
            f"HTTP/1.1 {code} X\r\n{moved}content-type: {kind}\r\ncontent-length: {len(raw)}\r\nx-flunder: yes\r\n\r\n"
        )
        writer.write(head.encode() + raw)
        await writer.drain()

    async def _watch(self, writer: asyncio.StreamWriter, path: str) -> None:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        after = int(dict(parse_qsl(urlsplit(path).query)).get("resourceVersion", self.revision))
        for event in self.history[max(after - 1, 0) :]:
            queue.put_nowait(event)
        self.watchers.append(queue)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                line = json.dumps(await queue.get()).encode() + b"\n"
                writer.write(b"%x\r\n%b\r\n" % (len(line), line))
                await writer.drain()
        finally:
            self.watchers.remove(queue)

    async def _echo(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: Mapping[str, list[str]]
    ) -> None:
        if headers["upgrade"] == ["refused"]:
            await self._write(writer, 400, _status(400, "BadRequest", "no such protocol"))
            return
        upgrade = headers["upgrade"][0]
        head = f"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: {upgrade}\r\nx-echo: yes\r\n\r\n"
        writer.write(head.encode() + b"hello ")
        while data := await reader.read(4096):
            writer.write(data.upper())
            await writer.drain()


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    told = {"status": "Failure", "reason": reason, "code": code, "message": message}
    return {"kind": "Status", "apiVersion": "v1", **told}


@contextlib.asynccontextmanager
async def extension(
    authority: CertificateAuthority, front_proxy: KeyPair, host: str, namespace: str = "default"
) -> AsyncIterator[Extension]:
    """The server on one of this machine's addresses; its certificate is for the Service's name."""
    name = f"{SERVICE}.{namespace}.svc"
    pair = authority.issue_to(f"extension-{namespace}", name, (), [name], client=False, server=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.cert, pair.key)
    tls.load_verify_locations(front_proxy.ca)
    tls.verify_mode = ssl.CERT_REQUIRED
    made = Extension(host, 0, pair.ca.read_bytes())
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await made.serve(reader, writer)
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "0.0.0.0", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def register(rest: RestClient, made: Extension, namespace: str = "default", **spec: Any) -> None:
    """The Service, its endpoints and the APIService of the extension."""
    await create_service(rest, namespace)
    await create_slice(rest, made, namespace)
    await create_api_service(rest, made, namespace, **spec)


async def create_service(rest: RestClient, namespace: str = "default") -> None:
    ports = [{"port": 7443, "targetPort": 7443, "protocol": "TCP"}]
    service = {"metadata": {"name": SERVICE}, "spec": {"ports": ports}}
    _created(await rest.post(f"/api/v1/namespaces/{namespace}/services", service))


async def create_slice(rest: RestClient, made: Extension, namespace: str = "default") -> None:
    labels = {"kubernetes.io/service-name": SERVICE}
    body = {
        "metadata": {"name": f"{SERVICE}-1", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [made.host], "conditions": {"ready": True}}],
        "ports": [{"port": made.port, "protocol": "TCP"}],
    }
    _created(await rest.post(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", body))


async def create_api_service(rest: RestClient, made: Extension, namespace: str = "default", **spec: Any) -> None:
    body = {
        "metadata": {"name": NAME},
        "spec": {
            "service": {"namespace": namespace, "name": SERVICE, "port": 7443},
            "group": GROUP,
            "version": VERSION,
            "caBundle": base64.b64encode(made.ca).decode(),
            "groupPriorityMinimum": 2000,
            "versionPriority": 200,
            **spec,
        },
    }
    _created(await rest.post(API_SERVICES, {key: value for key, value in body.items() if value is not None}))


def _created(answer: Answer) -> None:
    assert answer.status == 201, answer.body


async def until_condition(rest: RestClient, reason: str, name: str = NAME) -> dict[str, Any]:
    """Until the Available condition has this reason; the condition."""
    async with asyncio.timeout(DEADLINE):
        while True:
            found = (await rest.get(f"{API_SERVICES}/{name}")).json
            for each in found.get("status", {}).get("conditions", ()):
                if each["reason"] == reason:
                    condition: dict[str, Any] = each
                    return condition
            await asyncio.sleep(0.01)
