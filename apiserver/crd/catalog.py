"""What the server serves now, as documents: discovery and OpenAPI of built-in, custom and aggregated resources.

Owns the custom part and the merging of all; documents are made when first asked for after a change. `crd.serving` and
the aggregator tell what is served, the REST door reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from api.resources import RESOURCES
from apiserver.crd.resource import CustomResource
from apiserver.discovery import Discovery, RemoteVersion
from apiserver.openapi_names import component_name, group_version_kind

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"


class Catalog:
    """Documents about everything served."""

    def __init__(self) -> None:
        self._custom: tuple[CustomResource, ...] = ()
        self._remotes: tuple[RemoteVersion, ...] = ()
        self.discovery = Discovery(RESOURCES)
        self.openapi = CustomDocuments(())
        self.remote_openapi: Mapping[str, str] = {}
        """Names of OpenAPI v3 documents that backends have, and where they say that these are."""
        self.translated_openapi: Mapping[str, bytes] = {}
        """Those that had to be made here because the backend has none, gzipped."""
        self.on_custom: Callable[[Iterable[CustomResource]], None] = lambda resources: None

    @property
    def custom(self) -> tuple[CustomResource, ...]:
        return self._custom

    def set_custom(self, resources: Iterable[CustomResource]) -> None:
        """From now on these are served besides the built-in ones."""
        self._custom = tuple(resources)
        self.discovery = Discovery((*RESOURCES, *self._custom), self._remotes)
        self.openapi = CustomDocuments(self._custom)
        self.on_custom(self._custom)

    def set_remote(
        self, versions: Iterable[RemoteVersion], openapi: Mapping[str, str], translated: Mapping[str, bytes]
    ) -> None:
        """From now on backends tell this of themselves."""
        self._remotes = tuple(versions)
        self.remote_openapi = openapi
        self.translated_openapi = translated
        self.discovery = Discovery((*RESOURCES, *self._custom), self._remotes)


class CustomDocuments:
    """OpenAPI documents, built-in and custom. Importing what makes them waits for the first question."""

    def __init__(self, custom: tuple[CustomResource, ...]) -> None:
        self._custom = custom
        self._made: dict[str, bytes] = {}

    @cached_property
    def _by_name(self) -> Mapping[str, list[CustomResource]]:
        found: dict[str, list[CustomResource]] = {}
        for resource in self._custom:
            found.setdefault(f"apis/{resource.group_version}", []).append(resource)
            found.setdefault(f"apis/{resource.group}", []).append(resource)
        return found

    @cached_property
    def index(self) -> Mapping[str, str]:
        """Document name to hash."""
        from apiserver import openapi

        own = {name: _hash(name, resources) for name, resources in self._by_name.items()}
        return {**own, **openapi.index()}

    def document(self, name: str) -> bytes:
        """The document's JSON. KeyError for names that are not in `index`."""
        from apiserver import openapi

        served = self._by_name.get(name)
        if served is None or name in openapi.index():
            return openapi.document(name)
        if name not in self._made:
            self._made[name] = self.make(name)
        return self._made[name]

    def make(self, name: str) -> bytes:
        """A custom document, made anew."""
        from apiserver import openapi

        served = self._by_name[name]
        if name == f"apis/{served[0].group}":
            return openapi.group_document(name)
        schemas: dict[str, Any] = {}
        for resource in served:
            schemas.update(schemas_of(resource))
        return openapi.custom_document(name, served, schemas)


def _hash(name: str, resources: list[CustomResource]) -> str:
    """A document is a function of the definitions alone."""
    rows = sorted(repr(resource) + repr(dict(resource.subresources)) for resource in resources)  # schemas included
    return hashlib.sha512("\n".join((name, *rows)).encode()).hexdigest().upper()


def schemas_of(resource: CustomResource) -> dict[str, Any]:
    """The schemas of a kind and of its list."""
    from apiserver.openapi_v2 import object_meta, type_meta

    own = resource.raw_schema
    meta = {"description": object_meta()["description"], "default": {}}
    properties = {
        **(own.get("properties") or {}),
        **type_meta(),
        "metadata": {"allOf": [{"$ref": f"#/components/schemas/{_META}.ObjectMeta"}], **meta},
    }
    item = component_name(resource, resource.kind)
    reference = {"allOf": [{"$ref": f"#/components/schemas/{item}"}], "default": {}}
    listed = {
        "type": "object",
        "required": ["items"],
        "description": f"{resource.list_kind} is a list of {resource.kind}",
        "properties": {
            "apiVersion": properties["apiVersion"],
            "items": {"type": "array", "items": reference, "description": f"List of {resource.plural}."},
            "kind": properties["kind"],
            "metadata": {"allOf": [{"$ref": f"#/components/schemas/{_META}.ListMeta"}], **meta},
        },
        "x-kubernetes-group-version-kind": [group_version_kind(resource, resource.list_kind)],
    }
    whole = {
        **own,
        "properties": properties,
        "x-kubernetes-group-version-kind": [group_version_kind(resource, resource.kind)],
    }
    return {item: whole, component_name(resource, resource.list_kind): listed}
