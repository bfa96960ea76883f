"""The OCI distribution API, as far as pulling needs it: manifests, blobs, token authentication.

Standard library only, blocking, every request bounded. Credentials never follow a redirect to another host. Called by
the puller's threads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, TypeVar

from runtime.faults import BadConfig, PullDenied, PullUnknown, PullUnreachable, RuntimeFault
from runtime.images.archive import pick_platform
from runtime.images.reference import DEFAULT_REGISTRY, Reference
from runtime.images.store import ContentStore, ImageRecord

T = TypeVar("T")
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_TIMEOUT = 30.0
_MANIFEST_LIMIT = 4 << 20
_ATTEMPTS = 3


@dataclass(frozen=True)
class Credentials:
    """What to show a registry; all empty means anonymous."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    @property
    def basic(self) -> str:
        """Value of an Authorization header, or empty."""
        if not self.username:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class _SafeRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        here, there = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if made is not None and (here.scheme, here.netloc) != (there.scheme, there.netloc):
            made.remove_header("Authorization")
        return made


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """(scheme in lower case, parameters) of a WWW-Authenticate header. Pure."""
    scheme, _, rest = header.strip().partition(" ")
    return scheme.lower(), {key.lower(): value for key, value in re.findall(r'(\w+)="([^"]*)"', rest)}


class Registry:
    """One repository of one registry."""

    def __init__(self, reference: Reference, credentials: Credentials, *, insecure: tuple[str, ...] = ()) -> None:
        self.reference = reference
        self.host = "registry-1.docker.io" if reference.registry == DEFAULT_REGISTRY else reference.registry
        name = self.host.rpartition(":")[0] if re.search(r":\d+$", self.host) else self.host
        local = name in ("localhost", "127.0.0.1", "[::1]")
        self._plain = local or self.host in insecure or name in insecure
        self._base = f"{'http' if self._plain else 'https'}://{self.host}/v2/{reference.repository}"
        self._credentials = credentials
        self._authorization = f"Bearer {credentials.registry_token}" if credentials.registry_token else ""
        self._opener = urllib.request.build_opener(_SafeRedirect)

    def connect(self, timeout: float) -> None:
        """Raise OSError unless the registry (or the proxy in front of it) accepts a connection."""
        scheme = "http" if self._plain else "https"
        parts = urllib.parse.urlsplit(f"{scheme}://{self.host}")
        proxy = urllib.request.getproxies().get(scheme)
        if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
            parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"http://{proxy}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=timeout).close()

    def say(self, what: str) -> str:
        """A sentence for the user."""
        return f'failed to pull and unpack image "{self.reference}": {what}'

    def _open(self, path: str, accept: str = "") -> Any:
        for attempt in (1, 2):
            headers = {"Accept": accept} if accept else {}
            if self._authorization:
                headers["Authorization"] = self._authorization
            request = urllib.request.Request(self._base + path, headers=headers)
            try:
                return self._opener.open(request, timeout=_TIMEOUT)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code == 401 and attempt == 1 and self._authenticate(error.headers):
                        continue
                    raise self._explain(error.code) from error
        raise self._explain(401)

    def _explain(self, code: int) -> RuntimeFault:
        ref = self.reference
        if code in (401, 403):
            return PullDenied(
                self.say(
                    "pull access denied, repository does not exist or may require authorization: "
                    "server message: insufficient_scope: authorization failed"
                )
            )
        if code == 404:
            return PullUnknown(self.say(f'failed to resolve reference "{ref}": {ref}: not found'))
        if code == 429:
            return RuntimeFault(self.say("429 Too Many Requests: the registry limits pulls"), "RESOURCE_EXHAUSTED")
        if code in (502, 503, 504):
            return PullUnreachable(self.say(f"registry answered {code}"))
        return RuntimeFault(self.say(f"unexpected status code {code}"))

    def _authenticate(self, headers: Message) -> bool:
        """Answer a challenge; False when there is nothing (more) to answer with."""
        scheme, parameters = parse_challenge(headers.get("WWW-Authenticate", ""))
        if scheme == "basic":
            fresh = self._credentials.basic
        elif scheme == "bearer" and parameters.get("realm"):
            fresh = self._token(parameters)
        else:
            return False
        if not fresh or fresh == self._authorization:
            return False
        self._authorization = fresh
        return True

    def _token(self, parameters: dict[str, str]) -> str:
        realm = parameters["realm"]
        if urllib.parse.urlsplit(realm).scheme not in ("http", "https"):
            return ""
        query = {
            "service": parameters.get("service", ""),
            "scope": parameters.get("scope", f"repository:{self.reference.repository}:pull"),
        }
        query = {key: value for key, value in query.items() if value}
        data = None
        headers: dict[str, str] = {}
        if self._credentials.identity_token:
            query |= {"grant_type": "refresh_token", "refresh_token": self._credentials.identity_token}
            data = urllib.parse.urlencode(query | {"client_id": "nanokube"}).encode()
            url = realm
        else:
            url = f"{realm}{'&' if '?' in realm else '?'}{urllib.parse.urlencode(query)}"
            if self._credentials.basic:
                headers["Authorization"] = self._credentials.basic
        try:
            with self._opener.open(urllib.request.Request(url, data, headers), timeout=_TIMEOUT) as answer:
                document = json.loads(answer.read(_MANIFEST_LIMIT))
        except urllib.error.HTTPError as error:
            with error:
                raise self._explain(401 if error.code in (400, 401, 403) else error.code) from error
        except ValueError as error:
            raise RuntimeFault(self.say("token server answered nonsense")) from error
        token = document.get("token") or document.get("access_token") if isinstance(document, dict) else None
        return f"Bearer {token}" if token else ""

    def manifest(self, wanted: str) -> tuple[str, dict[str, Any]]:
        """(digest, manifest) of a tag or digest, checked."""
        with self._open(f"/manifests/{wanted}", _ACCEPT) as answer:
            raw: bytes = answer.read(_MANIFEST_LIMIT)
        digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        if wanted.startswith("sha256:") and wanted != digest:
            raise RuntimeFault(self.say(f"manifest digest mismatch: expected {wanted}, got {digest}"), "DATA_LOSS")
        try:
            document = json.loads(raw)
        except ValueError as error:
            raise RuntimeFault(self.say("manifest is not JSON")) from error
        if not isinstance(document, dict):
            raise RuntimeFault(self.say("manifest is not an object"))
        return digest, document

    def blob(self, digest: str, store: ContentStore) -> None:
        """Bring a blob into the store unless it is there; another process may be doing the same."""
        if store.blob(digest).exists():
            return
        with store.lock(f"blob-{digest}"):
            if store.blob(digest).exists():
                return
            with self._open(f"/blobs/{digest}") as answer:
                store.put_blob(answer, digest)


