"""What a backend tells of itself, in the forms this server merges.

Owns: the reading of discovery (both forms) and of the OpenAPI v3 index. Pure; a document that is not what it should be
raises ValueError, whatever a backend sends.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from apiserver.aggregation.model import ApiService

Document = dict[str, Any]

AGGREGATED_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
ACCEPT = f"{AGGREGATED_TYPE},{AGGREGATED_TYPE.replace('v=v2', 'v=v2beta1')},application/json"


class _Kind(msgspec.Struct):
    group: str = ""
    version: str = ""
    kind: str = ""


class _Discovered(msgspec.Struct):
    """apidiscovery.k8s.io APIResourceDiscovery, as far as it is checked; told on as it came."""

    resource: str
    verbs: list[str] = []
    scope: str = ""
    responseKind: _Kind | None = None
    subresources: list[dict[str, Any]] = []


class _Version(msgspec.Struct):
    version: str
    resources: list[Document] = []


class _Meta(msgspec.Struct):
    name: str = ""


class _Group(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    versions: list[_Version] = []


class _GroupList(msgspec.Struct):
    items: list[_Group] = []


class _Listed(msgspec.Struct):
    """metav1.APIResource."""

    name: str
    kind: str = ""
    namespaced: bool = False
    singularName: str = ""
    group: str = ""
    version: str = ""
    verbs: list[str] = []
    shortNames: list[str] = []
    categories: list[str] = []


class _ResourceList(msgspec.Struct):
    resources: list[_Listed] = []


class _Path(msgspec.Struct):
    serverRelativeURL: str = ""


class _Index(msgspec.Struct):
    paths: dict[str, _Path] = {}


T = TypeVar("T")


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"{kind.__name__.strip('_')}: {error}") from error


def from_aggregated(service: ApiService, body: bytes) -> tuple[Document, ...] | None:
    """The resources of a group version in an APIGroupDiscoveryList; None when it is not listed. Raises ValueError."""
    for group in _decode(body, _GroupList).items:
        for version in group.versions:
            if (group.metadata.name, version.version) == service.key:
                try:
                    msgspec.convert(version.resources, list[_Discovered])
                except msgspec.ValidationError as error:
                    raise ValueError(f"APIResourceDiscovery: {error}") from error
                return tuple(version.resources)
    return None


def from_list(service: ApiService, body: bytes) -> tuple[Document, ...]:
    """An APIResourceList in the form of aggregated discovery. Raises ValueError."""
    found: dict[str, Document] = {}
    for entry in _decode(body, _ResourceList).resources:
        name, _, subresource = entry.name.partition("/")
        kind = {
            "group": entry.group or service.group,
            "version": entry.version or service.version,
            "kind": entry.kind,
        }
        if subresource:
            parent = found.setdefault(name, {"resource": name, "scope": _scope(entry), "verbs": []})
            told = {"subresource": subresource, "responseKind": kind, "verbs": entry.verbs}
            parent.setdefault("subresources", []).append(told)
            continue
        made = found.setdefault(name, {})
        made.update(
            {"resource": name, "responseKind": kind, "scope": _scope(entry), "singularResource": entry.singularName}
        )
        made["verbs"] = entry.verbs
        if entry.shortNames:
            made["shortNames"] = entry.shortNames
        if entry.categories:
            made["categories"] = entry.categories
    return tuple(found.values())


def _scope(entry: _Listed) -> str:
    return "Namespaced" if entry.namespaced else "Cluster"


def openapi_url(service: ApiService, body: bytes) -> str:
    """Where the index of OpenAPI v3 says that the group version's document is; "" when it has none. ValueError."""
    found = _decode(body, _Index).paths.get(service.path[1:])
    url = found.serverRelativeURL if found is not None else ""
    return url if url.startswith("/openapi/v3/") else ""
