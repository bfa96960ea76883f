"""Paths of OpenAPI documents: which operations a resource has, and the query parameters each takes.

Clients look here for two things: which kind a path carries (`x-kubernetes-group-version-kind`), and whether a PATCH
knows `fieldValidation` (kubectl validates by itself where it does not). Called by `apiserver.openapi`.
"""

from __future__ import annotations

from typing import Any

from api import schema
from api.resources import Resource, Subresource
from apiserver.crd.resource import CustomResource

_TYPES = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_PATCH_TYPES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
# kubectl sends whatever it finds here, strategic patches first.
_CUSTOM_PATCH_TYPES = _PATCH_TYPES[:3]
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_PARAMETERS: dict[str, tuple[str, str]] = {
    "allowWatchBookmarks": ("boolean", "Ask for events of type BOOKMARK in a watch."),
    "continue": ("string", "The token of an earlier page; the list goes on behind it."),
    "dryRun": ("string", "`All`: go through all stages but write nothing."),
    "fieldManager": ("string", "The name under which changed fields are tracked."),
    "fieldSelector": ("string", "Restrict the list of returned objects to those whose fields have these values."),
    "fieldValidation": ("string", "What to do about unknown or duplicate fields: `Ignore`, `Warn` or `Strict`."),
    "force": ("boolean", "Take fields from other managers; for apply patches only."),
    "gracePeriodSeconds": ("integer", "Seconds until the object is deleted."),
    "ignoreStoreReadErrorWithClusterBreakingPotential": ("boolean", "Delete even what cannot be read."),
    "labelSelector": ("string", "Restrict the list of returned objects to those whose labels match."),
    "limit": ("integer", "The most objects that a page may have."),
    "orphanDependents": ("boolean", "Deprecated: use propagationPolicy."),
    "pretty": ("string", "If 'true', the output is indented."),
    "propagationPolicy": ("string", "What happens to dependents: `Orphan`, `Background` or `Foreground`."),
    "resourceVersion": ("string", "The version that the answer must not be older than, or must be exactly."),
    "resourceVersionMatch": ("string", "How resourceVersion is meant in a list."),
    "sendInitialEvents": ("boolean", "Begin a watch with the objects that exist."),
    "timeoutSeconds": ("integer", "The call ends after this time, whatever happens."),
    "watch": ("boolean", "Watch for changes to the described resources instead of listing them."),
}
_LIST = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "pretty",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
_DELETE = (
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "pretty",
    "propagationPolicy",
)
_WRITE = ("dryRun", "fieldManager", "fieldValidation", "pretty")
_QUERY: dict[str, tuple[str, ...]] = {
    "connect": (),
    "deletecollection": tuple(dict.fromkeys((*_LIST[:-1], *_DELETE))),
    "delete": _DELETE,
    "get": ("pretty",),
    "list": _LIST,
    "patch": ("dryRun", "fieldManager", "fieldValidation", "force", "pretty"),
    "post": _WRITE,
    "put": _WRITE,
}
# API verb → HTTP method, x-kubernetes-action, first word of the operation id.
_ITEM = {
    "get": ("get", "get", "read"),
    "update": ("put", "put", "replace"),
    "patch": ("patch", "patch", "patch"),
    "delete": ("delete", "delete", "delete"),
}
_COLLECTION = {
    "list": ("get", "list", "list"),
    "create": ("post", "post", "create"),
    "deletecollection": ("delete", "deletecollection", "deleteCollection"),
}
_CONNECT_KINDS = frozenset(("PodAttachOptions", "PodExecOptions", "PodPortForwardOptions")) | frozenset(
    ("NodeProxyOptions", "PodProxyOptions", "ServiceProxyOptions")
)
_CONNECT_METHODS = {"get": "get", "create": "post", "update": "put", "patch": "patch", "delete": "delete"}


def resource_paths(resource: Resource) -> dict[str, Any]:
    """Every path of one resource, subresources included."""
    root = f"/apis/{resource.group_version}" if resource.group else f"/api/{resource.version}"
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    base = f"{root}{scope}/{resource.plural}"
    common = [_path_parameter("namespace")] if resource.namespaced else []
    paths: dict[str, Any] = {}
    collection = {
        method: _operation(resource, verb, action, word, scoped=resource.namespaced)
        for verb, (method, action, word) in _COLLECTION.items()
        if verb in resource.verbs
    }
    if collection:
        paths[base] = {**collection, "parameters": common} if common else collection
    if resource.namespaced and "list" in resource.verbs:
        listed = _operation(resource, "list", "list", "list", scoped=False)
        listed["operationId"] += "ForAllNamespaces"
        paths[f"{root}/{resource.plural}"] = {"get": listed}
    item = {
        method: _operation(resource, verb, action, word, scoped=resource.namespaced)
        for verb, (method, action, word) in _ITEM.items()
        if verb in resource.verbs
    }
    named = [_path_parameter("name"), *common]
    if item:
        paths[f"{base}/{{name}}"] = {**item, "parameters": named}
    for name, subresource in resource.subresources.items():
        paths[f"{base}/{{name}}/{name}"] = {**_subresource(resource, name, subresource), "parameters": named}
    return paths


