"""What an aggregated API server tells of itself: groups, resources and OpenAPI.

Owns: the forms of these documents. Pure. Filled by the servers' own `documents` modules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from api import schema

Document = dict[str, Any]
DISCOVERY_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
META = "io.k8s.apimachinery.pkg.apis.meta.v1"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"


def split(api_version: str) -> tuple[str, str]:
    """(group, version) of `group/version`."""
    group, _, version = api_version.rpartition("/")
    return group, version


def api_group(group: str, versions: Sequence[str]) -> Document:
    """/apis/GROUP; the first version is the preferred one."""
    entries = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": entries, "preferredVersion": entries[0]}


def group_list(groups: Iterable[Document]) -> Document:
    """/apis."""
    bare = [{key: value for key, value in each.items() if key not in ("kind", "apiVersion")} for each in groups]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": bare}


def resource_list(api_version: str, resources: Iterable[Document]) -> Document:
    """/apis/GROUP/VERSION. A resource: name, singularName, namespaced, kind, verbs."""
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": list(resources)}


def aggregated_discovery(lists: Iterable[Document]) -> Document:
    """/apis as apidiscovery.k8s.io/v2, made of resource lists; versions of a group stand in the order given."""
    groups: dict[str, list[Document]] = {}
    for each in lists:
        group, version = split(each["groupVersion"])
        entry = {
            "version": version,
            "resources": _discovered(group, version, each["resources"]),
            "freshness": "Current",
        }
        groups.setdefault(group, []).append(entry)
    items = [
        {"metadata": {"name": name, "creationTimestamp": None}, "versions": versions}
        for name, versions in groups.items()
    ]
    head = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}}
    return {**head, "items": items}


def _discovered(group: str, version: str, resources: Iterable[Document]) -> list[Document]:
    """The v2 form knows subresources only below a resource, so that a name with a slash gets a parent of no verbs."""
    found: dict[str, Document] = {}
    for each in resources:
        name, _, subresource = each["name"].partition("/")
        scope = "Namespaced" if each["namespaced"] else "Cluster"
        told = {"responseKind": {"group": group, "version": version, "kind": each["kind"]}, "verbs": each["verbs"]}
        if not subresource:
            found[name] = {"resource": name, "scope": scope, "singularResource": each["singularName"], **told}
            continue
        nothing = {"group": "", "version": "", "kind": ""}
        parent = found.setdefault(
            name, {"resource": name, "scope": scope, "singularResource": "", "responseKind": nothing, "verbs": []}
        )
        parent.setdefault("subresources", []).append({"subresource": subresource, **told})
    return list(found.values())


def openapi_index(documents: Mapping[str, bytes]) -> Document:
    """/openapi/v3. `documents`: by path, as /openapi/v3/apis/GROUP/VERSION."""
    paths = {}
    for path, body in documents.items():
        digest = hashlib.sha512(body).hexdigest().upper()
        paths[path.removeprefix("/openapi/v3/")] = {"serverRelativeURL": f"{path}?hash={digest}"}
    return {"paths": paths}


class Described:
    """OpenAPI of some group versions in one of its two forms."""

    def __init__(self, title: str, *, v3: bool) -> None:
        self._title = title
        self.v3 = v3
        self.prefix = "#/components/schemas/" if v3 else "#/definitions/"

    def document(self, paths: Mapping[str, Document], schemas: Document) -> bytes:
        """The whole document; `paths` hold the operation of GET."""
        told = {path: {"get": operation} for path, operation in paths.items()}
        info = {"title": self._title, "version": f"v{schema.KUBERNETES_VERSION}"}
        if self.v3:
            made: Document = {"openapi": "3.0.0", "info": info, "paths": told, "components": {"schemas": schemas}}
        else:
            made = {"swagger": "2.0", "info": info, "paths": told, "definitions": schemas}
        return msgspec.json.encode(made)

    def operation(self, path: str, identifier: str, text: str, answer: str, kind: Document, action: str) -> Document:
        """A GET. `answer`: the definition it answers with; `kind`: group, version and kind."""
        told: Document = {"schema": {"$ref": self.prefix + answer}}
        string: Document = {"schema": {"type": "string"}} if self.v3 else {"type": "string"}
        names = [part.partition("}")[0] for part in path.split("{")[1:]]
        parameters = [{"name": name, "in": "path", "required": True, **string} for name in names]
        ok: Document = {"description": "OK", **({"content": {"application/json": told}} if self.v3 else told)}
        return {
            "description": text,
            "operationId": identifier,
            "parameters": parameters,
            "responses": {"200": ok},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
        }

    def kind(self, properties: Document, required: Sequence[str], text: str, *kinds: Document) -> Document:
        """An object with apiVersion and kind."""
        described = msgspec.json.decode(schema.raw_definition("io.k8s.api.core.v1.Pod"))["properties"]
        named = {
            name: {"type": "string", "description": described[name]["description"]} for name in ("apiVersion", "kind")
        }
        made: Document = {
            "type": "object",
            "description": text,
            "required": list(required),
            "properties": {**named, **properties},
        }
        if kinds:
            made["x-kubernetes-group-version-kind"] = list(kinds)
        return made

    def listed(self, definition: str, kind: Document) -> Document:
        """The list of a kind; `definition`: that of an item."""
        items = {"type": "array", "items": {"$ref": self.prefix + definition}}
        properties = {"metadata": {"$ref": f"{self.prefix}{META}.ListMeta"}, "items": items}
        text = f"{kind['kind']}List is a list of {kind['kind']}."
        return self.kind(properties, ["items"], text, {**kind, "kind": f"{kind['kind']}List"})

    @staticmethod
    def shared() -> Document:
        """Definitions that every group of metrics refers to."""
        return {
            QUANTITY: {"type": "string"},
            f"{META}.Time": {"type": "string", "format": "date-time"},
            f"{META}.Duration": {"type": "string"},
            f"{META}.ObjectMeta": {"type": "object"},
            f"{META}.ListMeta": {"type": "object"},
            f"{META}.LabelSelector": {"type": "object"},
        }
