"""Extracts of large documents (discovery, OpenAPI) that are compared instead of the whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Obj = dict[str, Any]

_GA = re.compile(r"v\d+")


def _resource_view(r: Obj) -> Obj:
    keep = ("kind", "namespaced", "singularName", "group", "version")
    out = {k: r[k] for k in keep if k in r}
    for k in ("verbs", "shortNames", "categories"):
        if r.get(k):
            out[k] = sorted(r[k])
    return out


def view_groups(body: Any, step: Obj) -> Any:
    """/apis or /api: group -> GA versions and the preferred one."""
    if body.get("kind") == "APIVersions":
        return {"kind": body["kind"], "versions": body.get("versions")}
    return {
        "kind": body.get("kind"),
        "groups": {
            g["name"]: {
                "versions": sorted(v["version"] for v in g["versions"] if _GA.fullmatch(v["version"])),
                "preferred": g["preferredVersion"]["version"],
            }
            for g in body.get("groups", [])
            if "example" not in g["name"]
        },
    }


def view_resources(body: Any, step: Obj) -> Any:
    return {
        "kind": body.get("kind"),
        "groupVersion": body.get("groupVersion"),
        "resources": {r["name"]: _resource_view(r) for r in body.get("resources", [])},
    }


def view_aggregated(body: Any, step: Obj) -> Any:
    groups: Obj = {}
    for item in body.get("items", []):
        name = (item.get("metadata") or {}).get("name", "")
        if "example" in name:
            continue
        for version in item.get("versions", []):
            if not _GA.fullmatch(version["version"]):
                continue
            resources = {}
            for r in version.get("resources", []):
                resources[r["resource"]] = {
                    "scope": r.get("scope"),
                    "responseKind": r.get("responseKind"),
                    "singularResource": r.get("singularResource"),
                    "verbs": sorted(r.get("verbs") or []),
                    "shortNames": sorted(r.get("shortNames") or []),
                    "categories": sorted(r.get("categories") or []),
                    "subresources": {
                        s["subresource"]: {"responseKind": s.get("responseKind"), "verbs": sorted(s.get("verbs") or [])}
                        for s in r.get("subresources") or []
                    },
                }
            groups.setdefault(name, {})[version["version"]] = {
                "freshness": version.get("freshness"),
                "resources": resources,
            }
    only = step.get("only")
    return {
        "kind": body.get("kind"),
        "apiVersion": body.get("apiVersion"),
        "groups": {g: v for g, v in groups.items() if only is None or g in only},
    }


def view_openapi_index(body: Any, step: Obj) -> Any:
    return sorted(
        p
        for p in body.get("paths", {})
        if "example" not in p and (not re.search(r"/v\d", p) or _GA.fullmatch(p.rsplit("/", 1)[-1]))
    )


def view_openapi_schema(body: Any, step: Obj) -> Any:
    schemas = (body.get("components") or {}).get("schemas") or {}
    out = {}
    for name in step["schemas"]:
        s = schemas.get(name)
        out[name] = s and {
            "type": s.get("type"),
            "required": sorted(s.get("required") or []),
            "properties": {
                p: {k: v for k, v in d.items() if k.startswith("x-kubernetes-") or k in ("type", "format")}
                for p, d in (s.get("properties") or {}).items()
            },
            **{k: v for k, v in s.items() if k.startswith("x-kubernetes-")},
        }
    return out


def view_keys(body: Any, step: Obj) -> Any:
    return sorted(body) if isinstance(body, dict) else body


VIEWS: dict[str, Callable[[Any, Obj], Any]] = {
    "groups": view_groups,
    "resources": view_resources,
    "aggregated": view_aggregated,
    "openapi-index": view_openapi_index,
    "openapi-schema": view_openapi_schema,
    "keys": view_keys,
}


def protobuf_envelope(data: bytes) -> Obj:
    """The type that a protobuf answer declares: magic, then runtime.Unknown{typeMeta{apiVersion,kind}}."""

    def varint(buf: bytes, i: int) -> tuple[int, int]:
        shift = result = 0
        while True:
            byte = buf[i]
            i += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result, i
            shift += 7

    def fields(buf: bytes) -> dict[int, bytes]:
        i = 0
        out: dict[int, bytes] = {}
        while i < len(buf):
            tag, i = varint(buf, i)
            if tag & 7 != 2:
                break
            size, i = varint(buf, i)
            out.setdefault(tag >> 3, buf[i : i + size])
            i += size
        return out

    if data[:4] != b"k8s\0":
        return {"protobuf": "no magic"}
    try:
        unknown = fields(data[4:])
        meta = fields(unknown.get(1, b""))
        return {"protobuf": {"apiVersion": meta.get(1, b"").decode(), "kind": meta.get(2, b"").decode()}}
    except (IndexError, UnicodeDecodeError):
        return {"protobuf": "unreadable"}
