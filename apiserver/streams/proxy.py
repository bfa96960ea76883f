"""`proxy` of pods, services and nodes: an HTTP request passed on to what an object names.

Owns: finding the backend and which headers cross. `streams.http_relay` carries the request, `streams.upgrade_relay`
those that leave HTTP (WebSockets among them). Called by the REST door.
"""

from __future__ import annotations

import random
import re
import ssl
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec

from apiserver.auth.user import SYSTEM_API_SERVER
from apiserver.registry.context import ListOptions, RequestContext
from apiserver.registry.store import Registry
from apiserver.rest.request import Request
from apiserver.rest.responses import Header, send_bytes
from apiserver.streams.http_relay import Exchange, relay
from apiserver.streams.proxy_targets import (
    Backend,
    parse_name,
    plan_node,
    plan_pod,
    plan_service,
    rewrite_location,
    sub_path,
)
from apiserver.streams.targets import Kubelets, kubelet_address
from apiserver.streams.upgrade_relay import relay_upgrade

SERVICE_LABEL = "kubernetes.io/service-name"
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
# What proves who the client is stays here; what the relay says by itself is not repeated.
_REQUEST_DROPS = HOP_BY_HOP | {b"authorization", b"expect", b"x-forwarded-for", b"content-length"}
_PRIVATE_PREFIXES = (b"impersonate-", b"x-remote-")
_ANSWER_DROPS = HOP_BY_HOP | {b"date"}
_PROXIED = re.compile(rb"/api/v1/(?:namespaces/[^/?]+/(?:pods|services)|nodes)/[^/?]+/proxy(?:[/?]|$)")
_CORS_PREFIX = b"access-control-allow-"


def request_headers(headers: Iterable[Header], client: str, uri: str, scheme: str) -> list[Header]:
    """The client's headers as the backend gets them."""
    kept: list[Header] = []
    host, forwarded = b"", [client.encode()]
    for name, value in headers:
        if name == b"x-forwarded-for":
            forwarded.insert(0, value)
        if name == b"host":
            host = value
        if name not in _REQUEST_DROPS and not name.startswith(_PRIVATE_PREFIXES):
            kept.append((name, value))
    return [
        *kept,
        (b"x-forwarded-for", b", ".join(forwarded)),
        (b"x-forwarded-host", host),
        (b"x-forwarded-proto", scheme.encode()),
        (b"x-forwarded-uri", uri.encode("latin-1")),
    ]


def answer_headers(headers: Iterable[Header], hosts: Iterable[str], prefix: str) -> list[Header]:
    """The backend's headers as the client gets them."""
    kept: list[Header] = []
    for name, value in headers:
        name = name.lower()
        if name in _ANSWER_DROPS or name.startswith(_CORS_PREFIX):
            continue
        if name == b"location":
            value = rewrite_location(value.decode("latin-1"), hosts, prefix).encode("latin-1")
        kept.append((name, value))
    return kept


@cache
def _unverified() -> ssl.SSLContext:
    """Pods have certificates of their own making, if any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def passes_on(url: bytes) -> bool:
    """Whether a request's path leads through a proxy, so that its upgrade is the backend's to answer."""
    return _PROXIED.match(url) is not None


class Proxies:
    """Serves the three subresources."""

    def __init__(self, registry: Registry, kubelets: Kubelets) -> None:
        self._registry = registry
        self._kubelets = kubelets

    async def pods(self, request: Request) -> None:
        await self._kubelets.admit(request)
        name = parse_name(request.info.name, "pod")
        pod = await self._get("pods", request.namespace, name.name)
        await self._pass_on(request, plan_pod(name, pod))

    async def services(self, request: Request) -> None:
        await self._kubelets.admit(request)
        text = request.info.name
        name = parse_name(text, "service")
        service = await self._get("services", request.namespace, name.name)
        store = self._registry.resource("discovery.k8s.io", "v1", "endpointslices")
        options = ListOptions(label_selector=f"{SERVICE_LABEL}={name.name}")
        page = await store.list(RequestContext(SYSTEM_API_SERVER), request.namespace, options)
        slices = [msgspec.json.decode(raw) for raw in page.items]
        await self._pass_on(request, plan_service(name, text, service, slices, random.choice))

    async def nodes(self, request: Request) -> None:
        await self._kubelets.admit(request)
        name = parse_name(request.info.name, "node")
        address = kubelet_address(await self._get("nodes", "", name.name))
        if name.port in ("", address.rpartition(":")[2]):
            from apiserver.streams import node_endpoints  # gRPC must not be imported before a fork

            await node_endpoints.serve(request, sub_path(request.scope["raw_path"]), self._kubelets, address)
            return
        await self._pass_on(request, plan_node(name, address))

    async def _get(self, plural: str, namespace: str, name: str) -> Any:
        store = self._registry.resource("", "v1", plural)
        return msgspec.json.decode(await store.get(RequestContext(SYSTEM_API_SERVER), namespace, name))

    async def _pass_on(self, request: Request, backend: Backend) -> None:
        scope = request.scope
        raw_path: bytes = scope["raw_path"]
        path, query = sub_path(raw_path), scope["query_string"]
        suffix = "?" + query.decode("latin-1") if query else ""
        if not path and request.method in ("GET", "HEAD"):
            # Relative links of the page would miss the proxy without the slash.
            location = raw_path + b"/" + suffix.encode("latin-1")
            await send_bytes(request, 301, b"", content_type=b"", extra=((b"location", location),))
            return
        host, port = backend.address
        own = raw_path.decode("latin-1")
        prefix = own[: len(own) - len(path)]
        hosts = (f"{host}:{port}", host, request.header(b"host"))
        client = (scope.get("client") or ("",))[0]
        exchange = Exchange(
            host=host,
            port=port,
            tls=_unverified() if backend.scheme == "https" else None,
            target=(path or "/") + suffix,
            headers=request_headers(scope["headers"], client, own, scope["scheme"]),
            answer=lambda headers: answer_headers(headers, hosts, prefix),
        )
        tunnel = scope["state"].get("tunnel")
        if tunnel is not None:
            await relay_upgrade(request, exchange, tunnel, request.headers.get(b"upgrade", b""))
        else:
            await relay(request, exchange)