def _subresource(resource: Resource, name: str, subresource: Subresource) -> dict[str, Any]:
    group, version = subresource.group or resource.group, subresource.version or resource.version
    kind = {"group": group, "version": version, "kind": subresource.kind}
    operations: dict[str, Any] = {}
    for verb in subresource.verbs:
        if subresource.kind in _CONNECT_KINDS:
            method, action, word = _CONNECT_METHODS[verb], "connect", f"connect{verb.capitalize()}"
        else:
            method, action, word = {**_ITEM, **_COLLECTION}[verb]
        made = _operation(resource, verb, action, word, scoped=resource.namespaced, kind=kind)
        made["operationId"] += "".join(part.capitalize() for part in name.split("_"))
        operations[method] = made
    return operations


def _operation(
    resource: Resource, verb: str, action: str, word: str, *, scoped: bool, kind: dict[str, str] | None = None
) -> dict[str, Any]:
    kind = kind or {"group": resource.group, "version": resource.version, "kind": resource.kind}
    family = (resource.group.partition(".")[0] or "core").capitalize() + resource.version.capitalize()
    made: dict[str, Any] = {
        "tags": [f"{resource.group.partition('.')[0] or 'core'}_{resource.version}"],
        "description": f"{word.capitalize()} {resource.kind}",
        "operationId": f"{word}{family}{'Namespaced' if scoped else ''}{resource.kind}",
        "parameters": [_query_parameter(name) for name in _QUERY[action]],
    }
    name = schema.definition_name(kind["group"], kind["version"], kind["kind"])
    if action in ("post", "put") and name:
        made["requestBody"] = {"content": {"*/*": _schema(name)}, "required": True}
    elif action == "patch":
        types = _CUSTOM_PATCH_TYPES if isinstance(resource, CustomResource) else _PATCH_TYPES
        made["requestBody"] = {"content": {kind: _schema(f"{_META}.Patch") for kind in types}, "required": True}
    elif action in ("delete", "deletecollection"):
        made["requestBody"] = {"content": {"*/*": _schema(f"{_META}.DeleteOptions")}}
    made["responses"] = _responses(resource, action, name)
    made["x-kubernetes-action"] = action
    made["x-kubernetes-group-version-kind"] = kind
    return made


def _responses(resource: Resource, action: str, name: str | None) -> dict[str, Any]:
    if action == "connect":
        answer = {"200": {"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}}}
    elif action == "list":
        listed = schema.definition_name(resource.group, resource.version, resource.list_kind)
        answer = {"200": _answer("OK", listed)}
    elif action in ("delete", "deletecollection"):
        answer = {"200": _answer("OK", f"{_META}.Status")}
        if action == "delete":
            answer["202"] = _answer("Accepted", f"{_META}.Status")
    else:
        answer = {"200": _answer("OK", name)}
        if action in ("post", "put", "patch"):
            answer["201"] = _answer("Created", name)
    return {**answer, "401": {"description": "Unauthorized"}}


def _answer(description: str, name: str | None) -> dict[str, Any]:
    content = {media_type: _schema(name) for media_type in _TYPES} if name else {}
    return {"description": description, "content": content}


def _schema(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _query_parameter(name: str) -> dict[str, Any]:
    kind, description = _PARAMETERS[name]
    return {"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": True}}


def _path_parameter(name: str) -> dict[str, Any]:
    what = "name of the object" if name == "name" else "object name and auth scope, such as for teams and projects"
    return {
        "name": name,
        "in": "path",
        "description": what,
        "required": True,
        "schema": {"type": "string", "uniqueItems": True},
    }


def discovery_paths(name: str) -> dict[str, Any]:
    """The path that lists a group version's resources."""
    return {f"/{name}/": simple_get(name, f"{_META}.APIResourceList")}


def simple_get(name: str, answer: str) -> dict[str, Any]:
    """A path with one GET that takes nothing."""
    word = "".join(part.capitalize() for part in name.replace(".", "/").replace("-", "/").split("/") if part)
    return {
        "get": {
            "description": f"get {name}",
            "operationId": f"get{word}",
            "responses": {"200": _answer("OK", answer), "401": {"description": "Unauthorized"}},
        }
    }
