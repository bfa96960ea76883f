"""How the server tells a backend for whom it asks: headers that only its client certificate makes believable.

Owns: the names of these headers, the TLS settings towards backends, and the ConfigMap by which backends learn both.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from apiserver.aggregation.model import ApiService
from apiserver.auth.user import ALL_AUTHENTICATED, MASTERS, UserInfo
from apiserver.rest.responses import Header
from machinery.tls import KeyPair

USER, UID, GROUP, EXTRA = "X-Remote-User", "X-Remote-Uid", "X-Remote-Group", "X-Remote-Extra-"
AGGREGATOR = UserInfo("system:kube-aggregator", (MASTERS, ALL_AUTHENTICATED))
CONFIG_MAP = "extension-apiserver-authentication"
# Characters of a header's name; "%" is left out because it begins an escape.
_TOKEN = frozenset(b"!#$&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def user_headers(user: UserInfo) -> Iterator[Header]:
    """The identity as headers of one request."""
    yield USER.lower().encode(), user.name.encode()
    if user.uid:
        yield UID.lower().encode(), user.uid.encode()
    for group in user.groups:
        yield GROUP.lower().encode(), group.encode()
    for key, values in user.extra.items():
        for value in values:
            yield EXTRA.lower().encode() + escape_key(key), value.encode()


def escape_key(key: str) -> bytes:
    """A key of a user's extra as part of a header's name."""
    return b"".join(bytes((byte,)) if byte in _TOKEN else b"%%%02X" % byte for byte in key.encode())


@dataclass(frozen=True)
class FrontProxy:
    """Who the server is to backends. `pair`: its client certificate, and the authority (`ca`) that signed it."""

    pair: KeyPair | None
    client_ca: Path | None
    allowed_names: tuple[str, ...] = ("front-proxy-client",)

    def config_map(self) -> dict[str, Any]:
        """What backends need to know to believe the headers and clients' own certificates."""
        data: dict[str, str] = {}
        if self.client_ca is not None:
            data["client-ca-file"] = self.client_ca.read_text()
        if self.pair is not None:
            data["requestheader-allowed-names"] = json.dumps(self.allowed_names)
            data["requestheader-client-ca-file"] = self.pair.ca.read_text()
            data["requestheader-extra-headers-prefix"] = json.dumps([EXTRA])
            data["requestheader-group-headers"] = json.dumps([GROUP])
            data["requestheader-uid-headers"] = json.dumps([UID])
            data["requestheader-username-headers"] = json.dumps([USER])
        meta = {"name": CONFIG_MAP, "namespace": "kube-system"}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}

    def context(self, service: ApiService) -> ssl.SSLContext:
        """TLS towards a backend. Raises ValueError for a bundle that holds no certificate."""
        return _context(self.pair, service.ca, service.insecure)

    def unverified(self) -> ssl.SSLContext:
        """TLS towards whoever answers: to find out whether anybody does."""
        return _context(self.pair, "", True)


@lru_cache(maxsize=64)
def _context(pair: KeyPair | None, ca: str, insecure: bool) -> ssl.SSLContext:
    if insecure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=base64.b64decode(ca).decode("ascii"))
        except (ValueError, ssl.SSLError) as error:
            raise ValueError("unable to load root certificates: unable to parse bytes as PEM block") from error
    else:
        context = ssl.create_default_context()
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context