def fetch(registry: Registry, store: ContentStore) -> tuple[str, ImageRecord]:
    """Pull the registry's reference into the store: (digest of what was asked for, the image)."""

    def body() -> tuple[str, ImageRecord]:
        digest, manifest = registry.manifest(registry.reference.wanted)
        for _ in range(3):
            if "manifests" not in manifest:
                break
            _, manifest = registry.manifest(str(pick_platform(manifest["manifests"])["digest"]))
        if manifest.get("schemaVersion") == 1 or "config" not in manifest:
            raise BadConfig(registry.say("manifest schema is not supported"))
        layers = list(manifest["layers"])
        for layer in layers:
            if "zstd" in str(layer.get("mediaType", "")):
                raise BadConfig(registry.say("layers compressed with zstd are not supported; push it with gzip"))
        registry.blob(manifest["config"]["digest"], store)
        config = store.blob(manifest["config"]["digest"]).read_bytes()
        for layer in layers:
            registry.blob(layer["digest"], store)
        return digest, store.add_image(config, [layer["digest"] for layer in layers])

    return _retrying(registry, body)


def _retrying(registry: Registry, body: Callable[[], T]) -> T:
    """Connections break: try again with what is already in the store."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return body()
        except urllib.error.URLError as error:
            if attempt == _ATTEMPTS or isinstance(error.reason, OSError):
                reason = getattr(error.reason, "strerror", None) or error.reason
                raise PullUnreachable(registry.say(f"failed to do request: {reason}")) from error
        except (OSError, HTTPException) as error:
            if attempt == _ATTEMPTS:
                raise PullUnreachable(registry.say(f"connection failed: {error}")) from error
        except (KeyError, TypeError, AttributeError) as error:
            raise RuntimeFault(registry.say(f"manifest is incomplete: {error!r}")) from error
    raise AssertionError("unreachable")
