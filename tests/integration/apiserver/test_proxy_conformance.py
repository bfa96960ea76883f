"""sig-network: what upstream asks of the proxies of pods and services, with a backend that says what it heard."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.harness.apiserver import RestClient, RunningApiServer
from tests.integration.apiserver.test_proxy import PODS, own_address, site

__all__ = ["site"]  # a fixture

SERVICES = "/api/v1/namespaces/default/services"
VALID = "[sig-network] Proxy version v1 A set of valid responses are returned for both pod and service "
METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]


async def say_what_was_heard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As agnhost's porter: the method and path of every request, in JSON."""
    method, path, _ = (await reader.readuntil(b"\r\n")).decode().split(" ")
    await reader.readuntil(b"\r\n\r\n")
    body = b"" if method == "HEAD" else json.dumps({"method": method, "path": path}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


@dataclass
class Backends:
    rest: RestClient
    plain: int
    secure: int


@pytest.fixture
async def backends(site: RunningApiServer) -> AsyncIterator[Backends]:
    """A plain and a TLS server behind the pod `web` and the Service `web`, with named ports 80 and 443."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(site.pki.serving.cert, site.pki.serving.key)
    servers = [
        await asyncio.start_server(say_what_was_heard, "0.0.0.0", 0),
        await asyncio.start_server(say_what_was_heard, "0.0.0.0", 0, ssl=tls),
    ]
    plain, secure = (server.sockets[0].getsockname()[1] for server in servers)
    rest = site.rest()
    ports = [{"name": "portname1", "port": 80}, {"name": "tlsportname1", "port": 443}]
    await rest.post(SERVICES, {"metadata": {"name": "web"}, "spec": {"ports": ports}})
    made = await rest.post(
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        {
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [own_address()], "conditions": {"ready": True}}],
            "ports": [{"name": "portname1", "port": plain}, {"name": "tlsportname1", "port": secure}],
        },
    )
    assert made.status == 201, made.body
    try:
        yield Backends(rest, plain, secure)
    finally:
        for server in servers:
            server.close()


@pytest.mark.conformance(VALID + "ProxyWithPath [Conformance]")
@pytest.mark.parametrize("method", METHODS)
async def test_every_method_with_a_path(backends: Backends, method: str) -> None:
    for base in (f"{PODS}/web:{backends.plain}", f"{SERVICES}/web:portname1"):
        answer = await backends.rest.request(method, f"{base}/proxy/some/path/with/{method}")
        assert answer.status == 200, answer.body
        if method != "HEAD":
            assert answer.json == {"method": method, "path": f"/some/path/with/{method}"}


@pytest.mark.conformance(VALID + "Proxy [Conformance]")
@pytest.mark.parametrize("method", METHODS)
async def test_every_method_without_a_path(backends: Backends, method: str) -> None:
    for base in (f"{PODS}/web:{backends.plain}", f"{SERVICES}/web:portname1"):
        path = f"{base}/proxy?method={method}"
        answer = await backends.rest.request(method, path)
        if method in ("GET", "HEAD"):
            assert (answer.status, answer.header("location")) == (301, f"{base}/proxy/?method={method}")
            answer = await backends.rest.request(method, answer.header("location"))
        assert answer.status == 200, answer.body
        if method != "HEAD":
            assert answer.json == {"method": method, "path": f"/?method={method}"}


@pytest.mark.conformance("[sig-network] Proxy version v1 should proxy through a service and a pod [Conformance]")
async def test_names_of_ports_and_schemes(backends: Backends) -> None:
    plain, secure = backends.plain, backends.secure
    leads = [
        *(f"{SERVICES}/{name}" for name in ("web:portname1", "web:80", "http:web:portname1", "http:web:80")),
        *(f"{SERVICES}/https:web:{port}" for port in ("tlsportname1", "443")),
        *(f"{PODS}/{name}" for name in (f"web:{plain}", f"http:web:{plain}", f"https:web:{secure}")),
    ]
    for base in leads:
        answer = await backends.rest.get(f"{base}/proxy/x")
        assert (answer.status, answer.json) == (200, {"method": "GET", "path": "/x"}), base
