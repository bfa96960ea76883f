"""Requests: which path, method, query, headers and body a seed stands for.

Owns the mix. Writes stay where they do no lasting harm: two namespaces, and `dryRun` for kinds that change how the
server treats everybody (webhooks, policies, namespaces, API services, priority levels).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from api.resources import RESOURCES, Resource
from tests.fuzz import bodies

NAMESPACES = ("fuzz-a", "fuzz-b")
NAMES = tuple(f"n{number}" for number in range(12))
# Kinds that would change the answers of all other requests: never stored.
DRY = frozenset(
    {
        "validatingwebhookconfigurations",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
        "apiservices",
        "namespaces",
        "flowschemas",
        "prioritylevelconfigurations",
        "customresourcedefinitions",
        "resourcequotas",
        "limitranges",
    }
)
CUSTOM = "/apis/fuzz.example.com/v1/namespaces/{}/fuzzers"
SELECTORS = (
    "a=b",
    "a==b,c!=d",
    "a in (b,c),d notin (e)",
    "a",
    "!a",
    "a in (",
    "a in ()",
    ",",
    "=",
    "a=b=c",
    "a>5",
    "a>x",
    "((((",
    "x" * 300 + "=y",
    "metadata.name=n1",
    "metadata.name==n1,metadata.namespace!=fuzz-a",
    "spec.nodeName=",
    "status.phase=Running",
    "nosuch.field=1",
    "metadata.name=a\\,b",
    "metadata.name=\\",
    "involvedObject.name=x",
)
TOKENS = (
    "",
    "abc",
    "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0",
    "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTUsInN0YXJ0IjoiLi4vLi4vIn0=",
    "e30",
    "%FF%00",
    "A" * 5000,
)
ACCEPTS = (
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/json;as=Nonsense",
    "text/html,*/*;q=0.1",
    ";;;,,,",
    "*/*",
    "",
    "application/json;as=Table;v=v9;g=x",
)
PATCHES = {
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "merge",
    "application/json-patch+json": "json",
    "application/apply-patch+yaml": "apply",
    "application/apply-patch+cbor": "apply",
    "application/nonsense": "merge",
}
SYSTEM_PATHS = (
    "/",
    "/api",
    "/apis",
    "/api/v1",
    "/apis/apps",
    "/apis/apps/v1",
    "/apis/nosuch/v1",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/api/v1",
    "/openapi/v3/apis/apps/v1",
    "/version",
    "/healthz",
    "/livez?verbose",
    "/readyz?verbose&exclude=etcd",
    "/livez/etcd",
    "/livez/nosuch",
    "/metrics",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
)


@dataclass(frozen=True)
class Wanted:
    """One request; `raw` set: these bytes instead of a request."""

    method: str = "GET"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    content_type: str = ""
    raw: bytes = b""
    watch: bool = False
    stored: str = field(default="", compare=False)
    """The path at which the object lies if the request succeeds; "" when nothing is stored."""

    def describe(self) -> str:
        """For a finding: short, but enough to send it again."""
        if self.raw:
            return f"raw {self.raw[:400]!r}"
        return f"{self.method} {self.path[:400]} {dict(self.headers)} {self.content_type} {self.body[:1500]!r}"


def make(rng: random.Random) -> Wanted:
    """The next request."""
    roll = rng.random()
    if roll < 0.34:
        return create(rng)
    if roll < 0.46:
        return update(rng)
    if roll < 0.64:
        return patch(rng)
    if roll < 0.88:
        return read(rng)
    if roll < 0.93:
        return delete(rng)
    if roll < 0.96:
        return odd_path(rng)
    if roll < 0.975:
        content_type, body = bodies.bomb(rng)
        return Wanted("POST", f"/api/v1/namespaces/{NAMESPACES[0]}/configmaps?dryRun=All", (), body, content_type)
    if roll < 0.985:
        return custom(rng)
    return Wanted(raw=_noise(rng))


def root(resource: Resource, rng: random.Random) -> str:
    prefix = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    if not resource.namespaced:
        return f"{prefix}/{resource.plural}"
    return f"{prefix}/namespaces/{rng.choice(NAMESPACES)}/{resource.plural}"


def create(rng: random.Random) -> Wanted:
    resource, body = bodies.an_object(rng)
    name = _name(rng)
    if isinstance(body, dict):
        meta = body.get("metadata")
        meta = dict(meta) if isinstance(meta, dict) else {}
        meta.pop("namespace", None) if rng.random() < 0.95 else None
        if rng.random() < 0.95:
            meta["name"] = name
        body = {**body, "metadata": meta}
    content_type, raw = bodies.encoded(body, rng)
    path = root(resource, rng)
    if not resource.storable:
        return Wanted("POST", path + _query(rng), _headers(rng), raw, content_type)
    query = _query(rng, dry=resource.plural in DRY)
    stored = "" if "dryRun" in query else f"{path}/{quote(name, safe='', errors='replace')}"
    return Wanted("POST", path + query, _headers(rng), raw, content_type, stored=stored)


def update(rng: random.Random) -> Wanted:
    resource, body = bodies.an_object(rng)
    name = rng.choice(NAMES)
    if isinstance(body, dict) and rng.random() < 0.95:
        meta = body.get("metadata")
        body = {**body, "metadata": {**(meta if isinstance(meta, dict) else {}), "name": name}}
    content_type, raw = bodies.encoded(body, rng)
    query = _query(rng, dry=resource.plural in DRY)
    path = f"{root(resource, rng)}/{name}"
    stored = "" if "dryRun" in query else path
    return Wanted("PUT", path + _sub(resource, rng) + query, _headers(rng), raw, content_type, stored=stored)


def patch(rng: random.Random) -> Wanted:
    resource, body = bodies.an_object(rng)
    content_type, kind = rng.choice(tuple(PATCHES.items())[: 6 if rng.random() < 0.1 else 4])
    name = rng.choice(NAMES)
    value: Any = body
    if kind == "json":
        value = [_operation(rng, body) for _ in range(rng.randrange(1, 4))]
        if rng.random() < 0.05:
            value = bodies.anything(rng)
    elif kind == "merge" and isinstance(body, dict) and rng.random() < 0.6:
        keys = [key for key in body if key not in ("apiVersion", "kind")]
        value = {key: body[key] for key in keys[: rng.randrange(1, 3)]}
        if "strategic" in content_type and rng.random() < 0.4:
            value[
                rng.choice(
                    ("$patch", "$retainKeys", "$setElementOrder/containers", "$deleteFromPrimitiveList/finalizers")
                )
            ] = rng.choice(("replace", "delete", "merge", "x", ["a"], [], None, 1))
    elif kind == "apply" and isinstance(value, dict):
        meta = value.get("metadata")
        value = {**value, "metadata": {**(meta if isinstance(meta, dict) else {}), "name": name}}
    raw = bodies.encoded(value, rng)[1] if rng.random() < 0.1 else bodies._json(value)
    if rng.random() < 0.05:
        raw = bodies.damaged(raw, rng)
    extra = (("fieldManager", rng.choice(("fuzz", "fuzz", "other", "", "x" * 200))),) if rng.random() < 0.9 else ()
    if kind == "apply" and rng.random() < 0.7:
        extra = (*extra, ("force", "true"))
    query = _query(rng, dry=resource.plural in DRY, extra=extra)
    path = f"{root(resource, rng)}/{name}"
    stored = "" if "dryRun" in query else path
    return Wanted("PATCH", path + _sub(resource, rng) + query, _headers(rng), raw, content_type, stored=stored)


def _operation(rng: random.Random, body: Any) -> Any:
    keys = list(body) if isinstance(body, dict) else ["spec"]
    paths = (
        f"/{rng.choice(keys or ['spec'])}",
        "/metadata/labels/a",
        "/spec/x/-",
        "",
        "/",
        "~",
        "/metadata/name",
        "/a~2b",
    )
    operation: dict[str, Any] = {
        "op": rng.choice(("add", "replace", "remove", "move", "copy", "test", "nonsense")),
        "path": rng.choice(paths),
    }
    if rng.random() < 0.7:
        operation["value"] = bodies.anything(rng)
    if rng.random() < 0.3:
        operation["from"] = rng.choice(paths)
    return bodies.mutate(operation, rng, 0.03)


def read(rng: random.Random) -> Wanted:
    resource = rng.choice(RESOURCES)
    path = root(resource, rng)
    if rng.random() < 0.3:
        path = path.replace(f"/namespaces/{NAMESPACES[0]}", "").replace(f"/namespaces/{NAMESPACES[1]}", "")
    if rng.random() < 0.4:
        path += f"/{quote(_name(rng), safe='', errors='replace')}{_sub(resource, rng)}"
    pairs: list[tuple[str, str]] = []
    options = (
        ("labelSelector", SELECTORS),
        ("fieldSelector", SELECTORS),
        ("limit", ("0", "1", "-1", "2", "x", "99999999999999999999", "1.5")),
        ("continue", TOKENS),
        ("resourceVersion", ("", "0", "1", "-1", "x", "999999999", "18446744073709551616", "1e3")),
        ("resourceVersionMatch", ("Exact", "NotOlderThan", "Nonsense", "")),
        ("timeoutSeconds", ("0", "1", "-1", "x")),
        ("sendInitialEvents", ("true", "false", "x")),
        ("allowWatchBookmarks", ("true", "x")),
        ("includeObject", ("None", "Object", "Metadata", "Nonsense")),
        ("timeout", ("1s", "0", "-1s", "x", "1h", "10000000h", "1ns")),
        ("pretty", ("true", "x")),
        ("watch", ("true", "0", "nonsense")),
    )
    for key, values in options:
        if rng.random() < 0.12:
            pairs.append((key, rng.choice(values) if rng.random() < 0.93 else rng.choice(bodies.TEXTS)))
    watching = any(key == "watch" for key, _ in pairs)
    return Wanted(rng.choice(("GET", "GET", "GET", "HEAD")), path + _join(pairs), _headers(rng), watch=watching)


def delete(rng: random.Random) -> Wanted:
    resource = rng.choice(bodies.corpus())[0]
    path = root(resource, rng)
    pairs = [("dryRun", "All")] if resource.plural in DRY else []
    if rng.random() < 0.8:
        path += f"/{quote(_name(rng), safe='', errors='replace')}"
    elif not resource.namespaced:
        pairs = [("dryRun", "All")]
    body = bodies.mutate(
        {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "gracePeriodSeconds": 0,
            "propagationPolicy": rng.choice(("Foreground", "Background", "Orphan", "x")),
            "preconditions": {"uid": "x", "resourceVersion": "1"},
        },
        rng,
        0.3,
    )
    if rng.random() < 0.5 or not isinstance(body, dict):
        return Wanted("DELETE", path + _join(pairs), _headers(rng))
    if pairs:
        body["dryRun"] = ["All"]
    content_type, raw = bodies.encoded(body, rng) if not pairs else (bodies.JSON, bodies._json(body))
    return Wanted("DELETE", path + _join(pairs), _headers(rng), raw, content_type)


def odd_path(rng: random.Random) -> Wanted:
    roll = rng.random()
    method = rng.choice(("GET", "GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "HEAD", "PATCH", "BREW"))
    if roll < 0.5:
        return Wanted(method, rng.choice(SYSTEM_PATHS), _headers(rng))
    parts = [
        "api",
        "apis",
        "v1",
        "namespaces",
        "pods",
        "watch",
        "apps",
        "fuzz-a",
        "",
        "..",
        "%2f",
        "%00",
        "%ff",
        "status",
    ]
    path = "/" + "/".join(
        rng.choice((*parts, quote(rng.choice(bodies.TEXTS), errors="replace"))) for _ in range(rng.randrange(1, 9))
    )
    if path.startswith(("/api/v1/namespaces", "/apis/")) and method == "DELETE":
        method = "GET"
    return Wanted(method, path, _headers(rng), watch="watch" in path)


def custom(rng: random.Random) -> Wanted:
    body = bodies.mutate(
        {
            "apiVersion": "fuzz.example.com/v1",
            "kind": "Fuzzer",
            "metadata": {"name": rng.choice(NAMES)},
            "spec": {"replicas": 1, "text": "abc", "list": [{"key": "a", "value": 1}], "any": bodies.anything(rng)},
            "status": {"ok": True},
        },
        rng,
        0.1,
    )
    content_type, raw = bodies.encoded(body, rng)
    path = CUSTOM.format(rng.choice(NAMESPACES))
    if rng.random() < 0.5:
        return Wanted("POST", path + _query(rng), _headers(rng), raw, content_type)
    path += f"/{rng.choice(NAMES)}{rng.choice(('', '', '/status', '/scale'))}"
    if rng.random() < 0.5:
        return Wanted("PUT", path + _query(rng), _headers(rng), raw, content_type)
    kinds = ("application/merge-patch+json", "application/apply-patch+yaml", "application/json-patch+json")
    return Wanted("PATCH", path + _query(rng, extra=(("fieldManager", "fuzz"),)), _headers(rng), raw, rng.choice(kinds))


def _noise(rng: random.Random) -> bytes:
    starts = (
        b"",
        b"GET / HTTP/1.1\r\n",
        b"GET /api HTTP/9.9\r\n",
        b"POST /api/v1/namespaces HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n",
        b"POST /api/v1/namespaces HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nZZZ\r\n",
        b"GET /api HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 70_000 + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET http://[::bad HTTP/1.1\r\nhost: a\r\n\r\n",
    )
    return rng.choice(starts) + rng.randbytes(rng.randrange(40)) + rng.choice((b"", b"\r\n\r\n"))


def _name(rng: random.Random) -> str:
    return rng.choice(NAMES) if rng.random() < 0.9 else rng.choice(bodies.TEXTS) or "-"


def _sub(resource: Resource, rng: random.Random) -> str:
    if rng.random() < 0.75 or not resource.subresources:
        return "/nosuch" if rng.random() < 0.02 else ""
    return f"/{rng.choice(sorted(resource.subresources))}"


def _headers(rng: random.Random) -> tuple[tuple[str, str], ...]:
    made: list[tuple[str, str]] = []
    if rng.random() < 0.4:
        made.append(("accept", rng.choice(ACCEPTS)))
    if rng.random() < 0.05:
        made.append(("audit-id", rng.choice(("a" * 100, "x y", "ok-1"))))
    if rng.random() < 0.03:
        made.append(
            ("impersonate-user", rng.choice(("alice", "system:serviceaccount:a:b", "system:serviceaccount:", "\xff")))
        )
    if rng.random() < 0.02:
        made.append(("impersonate-extra-%zz", "1"))
    if rng.random() < 0.03:
        made.append(("user-agent", rng.choice(("", "\xe9\xff", "x" * 3000, "a/b (c)"))))
    if rng.random() < 0.01:
        made.append(("authorization", rng.choice(("Bearer", "Bearer x.y.z", "Basic xx", "Bearer " + "a" * 9000))))
    if rng.random() < 0.02:
        made.append(("accept-encoding", rng.choice(("gzip", "identity;q=0", "br,*"))))
    return tuple(made)


def _query(rng: random.Random, *, dry: bool = False, extra: tuple[tuple[str, str], ...] = ()) -> str:
    pairs = list(extra)
    if dry or rng.random() < 0.1:
        pairs.append(("dryRun", "All"))
    if rng.random() < 0.15:
        pairs.append(("fieldValidation", rng.choice(("Strict", "Warn", "Ignore", "Nonsense"))))
    if rng.random() < 0.05:
        pairs.append(("fieldManager", rng.choice(bodies.TEXTS)))
    if rng.random() < 0.03:
        pairs.append(("timeout", rng.choice(("30s", "x", "-1s", "1h"))))
    if rng.random() < 0.02:
        pairs.append((rng.choice(bodies.TEXTS), rng.choice(bodies.TEXTS)))
    return _join(pairs)


def _join(pairs: list[tuple[str, str]]) -> str:
    if not pairs:
        return ""
    return "?" + "&".join(f"{quote(key, errors='replace')}={quote(value, errors='replace')}" for key, value in pairs)
