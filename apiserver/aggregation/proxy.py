"""Requests of clients, passed on to the backend of their group and version.

Owns: which headers cross, under whose name, and what the client is told when the backend is away. The connection and
the framing are `streams.http_relay`'s and `streams.upgrade_relay`'s. Called by the REST door after authorization.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from apiserver.aggregation.backend import Locator
from apiserver.aggregation.identity import FrontProxy, user_headers
from apiserver.aggregation.model import ApiService
from apiserver.rest.request import Request
from apiserver.rest.responses import Header, PlainRefusal
from apiserver.streams.http_relay import Exchange, relay
from apiserver.streams.proxy import answer_headers, request_headers
from apiserver.streams.upgrade_relay import Tunnel, relay_upgrade
from machinery.errors import ServiceUnavailable, Timeout

DOCUMENT_SECONDS = 60.0  # real: for discovery and OpenAPI
UNAVAILABLE = "service unavailable"
BEARER_PROTOCOL = b"base64url.bearer.authorization.k8s.io."
WEBSOCKET_PROTOCOL = b"sec-websocket-protocol"


def without_tokens(headers: Iterable[Header]) -> Iterable[Header]:
    """A token among the offered WebSocket protocols proves who the client is, and stays here."""
    for name, value in headers:
        if name != WEBSOCKET_PROTOCOL:
            yield name, value
            continue
        kept = [each.strip() for each in value.split(b",") if not each.strip().startswith(BEARER_PROTOCOL)]
        if kept:
            yield name, b", ".join(kept)


def refuse_redirects(code: int, headers: Iterable[Header]) -> None:
    """A backend must not send clients, and what they tell of themselves, elsewhere. Raises PlainRefusal."""
    if 300 <= code < 400 and any(name.lower() == b"location" for name, _ in headers):
        raise PlainRefusal("the backend attempted to redirect this request, which is not permitted", code=502)


class AggregationProxy:
    """Passes requests on."""

    def __init__(self, locator: Locator, front: FrontProxy) -> None:
        self._locator = locator
        self._front = front

    async def serve(self, request: Request, service: ApiService) -> None:
        """Raises StatusError before anything is answered, ClientGone, or OSError when the answer breaks off."""
        ref = service.service
        backends = self._locator.backends(ref) if ref is not None and service.available else []
        if ref is None or not backends:
            raise PlainRefusal(UNAVAILABLE, code=503)
        try:
            tls = self._front.context(service)
        except (ValueError, OSError) as error:
            raise PlainRefusal(str(error), code=500) from error
        host, port = random.choice(backends)
        scope = request.scope
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        client = (scope.get("client") or ("",))[0]
        exchange = Exchange(
            host=host,
            port=port,
            tls=tls,
            target=f"{path}?{query}" if query else path,
            headers=[
                *without_tokens(request_headers(scope["headers"], client, path, scope["scheme"])),
                *user_headers(request.user),
            ],
            answer=lambda headers: answer_headers(headers, (), ""),
            refuse=refuse_redirects,
            server_name=ref.host,
        )
        tunnel: Tunnel | None = scope["state"].get("tunnel")
        try:
            if tunnel is not None:
                await relay_upgrade(request, exchange, tunnel, request.headers.get(b"upgrade", b""))
                return
            # How long a request for resources may take is the door's business.
            async with asyncio.timeout(None if request.info.is_resource else DOCUMENT_SECONDS):
                await relay(request, exchange)
        except TimeoutError as error:
            raise Timeout("Timeout: request did not complete within the allotted timeout", details={}) from error
        except ServiceUnavailable as error:
            raise PlainRefusal(error.message, code=503) from error
