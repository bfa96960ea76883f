"""Paths that are no resources: health, version, metrics, discovery, OpenAPI, token issuer.

Owns: the table of these paths. Called by the door after authorization; answers False for a path nobody knows.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from apiserver import discovery
from apiserver.auth.service_accounts import ServiceAccountTokens
from apiserver.crd.catalog import Catalog
from apiserver.metrics import RequestMetrics
from apiserver.rest.negotiation import not_acceptable, ranges, wants_aggregated_discovery
from apiserver.rest.request import Request
from apiserver.rest.responses import JSON_TYPE, PROTOBUF_TYPE, TEXT_TYPE, encode_json, send_bytes, send_not_modified
from machinery.errors import MethodNotAllowed, NotFound

if TYPE_CHECKING:
    from apiserver.openapi_swagger import Remote, Swagger

Check = Callable[[], str]  # "" = passed, else why not
_Handler = Callable[[Request], Awaitable[None]]
OPENAPI_V2_TYPE = b"application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
OPENAPI_V2_NAMES = (OPENAPI_V2_TYPE.decode(), "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
# Both documents may be cached for an hour: who verifies tokens need not ask each time.
ISSUER_CACHE = ((b"cache-control", b"public, max-age=3600"),)
METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


Remotes = Callable[[], Awaitable[list["Remote"]]]


async def nothing_remote() -> list[Remote]:
    """Where nothing is aggregated."""
    return []


def _wants_binary_swagger(accept: str) -> bool:
    """Whether protobuf is what the client likes best, under either spelling of its name. Raises NotAcceptable."""
    found = ranges(accept)
    for media in found:
        if media.media_type in OPENAPI_V2_NAMES:
            return True
        if media.media_type in ("application/json", "application/*", "*/*"):
            return False
    if found:
        raise not_acceptable()
    return False


class SystemHandlers:
    """Answers the server's own paths."""

    def __init__(
        self,
        metrics: RequestMetrics,
        checks: Mapping[str, Mapping[str, Check]],
        accounts: ServiceAccountTokens | None,
        catalog: Catalog | None = None,
        remotes: Remotes | None = None,
    ) -> None:
        """`checks`: for livez, readyz and healthz, the named checks of each. `catalog`: what is served here;
        `remotes`: OpenAPI v2 documents of what is served elsewhere.
        """
        self._swagger: Swagger | None = None
        self._remotes = remotes or nothing_remote
        self._catalog = catalog if catalog is not None else Catalog()
        self._metrics = metrics
        self._checks = checks
        self._accounts = accounts
        self._exact: dict[str, _Handler] = {
            "/version": self._version,
            "/metrics": self._metrics_text,
            "/api": self._discovery,
            "/apis": self._discovery,
            "/": self._index,
            "/.well-known/openid-configuration": self._issuer,
            "/openid/v1/jwks": self._keys,
        }

    async def serve(self, request: Request) -> bool:
        """Answer, or say that there is no such path."""
        path = request.info.path
        if len(path) > 1:
            path = path.rstrip("/")
        if request.method not in ("GET", "HEAD"):
            known = path in self._exact or path.startswith(("/api/", "/apis/", "/openapi/"))
            if known:
                raise MethodNotAllowed
            return False
        handler = self._exact.get(path)
        if handler is not None:
            await handler(request)
            return True
        if path.startswith(("/api/", "/apis/")):
            return await self._group(request, path)
        if path.startswith("/openapi/"):
            return await self._openapi(request, path)
        root, _, check = path[1:].partition("/")
        if root in self._checks:
            return await self._health(request, root, check)
        return False

    async def _health(self, request: Request, root: str, only: str) -> bool:
        checks = self._checks[root]
        excluded = set(request.query.get("exclude", ()))
        if only:
            if only not in checks:
                return False
            why = self._ask(root, only, checks[only])
            body = b"ok" if not why else f"internal server error: {why}".encode()
            await send_bytes(request, 500 if why else 200, body, content_type=TEXT_TYPE)
            return True
        lines, failed = [], False
        for name, check in checks.items():
            if name in excluded:
                lines.append(f"[+]{name} excluded: ok")
                continue
            why = self._ask(root, name, check)
            failed = failed or bool(why)
            # Reasons may tell secrets of the inside, so upstream withholds them here.
            lines.append(f"[-]{name} failed: reason withheld" if why else f"[+]{name} ok")
        verbose = "verbose" in request.query
        if failed:
            text = "\n".join([*lines, f"{root} check failed", ""])
        else:
            text = "\n".join([*lines, f"{root} check passed", ""]) if verbose else "ok"
        await send_bytes(request, 500 if failed else 200, text.encode(), content_type=TEXT_TYPE)
        return True

    def _ask(self, root: str, name: str, check: Check) -> str:
        why = check()
        self._metrics.checked(root, name, passed=not why)
        return why

    async def _version(self, request: Request) -> None:
        await self._json(request, discovery.version())

    async def _metrics_text(self, request: Request) -> None:
        await self._metrics.refresh()
        body = self._metrics.text().encode()
        await send_bytes(request, 200, body, content_type=METRICS_TYPE)

    async def _index(self, request: Request) -> None:
        known = [*self._exact, *self._catalog.discovery.paths(), *(f"/{root}" for root in self._checks)]
        await self._json(request, {"paths": sorted(path for path in known if path != "/")})

    async def _discovery(self, request: Request) -> None:
        aggregated = wants_aggregated_discovery(request.header(b"accept"))
        root = request.info.path.strip("/")
        if aggregated:
            body = self._catalog.discovery.aggregated(root)
            etag = b'"%b"' % hashlib.sha512(body).hexdigest().upper().encode()
            if request.headers.get(b"if-none-match") == etag:
                await send_not_modified(request, etag)
                return
            extra = ((b"etag", etag), (b"vary", b"Accept"))
            await send_bytes(request, 200, body, content_type=aggregated.encode(), extra=extra)
            return
        if root == "api":
            await self._json(request, discovery.api_versions(str(request.scope["server"][0])))
        else:
            await self._json(request, self._catalog.discovery.group_list())

    async def _group(self, request: Request, path: str) -> bool:
        parts = path[1:].split("/")
        found: dict[str, Any] | None = None
        if parts[0] == "api" and len(parts) == 2:
            found = self._catalog.discovery.resource_list("", parts[1])
            if found is None:
                raise NotFound.path()
        elif parts[0] == "apis" and len(parts) == 2:
            found = self._catalog.discovery.group(parts[1])
        elif parts[0] == "apis" and len(parts) == 3 and self._catalog.discovery.group(parts[1]) is not None:
            found = self._catalog.discovery.resource_list(parts[1], parts[2])
            if found is None:
                raise NotFound.path()
        if found is None:
            return False
        await self._json(request, found)
        return True

    async def _openapi(self, request: Request, path: str) -> bool:
        openapi = self._catalog.openapi
        if path == "/openapi/v3":
            found = {
                name: {"serverRelativeURL": f"/openapi/v3/{name}?hash={value}"} for name, value in openapi.index.items()
            }
            remote = {name: {"serverRelativeURL": url} for name, url in self._catalog.remote_openapi.items()}
            found = dict(sorted({**found, **remote}.items()))
            body = encode_json({"paths": found})
            await send_bytes(request, 200, body, content_type=TEXT_TYPE)
            return True
        if path == "/openapi/v2":
            await self._swagger_document(request)
            return True
        name = path.removeprefix("/openapi/v3/")
        if name == path:
            return False
        translated = self._catalog.translated_openapi.get(name)
        if translated is not None:
            await send_bytes(request, 200, gzip.decompress(translated))
            return True
        if name not in openapi.index:
            await send_bytes(request, 404, b"", content_type=b"")
            return True
        body = openapi.document(name)
        etag = b'"%b"' % openapi.index[name].encode()
        if request.headers.get(b"if-none-match") == etag:
            await send_not_modified(request, etag)
            return True
        await send_bytes(request, 200, body, extra=((b"etag", etag),))
        return True

    async def _swagger_document(self, request: Request) -> None:
        if self._swagger is None:
            from apiserver.openapi_swagger import Swagger  # few ever ask, and making it is most of the code

            self._swagger = Swagger(self._catalog, self._remotes)
        binary = _wants_binary_swagger(request.header(b"accept"))
        found = await self._swagger.document(binary=binary)
        if request.headers.get(b"if-none-match") == found.etag:
            await send_not_modified(request, found.etag)
            return
        kind = OPENAPI_V2_TYPE if binary else JSON_TYPE
        extra = [(b"etag", found.etag), (b"vary", b"Accept"), (b"vary", b"Accept-Encoding")]
        if b"gzip" in request.headers.get(b"accept-encoding", b""):
            extra.append((b"content-encoding", b"gzip"))
            await send_bytes(request, 200, found.zipped, content_type=kind, extra=extra)
            return
        await send_bytes(request, 200, gzip.decompress(found.zipped), content_type=kind, extra=extra)

    async def _issuer(self, request: Request) -> None:
        if self._accounts is None:
            raise NotFound.path()
        issuer = self._accounts.issuer
        document = {
            "issuer": issuer,
            "jwks_uri": f"{issuer}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self._accounts.key.algorithm],
        }
        body = encode_json(document)
        await send_bytes(request, 200, body, content_type=JSON_TYPE, extra=ISSUER_CACHE)

    async def _keys(self, request: Request) -> None:
        if self._accounts is None:
            raise NotFound.path()
        body = encode_json(self._accounts.key.jwks())
        await send_bytes(request, 200, body, content_type=b"application/jwk-set+json", extra=ISSUER_CACHE)

    @staticmethod
    async def _json(request: Request, document: Mapping[str, Any]) -> None:
        if request.only_protobuf and "kind" in document:
            from machinery import protobuf

            body = protobuf.encode({**document, "apiVersion": "" if document["kind"] == "APIResourceList" else "v1"})
            await send_bytes(request, 200, body, content_type=PROTOBUF_TYPE)
            return
        await send_bytes(request, 200, encode_json(document), content_type=JSON_TYPE)
