"""OpenAPI v3: one document per group and version, for `kubectl explain`, `apply` and `create`.

Owns: which documents there are, their hashes and their bytes. Documents are made when first asked for, from the
shipped definitions and the resource table, and a few are kept: a client asks once and then caches by hash. Never:
serves HTTP, knows custom resources' schemas (their documents are added through `custom_document`). Called by the REST
door.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from api import resources, schema
from apiserver.openapi_paths import discovery_paths, resource_paths, simple_get
from apiserver.openapi_schemas import component_of, components

# Raised whenever the making of documents changes, so that clients drop what they have cached.
GENERATION = 1
KEPT_DOCUMENTS = 4

_PLAIN = (".well-known/openid-configuration", "api", "apis", "version")
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_ALWAYS = (f"{_META}.APIResourceList", f"{_META}.DeleteOptions", f"{_META}.Patch", f"{_META}.Status")
_DISCOVERY_KINDS = {"api": "APIVersions", "apis": "APIGroupList"}


@lru_cache(maxsize=1)
def index() -> Mapping[str, str]:
    """Document name (``api/v1``, ``apis/apps/v1`` …) to hash, for the URL's ``?hash=`` and the ETag."""
    names = [*_PLAIN]
    for resource in resources.RESOURCES:
        prefix = f"apis/{resource.group}" if resource.group else "api"
        names += [prefix, f"{prefix}/{resource.version}"]
    return {name: _hash(name) for name in sorted(set(names))}


def _hash(name: str) -> str:
    """A document is a function of these alone."""
    rows = [repr(resource) + repr(dict(resource.subresources)) for resource in _resources_of(name)]
    text = "\n".join((str(GENERATION), schema.KUBERNETES_VERSION, name, *rows))
    return hashlib.sha512(text.encode()).hexdigest().upper()


def _resources_of(name: str) -> list[resources.Resource]:
    root, _, rest = name.partition("/")
    group, _, version = rest.rpartition("/") if root == "apis" else ("", "", rest)
    return [r for r in resources.RESOURCES if r.group == group and r.version == version and root in ("api", "apis")]


@lru_cache(maxsize=KEPT_DOCUMENTS)
def document(name: str) -> bytes:
    """The document's JSON. KeyError for names that are not in `index()`."""
    return make(name)


def make(name: str) -> bytes:
    """`document`, made anew."""
    if name not in index():
        raise KeyError(name)
    served = _resources_of(name)
    if served:
        return _encode(name, *_group_version(name, served))
    if name in ("version", ".well-known/openid-configuration"):
        found = ("io.k8s.apimachinery.pkg.version.Info",) if name == "version" else ()
        path = f"/{name}/" if name != "version" else "/version/"
        return _encode(name, {path: simple_get(name, found[0] if found else "")}, components(found))
    return group_document(name)


def group_document(name: str) -> bytes:
    """The document of ``api``, ``apis`` or ``apis/<group>``: one path that tells what there is."""
    answer = f"{_META}.{_DISCOVERY_KINDS.get(name, 'APIGroup')}"
    return _encode(name, {f"/{name}/": simple_get(name, answer)}, components((answer,)))


def _group_version(name: str, served: Iterable[resources.Resource]) -> tuple[dict[str, Any], dict[str, Any]]:
    paths: dict[str, Any] = discovery_paths(name)
    roots = list(_ALWAYS)
    for resource in served:
        paths.update(resource_paths(resource))
        roots += component_of(resource)
    return dict(sorted(paths.items())), components(roots)


def custom_document(name: str, served: Iterable[resources.Resource], schemas: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The document of a custom group and version; `schemas` is by kind, as written in the CustomResourceDefinition."""
    paths, shared = _group_version(name, served)
    shared.update(components((f"{_META}.ObjectMeta", f"{_META}.ListMeta")))
    return _encode(name, paths, dict(sorted({**shared, **schemas}.items())))


def _encode(name: str, paths: Mapping[str, Any], schemas: Mapping[str, Any]) -> bytes:
    security = {
        "BearerToken": {
            "type": "apiKey",
            "description": "Bearer Token authentication",
            "name": "authorization",
            "in": "header",
        }
    }
    return msgspec.json.encode(
        {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": f"v{schema.KUBERNETES_VERSION}"},
            "paths": paths,
            "components": {"schemas": schemas, "securitySchemes": security},
        }
    )
